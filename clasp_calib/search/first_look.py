"""Whether the unpruned model answers anything right, before hours go into how to prune it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.metrics import EXACT, METRICS, metric
from clasp_calib.calib.scoring.templates import QUESTION, in_shell
from clasp_calib.common.errors import ClaspError, InputError
from clasp_calib.common.progress import note
from clasp_calib.common.samples import Sample

FIRST = 24
"""Questions none of which is answered rightly, after which a class is given up. Our choice: a model that is right on a
quarter of a class is stopped by mistake in one class of 1,000 (0.75 ** 24), on a third in one of 17,000."""
LONG = 96
"""Questions after which a model that chooses among given answers has to be above chance. A model that is right on 70 %
of yes-or-no questions is stopped by mistake in one class of 30,000, on 65 % in one of 560."""
OTHER = 4
"""Questions with another answer, none of which is answered rightly, that show that the same is said to all."""
CHOOSING = {"multiple_choice", "yes_no", "pope", "mme"}
"""Metrics of questions with given answers, where guessing is right as often as there are few."""
GIVEN = {"yes", "no", "true", "false", *"abcdefgh"}
"""Answers that are such whatever the metric."""
EXAMPLES, SHOWN = 3, 60
SHORT = "\nAnswer the question using a single word or phrase."
"""LLaVA-1.5's own words for it (https://github.com/haotian-liu/LLaVA, docs/Evaluation.md)."""


@dataclass(frozen=True)
class Look:
    """What the unpruned model says to the first samples of a class, as far as it was asked."""

    samples: tuple[Sample, ...]
    said: tuple[str, ...]
    scores: tuple[float, ...]

    @property
    def trouble(self) -> str | None:
        """What is wrong with the answers; ``None`` where nothing is."""
        count, right = len(self.scores), Counter(_gold(s) for s, v in zip(self.samples, self.scores, strict=True) if v)
        if not right:
            return f"answers none of the first {count} questions right"
        if not _choosing(self.samples):
            return None
        golds = Counter(map(_gold, self.samples))
        if count >= FIRST and len(right) == 1 and count - golds[next(iter(right))] >= OTHER:
            return f"is right on the first {count} questions only where {next(iter(right))!r} is expected"
        if count >= LONG and len(golds) > 1 and sum(self.scores) / count <= 1 / len(golds):
            return f"is no better than chance on the first {count} questions ({sum(self.scores):g} right)"
        return None

    @property
    def told(self) -> str:
        """Some of the questions, with what was said and what was expected."""
        return "; ".join(
            f"{_short(sample.question)} -> {_short(answer)}, expected {_short(' | '.join(sample.answers))}"
            for sample, answer in list(zip(self.samples, self.said, strict=True))[:EXAMPLES]
        )


def look_first(evaluator: Evaluator, own: Candidate, samples: Mapping[str, Sequence[Sample]], anyway: bool) -> None:
    """Stop where the unpruned model answers the first samples of a class no better than by chance; say it of few.

    Samples of all classes count together where none of any is answered rightly.

    Args:
        evaluator: of the model.
        own: the model's own setting.
        samples: by class, in the order of the search.
        anyway: say it in a line, and go on.

    Raises:
        InputError: with questions, expected answers and what was said, and what to try.
    """
    looks = {label: _look(evaluator, own, of) for label, of in samples.items() if any(s.answers for s in of)}
    troubled = {label: look for label, look in looks.items() if look.trouble}
    nothing = not any(any(look.scores) for look in looks.values())
    everything = sum(len(look.scores) for look in looks.values())
    for label, look in troubled.items():
        short = f"class {label!r}: the unpruned model {look.trouble}"
        if anyway:
            note(f"{short}; the search goes on")
            continue
        names = ", ".join(sorted({sample.metric or EXACT for sample in look.samples}))
        found = f"{short} by the metric {names}: {look.told}; {_advice(look, evaluator.template)}"
        if (everything if nothing else len(look.scores)) >= FIRST:
            raise InputError(f"{found}; or search all the same with --anyway (anyway of CalibrationOptions)")
        note(f"{found}; the search goes on")


def _look(evaluator: Evaluator, own: Candidate, samples: Sequence[Sample]) -> Look:
    """Ask until something is right; where answers are given, until it is more than chance."""
    asked = [sample for sample in samples if sample.answers]
    choosing = _choosing(asked[:LONG])
    golds, right = len(set(map(_gold, asked[:LONG]))), set()
    said: list[str] = []
    scores: list[float] = []
    for sample in asked[: LONG if choosing else FIRST]:
        said += evaluator.answers(sample, [own], Pruning(None))
        scores.append(metric(sample.metric or EXACT)(said[-1], sample.answers))
        if scores[-1]:
            right.add(_gold(sample))
            if not choosing or (len(right) > 1 and sum(scores) > LONG / golds):
                break
    return Look(tuple(asked[: len(scores)]), tuple(said), tuple(scores))


def _advice(look: Look, template: str) -> str:
    """What may help: another metric, a shorter answer, or another prompt."""
    pairs, worth = list(zip(look.said, look.samples, strict=True)), {}
    for name in METRICS:
        if name == "rouge_l":  # One word in common counts for something.
            continue
        try:
            scores = [metric(name)(answer, sample.answers) for answer, sample in pairs]
        except ClaspError:  # The answers are not such as this one compares.
            continue
        worth[name] = sum(score > 0 for score in scores), sum(scores)
    best = max(worth, key=lambda name: worth[name][::-1])
    if not sum(look.scores) and worth[best][0] >= len(pairs) / 4:
        return f"by the metric {best} {worth[best][0]} of {len(pairs)} would count: write it in the column metric"
    within = sum(any(a.casefold() in answer.casefold() for a in sample.answers if a) for answer, sample in pairs)
    if not sum(look.scores) and within:
        asked = in_shell(template.replace(QUESTION, QUESTION + SHORT))
        return f"{within} of {len(pairs)} answers contain what was expected: ask for a short one, with --prompt {asked}"
    return "see whether these are the right pictures and answers, and the prompt is the model's own (--prompt)"


def _choosing(samples: Sequence[Sample]) -> bool:
    """Whether all are answered by one of a few given answers."""
    return all(sample.metric in CHOOSING or _gold(sample) in GIVEN for sample in samples)


def _gold(sample: Sample) -> str:
    return sample.answers[0].strip().casefold()


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]} ...")
