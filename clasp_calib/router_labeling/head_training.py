"""Fitting a labeler's head to questions with intents, and judging it on questions that it has not seen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clasp_calib.common.errors import InputError
from clasp_calib.router_labeling.abstention import calibration_error, log_loss
from clasp_calib.router_labeling.duplicates import duplicate_groups
from clasp_calib.router_labeling.embedders import Embedder
from clasp_calib.router_labeling.embedding_labeler import rule_votes
from clasp_calib.router_labeling.intent_head import MOST_BYTES, HeadQuality, IntentHead, class_probabilities, mixed
from clasp_calib.router_labeling.labelers import Scheme
from clasp_calib.router_labeling.ngrams import Hashing
from clasp_calib.router_labeling.plain_question import plain_question
from clasp_calib.router_labeling.training import FOLDS, feature_matrix, fit, folds

FEWEST = 5 * FOLDS
"""Fewest questions with an intent. So few make no head worth having; they make one that can be looked at."""
WEIGHTS = tuple(round(0.05 * step, 2) for step in range(15))
"""Shares of the rules' vote that are tried: 0 to 0.7."""
TEMPERATURES = tuple(np.geomspace(0.25, 4, 33).round(4).tolist())


@dataclass(frozen=True)
class Intended:
    """A question and its intent."""

    question: str
    intent: str


def train_head(
    rows: Sequence[Intended],
    scheme: Scheme,
    embedder: Embedder,
    *,
    pool: Sequence[Intended] = (),
    pool_weight: float = 1.0,
    rules_weight: float | None = None,
    seed: int = 0,
    step: Callable[[], object] = lambda: None,
) -> IntentHead:
    """Fit a head, its temperature and the weight of the rules' vote.

    Multinomial logistic regression on embeddings and n-grams. For each of five folds, a model that has seen neither
    the fold nor a near-duplicate of it says what it thinks of the fold. Temperature and weight give these held-out
    questions the largest likelihood of their class, and they alone are judged. The head is then fitted to all rows.

    Args:
        rows: what to train on and to judge by.
        scheme: taxonomy and keyword rules.
        embedder: makes the vectors.
        pool: what to train on besides, and never to judge by.
        pool_weight: what all of the pool weighs against all of ``rows``.
        rules_weight: the share of the rules' vote; by default the likeliest one of `WEIGHTS`, which is too large if
            the rules were made on these rows.
        seed: of the division into folds.
        step: called after each of the seven steps: embedding, five folds, the last fit.

    Raises:
        InputError: scikit-learn is missing; an intent is not in the taxonomy; or there are too few questions or
            intents, or too few that differ.
        LabelerError: the embedder cannot be used.
    """
    intents = tuple(scheme.taxonomy.intents)
    _check(rows, pool, intents)
    asked = [row.question for row in (*rows, *pool)]
    questions = [plain_question(question, scheme.rules) for question in asked]
    truth = np.array([intents.index(row.intent) for row in (*rows, *pool)])
    groups = np.array(duplicate_groups(questions))
    ours = len(rows)
    if (found := len(set(groups[:ours].tolist()))) < FOLDS:
        raise InputError(
            f"the questions are near-duplicates of one another: {found} groups of them cannot be divided into {FOLDS} "
            "folds; give questions that differ"
        )
    from scipy.sparse import csr_matrix, hstack

    vectors = embedder.embed(questions)
    step()
    # Half of what a file may hold, in float16.
    hashing = Hashing(min(16, int(np.log2(MOST_BYTES / 2 / 2 / len(intents)))))
    matrix = hstack([csr_matrix(vectors), feature_matrix(questions, hashing)]).tocsr()
    shares = np.ones(len(questions))
    shares[ours:] = pool_weight * ours / max(1, len(pool))
    held_out = np.zeros((ours, len(intents)))
    for _, judged in folds(truth[:ours], groups[:ours], seed):
        others = ~np.isin(groups, groups[judged])
        weights, bias = fit(matrix[others], truth[others], len(intents), shares[others])
        held_out[judged] = matrix[judged] @ weights + bias
        step()
    votes = rule_votes(asked[:ours], scheme.rules, intents)
    classes = np.array([scheme.taxonomy.classes.index(scheme.taxonomy.class_of(intents[place])) for place in truth])

    def probabilities(temperature: float, weight: float) -> NDArray[np.float64]:
        return class_probabilities(mixed(held_out, temperature, votes, weight), intents, scheme.taxonomy)

    _, temperature, weight = min(
        (log_loss(probabilities(temperature, weight), classes[:ours]), temperature, weight)
        for weight in (WEIGHTS if rules_weight is None else (rules_weight,))
        for temperature in TEMPERATURES
    )
    weights, bias = fit(matrix, truth, len(intents), shares)
    step()
    width = vectors.shape[1]
    return IntentHead(
        intents,
        scheme.taxonomy.digest,
        embedder.identity,
        weights[:width],
        weights[width:].astype(np.float16),
        bias,
        temperature,
        weight,
        scheme.rules.digest,
        len(questions),
        _quality(probabilities(temperature, weight), classes[:ours]),
        hashing,
    )


def _quality(probabilities: NDArray[np.float64], classes: NDArray[np.int64]) -> HeadQuality:
    right = probabilities.argmax(1) == classes
    macro = float(np.mean([right[classes == place].mean() for place in np.unique(classes)]))
    return HeadQuality(len(classes), float(right.mean()), macro, calibration_error(probabilities, classes))


def _check(rows: Sequence[Intended], pool: Sequence[Intended], intents: Sequence[str]) -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise InputError(
            "training a labeler needs scikit-learn; pip install 'clasp-calib[router]'. A trained one needs none"
        ) from error
    for row in (*rows, *pool):
        if row.intent not in intents:
            raise InputError(
                f"the question {row.question!r:.80} has the intent {row.intent!r}; expected one of {', '.join(intents)}"
            )
    if len(rows) < FEWEST or len({row.intent for row in rows}) < 2:
        raise InputError(
            f"there are {len(rows)} questions with an intent, of {len({row.intent for row in rows})} intents; a "
            f"labeler needs {FEWEST} questions of two intents at least, and some hundreds to be worth it"
        )
