"""How a router errs, and what it then scores, on numbers that are known beforehand."""

import numpy as np
import pytest
from made_artifacts import CONFIG, made

from clasp_calib.calib.scoring.scores import Scores
from clasp_calib.calib.studies.ablations import measure_ablation
from clasp_calib.calib.studies.confusion import Confusion
from clasp_calib.calib.studies.scorer import Scorer
from clasp_calib.calib.studies.subject import Subject
from clasp_calib.common.errors import InputError
from clasp_calib.common.samples import Sample
from clasp_calib.crew.local_workers import InProcess

SAMPLES = {
    label: [Sample(f"{label}{n}", "?", image=f"{n}.png", label=label) for n in range(3)] for label in ("object", "text")
}
ERRS = Confusion("model", ("text", "object", "default"), np.array([[6, 2, 2], [1, 3, 0], [0, 0, 9]]))


class Told:
    """An evaluator whose score is a number for each sample and candidate."""

    def __init__(self, scores):
        self._scores = scores

    def scores(self, sample, candidates, pruning):
        return Scores(tuple(self._scores[sample.label][candidate] for candidate in candidates))


@pytest.fixture
def subject():
    artifact = made("50%")
    return Subject(CONFIG, artifact, artifact.budgets[0])


@pytest.fixture
def numbers(subject):
    """Of a sample's class and a candidate; those of two classes may be one and the same."""
    different = [*dict.fromkeys(subject.candidates().values())]
    extra = {"object": 0.0, "text": 0.1}
    return {label: {one: (n + 1) / 8 + extra[label] for n, one in enumerate(different)} for label in SAMPLES}


@pytest.fixture
def scorer(numbers):
    return Scorer(InProcess(Told(numbers)))


def test_a_router_scores_the_mean_over_what_it_makes_of_a_class(subject, scorer, numbers):
    of = {label: {name: numbers[label][one] for name, one in subject.candidates().items()} for label in SAMPLES}
    compared, _ = measure_ablation("routing", scorer, subject, SAMPLES, 0, [ERRS])
    table = compared.table()["routed by model"]
    expected = {
        "text": 0.6 * of["text"]["text"] + 0.2 * of["text"]["object"] + 0.2 * of["text"]["default"],
        "object": 0.25 * of["object"]["text"] + 0.75 * of["object"]["object"],
    }
    assert {label: table[label].mean for label in SAMPLES} == pytest.approx(expected)
    assert table["macro"].mean == pytest.approx(np.mean([*expected.values()]))


def test_a_router_without_errors_scores_as_calibrated_and_one_of_one_class_as_that_class(subject, scorer):
    classes = subject.artifact.classes
    right = Confusion("right", classes, np.eye(len(classes), dtype=int) * 7)
    counts = np.zeros((len(classes), len(classes)), int)
    counts[:, classes.index("default")] = 3
    given = [right, Confusion("same", classes, counts)]
    compared, full = measure_ablation("routing", scorer, subject, SAMPLES, 0, given)
    rows = dict(zip(compared.settings, compared.scores.tolist(), strict=True))
    assert rows["routed by right"] == pytest.approx(rows[full])
    assert rows["routed by same"] == pytest.approx(rows["always default"])


def test_shares_are_in_the_order_that_is_asked_for():
    assert ERRS.shares(("object", "default", "text"), ("text",)).tolist() == [[0, 0, 0], [0, 0, 0], [0.2, 0.2, 0.6]]
    assert ERRS.questions(("object", "scene")) == {"object": 4, "scene": 0}


def test_pairs_are_counted():
    found = Confusion.of_pairs("a", [("text", "text"), ("text", "object"), ("text", "text")])
    assert (found.classes, found.counts.tolist()) == (("object", "text"), [[0, 0], [1, 2]])


@pytest.mark.parametrize(
    ("classes", "counts", "message"),
    [
        (("a", "a"), np.eye(2, dtype=int), "names a class twice: a, a"),
        (("a", "b"), np.eye(3, dtype=int), r"shape \(3, 3\) .* for 2 classes; expected whole numbers"),
        (("a", "b"), np.eye(2), "float64"),
        (("a", "b"), -np.eye(2, dtype=int), "0 or more"),
    ],
)
def test_what_is_no_confusion_is_refused(classes, counts, message):
    with pytest.raises(InputError, match=message):
        Confusion("odd", classes, counts)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="'model' has no questions of the class scene, of which there are samples"):
        ERRS.shares(("object", "text", "default", "scene"), ("text", "scene"))
    with pytest.raises(InputError, match=r"gives questions of 'text' the class default, which the artifact does not"):
        ERRS.shares(("object", "text"), ("text",))
    assert ERRS.shares(("object", "text"), ("object",)).sum() == 1
