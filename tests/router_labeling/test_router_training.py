"""Fitting: what it learns, that it judges fairly, and that numpy runs what scikit-learn fitted."""

import numpy as np
import pytest

from clasp_calib.common.errors import InputError
from clasp_calib.router_labeling.classes import Classes
from clasp_calib.router_labeling.ngrams import Hashing
from clasp_calib.router_labeling.router_file import router_bytes
from clasp_calib.router_labeling.training import LabelledQuestion, feature_matrix, fit, folds, train_router

pytest.importorskip("sklearn")
THINGS = "dog cat car boat tree lamp shoe bird plane chair cup ball house horse plate clock phone fence".split()  # noqa: SIM905
FRAMES = (("how many", "s are there?"), ("what colour is the", "?"), ("zip", ""))
QUESTIONS = [f"{words} {thing}{end}" for words, end in FRAMES for thing in THINGS]
LABELS = [label for label in ("counting", "attribute", "default") for _ in THINGS]
CLASSES = Classes(("attribute", "counting", "default"), "class", "default", "3" * 64)


def rows(questions=QUESTIONS, labels=LABELS, source=None):
    return [LabelledQuestion(*pair, source, "{}") for pair in zip(questions, labels, strict=True)]


def trained(labels=LABELS, source=None, **changes):
    return train_router(rows(QUESTIONS, labels, source), CLASSES, "1" * 64, **changes)


def test_it_learns_what_separates_the_classes():
    found = trained()
    assert found.router.route("How many zebras are there?").label == "counting"
    assert found.router.route("what colour is the sky?").label == "attribute"
    assert found.agreement.likeliest > 0.95
    assert found.gold is None
    assert found.log_loss[1] <= found.log_loss[0]


def test_the_same_rows_give_the_same_bytes():
    assert router_bytes(trained().router) == router_bytes(trained().router)


def test_noise_is_not_taken_for_knowledge():
    """Labels without pattern: held out, they are guessed as badly as chance, and the router would rather abstain."""
    rng = np.random.default_rng(0)
    found = trained(rng.permutation(LABELS).tolist(), wrong_cost=10.0)
    assert found.agreement.likeliest < 0.6
    assert found.agreement.wrong < 0.1
    assert found.trade_off.cost[found.trade_off.best] < found.trade_off.cost[0]


def test_gold_rows_and_questions_to_judge_by_are_told_apart_from_labels():
    assert trained(source="gold").gold == trained(source="gold").agreement
    judge_by = rows(["how many swans are there?", "how many swans are there??"], ["counting", "attribute"])
    found = trained(judge_by=judge_by)
    assert found.gold.questions == 2
    assert found.gold.likeliest == 0.5
    assert np.array_equal(found.router.weights, trained().router.weights)


def test_near_duplicates_are_never_on_both_sides():
    truth, groups = np.arange(60) % 3, np.arange(60) // 4
    for fit_on, judged in folds(truth, groups, 0):
        assert not set(groups[fit_on]) & set(groups[judged])


@pytest.mark.parametrize("classes", [2, 3])
def test_numpy_runs_what_scikit_learn_fitted(classes):
    from sklearn.linear_model import LogisticRegression

    hashing = Hashing(10)
    matrix = feature_matrix(QUESTIONS, hashing)
    truth = np.arange(len(QUESTIONS)) % classes
    weights, bias = fit(matrix, truth, 3)
    model = LogisticRegression(C=10, max_iter=1000).fit(matrix, truth)
    logits = matrix @ weights + bias
    powers = np.exp(logits[:, :classes])
    assert powers / powers.sum(1, keepdims=True) == pytest.approx(model.predict_proba(matrix), abs=1e-3)
    if classes == 2:
        assert logits[:, 2].max() < -20


def test_too_few_questions_are_refused():
    with pytest.raises(InputError, match="there are 3 labelled questions of 1 classes, at most 3 of one"):
        train_router(rows(QUESTIONS[:3], LABELS[:3]), CLASSES, "1" * 64)
    with pytest.raises(InputError, match="at most 4 of one"):
        train_router(rows(QUESTIONS[:12], CLASSES.names * 4), CLASSES, "1" * 64)


def test_questions_that_are_all_alike_are_refused():
    with pytest.raises(InputError, match="near-duplicates of one another: 1 groups"):
        train_router(rows(["how many dogs?"] * 12, LABELS[12:24]), CLASSES, "1" * 64)


def test_a_class_that_only_one_fold_knows_is_no_trouble():
    labels = ["counting"] * (len(QUESTIONS) - 1) + ["default"]
    assert trained(labels).router.route("how many cats are there?").label == "counting"
