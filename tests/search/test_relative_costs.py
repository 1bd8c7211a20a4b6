"""What an evaluation costs beside the others, counted out."""

import random
from statistics import fmean

import pytest

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.common.selector_choice import SelectorChoice
from clasp_calib.runtime.schedule import RelativeSchedule, Schedule, ShareSchedule, parse_budget
from clasp_calib.search.relative_costs import relative_costs

OWN = [Candidate(f"m{n}", (n / 6, 1 - n / 6), rho) for n in range(6) for rho in (0.25, 0.5, 0.75, 1.0)]
OTHERS = [Candidate("m", (1, 0), 1.0, selector=SelectorChoice(name)) for name in ("fastv", "divprune")]
INSIDE = Schedule(576, 32, (2, 6, 15), (66, 34, 20))


def test_as_many_tokens_as_a_block_of_drawn_candidates_works_on():
    """A forward of eight candidates goes through the first two layers once for every different mixture."""
    drawn, generator = [], random.Random(0)
    for _ in range(20000):
        block = [generator.randrange(6) for _ in range(8)]
        drawn.append((2 * 576 * len(set(block)) + 8 * (INSIDE.mean_tokens * 32 - 2 * 576)) / 8)
    alone = INSIDE.mean_tokens * 32
    first, *_, last = relative_costs([*OWN, *OTHERS], INSIDE, 8)
    assert first == 1
    assert last == pytest.approx(alone / fmean(drawn), rel=0.005)


def test_where_nothing_is_shared_all_cost_as_much():
    at_input = ShareSchedule(32, (0,), (0.3,))
    assert relative_costs([*OWN, *OTHERS], at_input, 8) == [1.0] * 26
    one_ratio = [candidate for candidate in OWN if candidate.rho == 1]
    assert relative_costs([*one_ratio, *OTHERS], None, 8) == [1.0] * 8
    for alone in (OWN, OTHERS):
        assert relative_costs(alone, INSIDE, 8) == [1.0] * len(alone)


def test_a_percentage_costs_as_its_tokens():
    percent = RelativeSchedule(parse_budget("33.333333%"), 32)
    fixed = Schedule(576, 32, (2, 6, 15), (300, 200, 117))
    told = [relative_costs([*OWN, *OTHERS], one, 8)[-1] for one in (percent, fixed)]
    assert told[0] == pytest.approx(told[1], rel=0.01)
