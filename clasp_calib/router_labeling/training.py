"""Fitting a router to labels, and judging it on questions that it has not seen. Needs scikit-learn."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clasp_calib.common.errors import InputError
from clasp_calib.router_labeling.abstention import (
    NOWHERE,
    WRONG_COST,
    TradeOff,
    best_temperature,
    calibration_error,
    log_loss,
    trade_off,
)
from clasp_calib.router_labeling.classes import Classes
from clasp_calib.router_labeling.duplicates import duplicate_groups
from clasp_calib.router_labeling.fallback import fallback_applies
from clasp_calib.router_labeling.ngrams import Hashing, features
from clasp_calib.router_labeling.router import Router, RouterTraining, softmax
from clasp_calib.router_labeling.router_file import MOST_BYTES
from clasp_calib.router_labeling.worth import JudgedRouter, Worth, is_rules_own, judged, weighed

FOLDS = 5
FEWEST = 2 * FOLDS
"""Fewest labelled questions. So few make no router worth having; they make one that can be looked at."""
REGULARISATION = 10.0
"""Our choice: scikit-learn's C. On the hand-labelled questions 50 was within a point of it."""
GOLD, UNPLACED = "gold", "default"
NEVER = -30.0
"""The logit of a class that the rows do not hold."""
_ITERATIONS = 1000


@dataclass(frozen=True)
class Trained:
    """A router and what cross-validation says about it."""

    router: Router
    gold: JudgedRouter | None
    """Against classes given by hand; ``None`` if there are none."""
    agreement: JudgedRouter
    """With the labels that it was distilled from, on held-out questions."""
    groups: int
    """Near-duplicates count as one."""
    unplaced: int
    """Rows that were not trained on; those with a class given by hand are judged by."""
    trade_off: TradeOff
    log_loss: tuple[float, float]
    """Of held-out questions, before and after calibration, in nats."""
    calibration_error: tuple[float, float]
    """The same for the expected calibration error, in [0, 1]."""
    worth: Worth
    """The router beside what answers without one: by classes given by hand if there are any, else by the labels."""


@dataclass(frozen=True)
class LabelledQuestion:
    """A row to train on, or to judge by."""

    question: str
    label: str
    """Slug of the class."""
    source: str | None = None
    """Who gave it: `GOLD` is by hand, `UNPLACED` says nothing."""
    labeler: str | None = None
    """Fingerprint of the labeler that gave it."""
    gold: str | None = None
    """Class given by hand beside the label: to judge by, not to train on."""

    @property
    def by_hand(self) -> str | None:
        """The class given by hand, if there is one."""
        return self.label if self.source == GOLD else self.gold


def train_router(
    rows: Sequence[LabelledQuestion],
    classes: Classes,
    digest: str,
    *,
    judge_by: Sequence[LabelledQuestion] = (),
    wrong_cost: float = WRONG_COST,
    seed: int = 0,
    step: Callable[[], object] = lambda: None,
) -> Trained:
    """Fit a router, its temperature and its threshold.

    Multinomial logistic regression on hashed n-grams. For each of five folds, a model that has seen neither the fold
    nor a near-duplicate of it says what it thinks of the fold. These held-out logits choose the temperature (by
    likelihood) and the threshold (by `trade_off`), and they alone are judged. The router is then fitted to all rows.
    Where the packaged router leads to these classes, it is judged on the same questions.

    Args:
        rows: what to train on; those that a labeler could not place say nothing about the default class, and are left
            out, but for judging by their class given by hand.
        classes: that there are, and the one to abstain to; without that the router never abstains.
        digest: hex sha256 of the labelled table, for the router's file.
        judge_by: further questions with classes given by hand, to judge by and not to train on.
        wrong_cost: see `trade_off`.
        seed: of the division into folds.
        step: called after each of the six fits.

    Raises:
        InputError: scikit-learn is missing, or there are too few rows or classes, or too few that differ.
    """
    unplaced, rows = [row for row in rows if row.source == UNPLACED], [row for row in rows if row.source != UNPLACED]
    judge_by = [*judge_by, *(replace(row, label=row.gold) for row in unplaced if row.gold)]
    _check([row.label for row in rows])
    count = len(classes.names)
    hashing = Hashing(_bits(count))
    places = {name: place for place, name in enumerate(classes.names)}
    judged_by = [places[row.label] for row in judge_by]
    truth = np.array([places[row.label] for row in rows] + judged_by)
    questions = [row.question for row in (*rows, *judge_by)]
    trained_on = np.arange(len(questions)) < len(rows)
    matrix = feature_matrix(questions, hashing)
    groups = np.array(duplicate_groups(questions))
    if (found := len(set(groups[trained_on].tolist()))) < FOLDS:
        raise InputError(
            f"the questions are near-duplicates of one another: {found} groups of them cannot be divided into {FOLDS} "
            "folds; give questions that differ"
        )
    held_out = np.zeros((len(questions), count), np.float32)
    for fit_on, left_out in folds(truth, groups, seed):
        ours = fit_on[trained_on[fit_on]]
        weights, bias = fit(matrix[ours], truth[ours], count)
        held_out[left_out] = matrix[left_out] @ weights + bias
        step()
    logits, truth_ours = held_out[trained_on], truth[trained_on]
    temperature = best_temperature(logits, truth_ours)
    raw, probabilities = softmax(logits), softmax(logits, temperature)
    default = None if classes.default is None else places[classes.default]
    costs = trade_off(probabilities, truth_ours, default, wrong_cost)
    threshold = float(costs.thresholds[costs.best])
    weights, bias = fit(matrix[trained_on], truth_ours, count)
    step()
    labelers = tuple(dict.fromkeys(row.labeler for row in rows if row.labeler and row.source != GOLD))
    router = Router(
        classes.names,
        classes.default,
        classes.digest,
        weights,
        bias,
        temperature,
        threshold,
        RouterTraining(digest, len(rows), labelers),
        hashing,
    )
    hand = np.array([NOWHERE if (by := row.by_hand) is None else places[by] for row in rows] + judged_by)
    by_hand = hand != NOWHERE
    gold = _judged(held_out[by_hand], hand[by_hand], router) if by_hand.any() else None
    others = np.array([not is_rules_own(row.source, row.labeler) for row in rows] + [False] * len(judge_by))
    compared = by_hand if gold else others if others.any() else trained_on
    known = (hand if gold else truth)[compared]
    worth = weighed(
        "gold" if gold else "labels",
        gold or _judged(held_out[compared], known, router),
        [questions[place] for place in np.flatnonzero(compared)],
        known,
        classes.names,
        NOWHERE if default is None else default,
        packaged=(applies := fallback_applies(classes.names)),
        own_labels=applies and gold is None and not others.any(),
    )
    return Trained(
        replace(router, quality=worth.quality),
        gold,
        _judged(logits, truth_ours, router),
        found,
        len(unplaced),
        costs,
        (log_loss(raw, truth_ours), log_loss(probabilities, truth_ours)),
        (calibration_error(raw, truth_ours), calibration_error(probabilities, truth_ours)),
        worth,
    )


