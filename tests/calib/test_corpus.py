"""Metrics of all samples together are those of scikit-learn and of MME's definition."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from clasp_calib.calib.scoring.answer_metrics import mme, pope
from clasp_calib.calib.studies.corpus import (
    CORPUS_METRICS,
    JudgedAnswers,
    accuracy,
    accuracy_plus,
    corpus_intervals,
    f1,
    mme_score,
    precision,
    recall,
    yes_ratio,
)
from clasp_calib.common.errors import InputError
from clasp_calib.common.samples import Sample

ROWS = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 4)), min_size=1, max_size=12)


def judged(rows):
    """From what was said, what is right, and the picture."""
    said, gold, pictures = zip(*rows, strict=True)
    words = {True: "yes", False: "no"}
    references = [[words[right]] for right in gold]
    return JudgedAnswers.of([pope(words[s], r) for s, r in zip(said, references, strict=True)], references, pictures)


@given(ROWS)
def test_scores_tell_what_scikit_learn_tells_of_the_answers(rows):
    said, gold, _ = zip(*rows, strict=True)
    found, once = judged(rows), np.ones(len(rows), dtype=np.int64)
    assert found.said.tolist() == list(said)
    assert accuracy(found, once) == pytest.approx(accuracy_score(gold, said))
    assert precision(found, once) == pytest.approx(precision_score(gold, said, zero_division=0))
    assert recall(found, once) == pytest.approx(recall_score(gold, said, zero_division=0))
    assert f1(found, once) == pytest.approx(f1_score(gold, said, zero_division=0))
    assert yes_ratio(found, once) == pytest.approx(np.mean(said))


@given(ROWS)
def test_accuracy_plus_asks_for_all_questions_of_a_picture(rows):
    by_picture = {}
    for said, gold, picture in rows:
        by_picture.setdefault(picture, []).append(said == gold)
    expected = np.mean([all(of) for of in by_picture.values()])
    found, once = judged(rows), np.ones(len(rows), dtype=np.int64)
    assert accuracy_plus(found, once) == pytest.approx(expected)
    assert mme_score(found, once) == pytest.approx(expected + accuracy(found, once))


@given(ROWS, st.randoms())
def test_counting_a_picture_twice_is_having_it_twice(rows, chance):
    times = {picture: chance.randint(0, 3) for *_, picture in rows}
    times[rows[0][2]] = 1
    copies = [(said, gold, (picture, copy)) for said, gold, picture in rows for copy in range(times[picture])]
    weights = np.array([times[picture] for *_, picture in rows])
    for by_name in CORPUS_METRICS.values():
        for corpus_metric in by_name.values():
            expected = corpus_metric(judged(copies), np.ones(len(copies), dtype=np.int64))
            assert corpus_metric(judged(rows), weights) == pytest.approx(expected)


def test_two_of_three_pictures():
    """Golden values, by hand: six questions about three pictures, one of them wrong."""
    references = [["yes"], ["no"]] * 3
    answers = ["yes", "no", "Yes.", "No, it is red", "yes", "yes"]
    scores = [mme(answer, of) for answer, of in zip(answers, references, strict=True)]
    found, once = JudgedAnswers.of(scores, references, ["a", "a", "b", "b", "c", "c"]), np.ones(6, dtype=np.int64)
    assert accuracy(found, once) == pytest.approx(5 / 6)
    assert accuracy_plus(found, once) == pytest.approx(2 / 3)
    assert mme_score(found, once) == pytest.approx(1.5)
    assert (precision(found, once), recall(found, once)) == (0.75, 1)
    assert f1(found, once) == pytest.approx(6 / 7)


def test_only_yes_or_no_questions_have_them():
    with pytest.raises(InputError, match="expected yes or no"):
        JudgedAnswers.of([1.0], [["red"]], ["a"])


def test_samples_without_such_a_metric_stand_aside():
    """Values by metric with an interval that holds them; nothing where no sample has one."""
    rng = np.random.default_rng(0)
    samples = [
        Sample(str(n), "?", Path(f"{n // 4}.png"), ("yes" if n % 2 else "no",), metric)
        for n in range(80)
        for metric in ("mme", "pope", "exact", None)
    ]
    scores = rng.integers(0, 2, len(samples)).astype(float)
    found = corpus_intervals(scores, samples, 0)
    assert list(found) == [f"{m} {n}" for m in ("pope", "mme") for n in CORPUS_METRICS[m]]
    for name, interval in found.items():
        assert interval.samples == 80
        assert interval.low < interval.mean < interval.high, name
    by_hand = scores[[sample.metric == "mme" for sample in samples]].mean()
    assert found["mme accuracy"].mean == pytest.approx(by_hand)
    assert corpus_intervals(scores[:2], samples[2:4], 0) == {}


def test_of_several_runs_it_is_the_mean():
    rng = np.random.default_rng(0)
    samples = [Sample(str(n), "?", Path(f"{n // 2}.png"), ("yes" if n % 2 else "no",), "mme") for n in range(40)]
    runs = rng.integers(0, 2, (3, len(samples))).astype(float)
    found = corpus_intervals(runs, samples, 0)
    each = [corpus_intervals(run, samples, 0) for run in runs]
    for name, interval in found.items():
        assert interval.mean == pytest.approx(np.mean([of[name].mean for of in each]))
        assert interval.high - interval.low < max(of[name].high - of[name].low for of in each)
