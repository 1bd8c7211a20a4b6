"""The metrics of samples by name: the packaged ones, and those that installed packages bring as entry points.

A metric is a function of an answer and its references to a number in [0, 1]. What cannot be written so, because it is
of many samples together, is in `clasp_calib.calib.studies.corpus`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from clasp_calib.calib.scoring import answer_metrics
from clasp_calib.calib.scoring.caption_overlap import rouge_l
from clasp_calib.calib.scoring.vqa_accuracy import textvqa, vqa
from clasp_calib.common import plugins
from clasp_calib.common.errors import InputError
from clasp_calib.common.samples import Sample

Metric = Callable[[str, Sequence[str]], float]

GROUP = "clasp_calib.metrics"
"""Entry points of this group are metrics, under their names."""
EXACT = "exact"
"""The answer is a reference, to the letter, and then ends. Scored in one forward where its tokens tell."""
MAX_NEW_TOKENS = 16
"""Longest answer where a metric has to generate, unless an accepted one is longer."""
METRICS: Mapping[str, Metric] = {
    EXACT: answer_metrics.exact,
    "exact_match": answer_metrics.exact_match,
    "multiple_choice": answer_metrics.multiple_choice,
    "yes_no": answer_metrics.yes_no,
    "pope": answer_metrics.pope,
    "mme": answer_metrics.mme,
    "vqa": vqa,
    "textvqa": textvqa,
    "relaxed": answer_metrics.relaxed,
    "numeric": answer_metrics.numeric,
    "anls": answer_metrics.anls,
    "rouge_l": rouge_l,
}


def metric(name: str) -> Metric:
    """The metric of a name.

    Raises:
        InputError: there is none, there are two, or the package that brings it cannot be loaded.
    """
    others = plugins.brought(GROUP)
    if name in others:
        found: Metric = plugins.loaded(GROUP, "metric", name, METRICS)
        return found
    if name not in METRICS:
        raise InputError(f"unknown metric {name!r}; expected one of {', '.join([*METRICS, *others])}")
    return METRICS[name]


def check_references(sample: Sample) -> None:
    """Refuse accepted answers of a sample that its metric cannot compare with, or that no answer can ever be.

    Raises:
        InputError: with the metric and what it compares with; or as `metric`.
    """
    name = sample.metric or EXACT
    # An answer of nothing, for what the metric itself refuses.
    metric(name)("", sample.answers)
    if name == "multiple_choice" and METRICS[name] == metric(name):
        answer_metrics.check_letters(sample.question, sample.answers)


def generated(samples: Iterable[Sample]) -> dict[str, int]:
    """Metrics that one forward cannot tell, so that the answer is generated -> how many samples have them."""
    return dict(Counter(sample.metric for sample in samples if sample.metric not in (None, EXACT)))
