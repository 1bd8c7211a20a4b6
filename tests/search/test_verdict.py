"""What is said of a choice against what is true of made tables, and what caution keeps."""

from dataclasses import asdict

import numpy as np
import pytest

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.search import belief as belief_module
from clasp_calib.search.belief import believe, kernels
from clasp_calib.search.verdict import MORE, SETTLED, decide

COUNT = 6
CANDIDATES = [Candidate(str(i), (i / COUNT, 1 - i / COUNT), 1.0 - i / 10) for i in range(COUNT)]
KERNELS = kernels(CANDIDATES)


def tables_of(means, samples, seed, classes=4, noise=0.3):
    rng = np.random.default_rng(seed)
    return [np.array(means) + noise * rng.standard_normal((samples, COUNT)) for _ in range(classes)]


def verdicts(tables, cautious=None):
    return decide(believe(tables, KERNELS), tables, cautious)


def test_what_is_plain_is_chosen_and_called_sure():
    tables = tables_of([0, 0, 0, 0.4, 0, 0], 200, 0)
    for verdict, table in zip(verdicts(tables), tables, strict=True):
        assert (verdict.candidate, verdict.leader) == (3, 3)
        assert verdict.low < verdict.gain < verdict.high
        assert verdict.gain == pytest.approx(0.4, abs=0.1)
        assert verdict.worse == verdict.much_worse == 0
        assert verdict.own == pytest.approx((table[:, 3] - table[:, 0]).mean())
        assert (verdict.regret < SETTLED, verdict.settle) == (True, 0)
        assert verdict.probabilities[3] > 0.99
        assert sum(verdict.probabilities) == pytest.approx(1)


def test_caution_keeps_a_default_that_may_be_better():
    tables = tables_of(np.zeros(COUNT), 8, 1)
    free = next(v for v in verdicts(tables) if v.worse > 0.2)
    group = verdicts(tables).index(free)
    kept = verdicts(tables, cautious=0.1)[group]
    assert (kept.candidate, kept.leader) == (0, free.leader)
    assert (kept.gain, kept.low, kept.high, kept.worse, kept.much_worse, kept.own) == (0, 0, 0, 0, 0, 0)
    assert kept.regret > free.regret
    assert asdict(verdicts(tables, cautious=free.worse + 1e-9)[group]) == asdict(free)


def test_own_gain_is_of_samples_that_saw_both():
    tables = tables_of([0, 0, 0, 0.4, 0, 0], 40, 2)
    tables[0][:30, 0] = np.nan
    tables[1][:, 0] = np.nan
    first, second, *_ = verdicts(tables)
    assert first.own == pytest.approx((tables[0][30:, 3] - tables[0][30:, 0]).mean())
    assert second.own is None


def test_settling_takes_more_samples_the_closer_the_candidates_are():
    close = verdicts(tables_of([0, 0.01, 0, 0.02, 0.02, 0], 20, 3))
    far = verdicts(tables_of([0, 0.2, 0, 0.3, 0.2, 0], 20, 3))
    assert all(c.settle in MORE for c in close)
    assert max(f.settle for f in far) <= max(c.settle for c in close)


@pytest.mark.parametrize("work", [belief_module.WORK, 1], ids=["pooled", "james-stein"])
def test_what_settles_is_about_what_it_takes(monkeypatch, work):
    """With so many more samples the expected regret is about half a point."""
    monkeypatch.setattr(belief_module, "WORK", work)
    rest = []
    for seed in range(8):
        means = 0.05 * np.random.default_rng(seed).standard_normal(COUNT)
        few = verdicts(tables_of(means, 10, seed))
        more = int(np.median([v.settle for v in few]))
        rest += [v.regret for v in verdicts(tables_of(means, 10 + more, seed))]
    assert SETTLED / 4 < np.mean(rest) < 2 * SETTLED
