"""Replays of the search benchmark: nothing that a choice was made from may judge it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from benchmarks.replay.cases import CASES, drawn_case
from benchmarks.replay.replayed import replayed
from benchmarks.replay.rules import additive, best, halved
from benchmarks.replay.tables import Tables, drawn, misplaced_default, turned
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.search.strategies.grid import Grid

CANDIDATES = tuple(Candidate(f"m{c}", (1.0 - c / 8, c / 8), 1.0) for c in range(4))


def tables(seed: int, pictures: int = 20, classes: int = 3) -> Tables:
    """Each score tells its picture: it is 1 on even ones; candidate 2 is better than the others on some odd ones."""
    generator = np.random.default_rng(seed)
    picture = [generator.permutation(pictures)[: pictures - k] for k in range(classes)]
    score = [np.repeat((p % 2 == 0)[:, None], 4, 1).astype(float) for p in picture]
    for s, p in zip(score, picture, strict=True):
        s[p % 3 == 0, 2] = 1.0
    return Tables(
        tuple(f"class {k}" for k in range(classes)),
        CANDIDATES,
        tuple(score),
        tuple(p[:, None] + np.zeros((1, 4)) for p in picture),
        tuple(p.astype(np.int64) for p in picture),
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.lists(st.integers(1, 10), min_size=3, max_size=3))
def test_no_picture_that_was_drawn_judges(seed, sizes):
    made = tables(seed)
    draw = drawn(made, sizes, seed)
    # The likelihood stands for the picture here.
    used = {int(p) for nll in draw.nll for p in nll[:, 0]}
    assert [len(nll) for nll in draw.nll] == sizes
    for k, picture in enumerate(made.picture):
        rest = [row for row, p in enumerate(picture) if int(p) not in used]
        # Some that nobody drew may be left out too, since a draw is the first pictures of one order.
        assert rest
        hidden = made.score[k].copy()
        hidden[[row for row in range(len(picture)) if row not in rest]] = 7.0
        score = tuple(hidden if i == k else s for i, s in enumerate(made.score))
        again = drawn(Tables(made.labels, made.candidates, score, made.nll, made.picture), sizes, seed)
        np.testing.assert_array_equal(again.truth, draw.truth)


def test_a_turned_class_has_its_best_where_its_worst_was():
    made = tables(0)
    mean, changed = made.score[1].mean(0), turned(made, "class 1").score[1].mean(0)
    assert changed[mean.argmin()] == mean.max()
    np.testing.assert_array_equal(turned(made, "class 1").score[0], made.score[0])


def test_the_misplaced_default_is_the_best_of_every_class():
    for score in misplaced_default(tables(3)).score:
        assert score.mean(0).argmax() == 0


def test_halving_ranks_by_all_samples_and_counts_what_it_asked():
    score = np.zeros((12, 4))
    score[:, 3] = 1.0
    # Four candidates on 6 samples, then the best two and the default on the rest.
    assert halved(score)[0][0] == 3
    assert halved(score)[1] == 4 * 6 + 2 * 6


def test_james_stein_lies_between_the_class_and_all_classes():
    generator = np.random.default_rng(0)
    made = [generator.random((30, 5)) for _ in range(4)]
    means = np.array([t.mean(0) - t.mean() for t in made])
    shrunk, shared = additive(made), means.mean(0)
    assert (np.abs(shrunk - shared) <= np.abs(means - shared) + 1e-12).all()
    assert best(np.array([[1.0, 2.0, 2.0]])) == [1]


def test_a_grid_asks_everything_and_is_decided_by_the_belief():
    draw = drawn(tables(1), 6, 1)
    outcome = replayed(Grid(), draw)
    assert outcome.spent == 1.0
    assert outcome.choice == [draw.belief.leader(k) for k in range(3)]


@pytest.mark.parametrize("name", CASES)
def test_hard_tables_keep_their_shape(name, tmp_path):
    made = tables(2, pictures=60)
    arrays = {f"192/{label}/{what}": of for label, s, n, _ in _rows(made) for what, of in (("score", s), ("nll", n))}
    arrays |= {f"picture/{label}": picture for label, _, _, picture in _rows(made)}
    alpha, rho = np.array([c.alpha for c in CANDIDATES]), np.ones(4)
    path = Path(tmp_path) / "tables.npz"
    np.savez(path, alpha=alpha, rho=rho, name=np.array(["own/rho=1"] * 4), **arrays)
    draw, classes = drawn_case(name, "192", 8, path, 0)
    assert draw.truth.shape == (3, 4)
    assert set(classes) <= {0, 1, 2}
    assert all(score.shape[1] == 4 and ((score >= 0) & (score <= 1)).all() for score in draw.score)


def _rows(made: Tables):
    return zip(made.labels, made.score, made.nll, made.picture, strict=True)
