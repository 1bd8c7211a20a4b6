"""Agreement against a slow reference and a textbook example."""

import pytest
from hypothesis import given, strategies as st

from clasp_calib.common.errors import InputError
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.router_labeling.agreement import agreement, compare_labels

LABELS = ("a", "b", "c")
ROWS = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=30)


def test_a_textbook_example():
    # 50 proposals, two readers: 20 both yes, 15 both no, 5 and 10 apart; kappa is 0.4.
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    found = agreement(first, second, ["yes", "no"])
    assert found.agreement == pytest.approx(0.7)
    assert found.kappa == pytest.approx(0.4)
    assert found.count_variance == pytest.approx(100)  # 50 % and 60 % yes: 10 apart, twice
    assert found.pairs["no", "yes"] == 10


@given(ROWS)
def test_symmetric_and_as_counted_by_hand(rows):
    first, second = (list(side) for side in zip(*rows, strict=True))
    found, turned = agreement(first, second, LABELS), agreement(second, first, LABELS)
    assert (found.agreement, found.count_variance) == (turned.agreement, turned.count_variance)
    chance = sum(a == b for a in first for b in second) / len(rows) ** 2
    if chance == 1:
        assert found.kappa is None
    else:
        assert found.kappa == pytest.approx((found.agreement - chance) / (1 - chance))
    assert agreement(first, first, LABELS).count_variance == 0
    assert sum(found.pairs.values()) == len(rows)


def test_rows_that_only_their_numbers_have_in_common_are_not_compared():
    first, second = (
        load_samples([{"question": question, "class": "text"} for question in questions])
        for questions in (("What?", "Where?", "Why?"), ("What?", "Why?", "Where?"))
    )
    assert compare_labels(first, first).agreement == 1
    with pytest.raises(
        InputError, match=r"the id '1' stands for 'Where\?' in .* and for 'Why\?' in .*\(2 ids are such"
    ):
        compare_labels(first, second)


def test_nothing_to_compare():
    with pytest.raises(ValueError, match="as many labels"):
        agreement([], [], LABELS)
