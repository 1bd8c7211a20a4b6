"""What a schedule leaves of pictures, against a walk through the layers."""

import pytest
from hypothesis import given, strategies as st

from clasp_calib.common.errors import BudgetError
from clasp_calib.common.token_range import TokenRange
from clasp_calib.runtime.layer_tokens import layer_tokens, tokens_a_layer
from clasp_calib.runtime.schedule import RelativeSchedule, Schedule, ShareSchedule, parse_budget


def walked(schedule, tokens):
    """Layer by layer: what entered, until a stage begins."""
    now, found = tokens, []
    for layer in range(schedule.layers):
        if layer in schedule.starts:
            now = schedule.counts_for(tokens)[schedule.starts.index(layer)]
        found.append(now)
    return tuple(found)


@given(
    st.sampled_from(
        [
            Schedule(16, 17, (2, 6, 15), (10, 6, 5)),
            RelativeSchedule(parse_budget("40%"), 8, (1, 2, 4)),
            RelativeSchedule(parse_budget("100%"), 8, (1, 2, 4)),
            ShareSchedule(8, (3,), (0.25,)),
        ]
    ),
    st.lists(st.integers(12, 900), min_size=1, max_size=5),
)
def test_layers_work_on_what_entered_them(schedule, pictures):
    means = [sum(walked(schedule, tokens)) / schedule.layers for tokens in pictures]
    assert [layer_tokens(schedule, tokens) for tokens in pictures] == [walked(schedule, tokens) for tokens in pictures]
    found = tokens_a_layer(schedule, pictures)
    assert (found.least, found.most) == (min(means), max(means))
    assert found.mean == pytest.approx(sum(means) / len(means))


def test_pictures_of_one_size_have_exactly_the_mean_of_the_schedule():
    schedule = Schedule(576, 32, (2, 6, 15), (300, 200, 118))
    assert tokens_a_layer(schedule, [576] * 7) == TokenRange(*[schedule.mean_tokens] * 3)
    assert schedule.per_layer == layer_tokens(schedule, 576)


def test_too_few_tokens_are_refused():
    with pytest.raises(BudgetError, match="cannot be met"):
        tokens_a_layer(RelativeSchedule(parse_budget("20%"), 8, (1, 2, 4)), [900, 8])


def test_a_range_is_told_only_where_there_is_one():
    assert str(TokenRange.of([190, 64.4, 571])) == "275.1 (64 to 571)"
    assert str(TokenRange.of([192.4375] * 3)) == "192.4"