def folds(
    truth: NDArray[np.int64], groups: NDArray[np.int64], seed: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(rows to fit on, rows to judge) of each of five folds: classes balanced, no group on both sides."""
    import warnings

    from sklearn.model_selection import StratifiedGroupKFold

    with warnings.catch_warnings():
        # It says that a class has fewer rows than there are folds, which a user is told in other words.
        warnings.simplefilter("ignore", UserWarning)
        yield from StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(truth, truth, groups)


def feature_matrix(questions: Sequence[str], hashing: Hashing) -> Any:
    """Sparse ``[questions, 2**bits]``: 1 / sqrt(n) in each of a question's n different buckets, as `Router` counts."""
    from scipy.sparse import csr_matrix

    rows = [features(question, hashing) for question in questions]
    pointers = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    values = np.concatenate([np.full(len(row), 1 / np.sqrt(len(row)), np.float32) for row in rows])
    return csr_matrix((values, np.concatenate(rows), pointers), shape=(len(rows), 1 << hashing.bits))


def fit(
    matrix: Any, truth: NDArray[np.int64], classes: int, shares: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights ``[features, classes]`` and bias ``[classes]`` of a logistic regression.

    A class without rows gets a bias so low that it is never named.

    Args:
        matrix: sparse ``[rows, features]``.
        truth: ``[rows]``, places of classes.
        classes: how many there are.
        shares: ``[rows]``, what each row weighs; by default 1.
    """
    from sklearn.linear_model import LogisticRegression

    # Columns in which nothing stands have no gradient; without them the solver has a tenth of the work.
    used = np.unique(matrix.indices)
    if len(present := np.unique(truth)) < 2:
        bias = np.full(classes, NEVER, np.float32)
        bias[present] = 0
        return np.zeros((matrix.shape[1], classes), np.float32), bias
    model = LogisticRegression(C=REGULARISATION, max_iter=_ITERATIONS)
    model.fit(matrix[:, used], truth, sample_weight=shares)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(model.classes_) == 2:
        # Two classes have one row, the logit of the second against the first.
        coefficients, intercepts = np.stack([-coefficients[0], coefficients[0]]) / 2, np.array([-1, 1]) * intercepts / 2
    weights = np.zeros((matrix.shape[1], classes), np.float32)
    weights[np.ix_(used, model.classes_)] = coefficients.T
    bias = np.full(classes, NEVER, np.float32)
    bias[model.classes_] = intercepts
    return weights, bias


def _judged(logits: NDArray[np.float32], truth: NDArray[np.int64], router: Router) -> JudgedRouter:
    probabilities = softmax(logits, router.temperature)
    default = NOWHERE if router.default is None else router.classes.index(router.default)
    likeliest = probabilities.argmax(1)
    abstains = (probabilities.max(1) < router.threshold) & (default != NOWHERE) & (likeliest != default)
    return judged(likeliest, np.where(abstains, default, likeliest), truth, default)


def _bits(classes: int) -> int:
    """As many as a router file has room for, 16 at most."""
    return min(16, int(np.log2(MOST_BYTES * 0.9 / 4 / classes)))


def _check(labels: Sequence[str]) -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise InputError(
            "training a router needs scikit-learn; pip install 'clasp-calib[router]'. A trained router needs none"
        ) from error
    most = max(Counter(labels).values(), default=0)
    if len(labels) < FEWEST or len(set(labels)) < 2 or most < FOLDS:
        raise InputError(
            f"there are {len(labels)} labelled questions of {len(set(labels))} classes, at most {most} of one; a "
            f"router needs {FEWEST} questions of two classes at least, {FOLDS} of one, and some hundreds to be worth it"
        )
