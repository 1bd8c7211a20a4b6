"""Figures of a load, against what they are by definition."""

import pytest
from hypothesis import given, strategies as st

from clasp_calib.serving.chat_load import ChatAnswer, Load
from clasp_calib.serving.load_figures import LoadFigures

TIMES = st.floats(0.001, 100)
ANSWERS = st.builds(
    lambda first, more, prompt, tokens: ChatAnswer("", first, first + more * (tokens > 1), prompt, prompt // 2, tokens),
    *(TIMES, TIMES, st.integers(1, 5000), st.integers(1, 50)),
)


def quantile(values, share):
    """Between the two nearest of the sorted values."""
    ordered, place = sorted(values), share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


@given(st.lists(ANSWERS, min_size=1, max_size=30), TIMES)
def test_figures_are_what_they_are_by_definition(answers, seconds):
    found = LoadFigures.of(Load(tuple(answers), seconds))
    assert (found.requests, found.seconds) == (len(answers), seconds)
    assert found.requests_per_second == pytest.approx(len(answers) / seconds)
    assert found.ttft_median == pytest.approx(quantile([a.first for a in answers], 0.5))
    assert found.ttft_p95 == pytest.approx(quantile([a.first for a in answers], 0.95))
    paces = [(a.last - a.first) / (a.answer_tokens - 1) for a in answers if a.answer_tokens > 1]
    assert found.tpot_median == (pytest.approx(quantile(paces, 0.5)) if paces else None)
    assert found.prompt_tokens == pytest.approx(sum(a.prompt_tokens for a in answers) / len(answers))
    assert found.cached_tokens == pytest.approx(sum(a.prompt_tokens // 2 for a in answers) / len(answers))
    held = sum(a.prompt_tokens + a.answer_tokens - 1 for a in answers)
    assert found.kv_tokens == pytest.approx(held / len(answers))
