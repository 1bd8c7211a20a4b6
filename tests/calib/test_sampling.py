"""Draws from labelled tables: disjoint by picture, balanced, and the same again."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from clasp_calib.calib.sampling import draw
from clasp_calib.common.errors import InputError
from clasp_calib.common.samples import Sample

CLASSES = ("a", "b", "c")
SPLITS = ("calibration", "selection", "test")
tables = st.lists(st.tuples(st.sampled_from(CLASSES), st.integers(0, 12)), max_size=60).map(
    lambda rows: [Sample(f"s{i:03}", "?", Path(f"{p}.png") if p else None, label=c) for i, (c, p) in enumerate(rows)]
)


@settings(deadline=None)
@given(table=tables, per_class=st.integers(1, 8), balanced=st.booleans(), seed=st.integers(0, 3))
def test_no_picture_is_in_two_splits_and_no_quota_is_passed(table, per_class, balanced, seed):
    drawn = draw(table, CLASSES, per_class, balanced, seed)
    pictures = {}
    for sample in table:
        if sample.id in drawn.splits and sample.image:
            assert pictures.setdefault(sample.image, drawn.splits[sample.id]) == drawn.splits[sample.id]
    half = max(1, round(per_class / 2))
    expected = {"calibration": per_class, "selection": half, "test": half}
    assert drawn.wanted == {split: n if balanced else 3 * n for split, n in expected.items()}
    counts = Counter((s.label, drawn.splits[s.id]) for s in table if s.id in drawn.splits)
    assert {(c, s): n for c, row in drawn.counts.items() for s, n in row.items() if n} == counts
    for split, number in drawn.wanted.items():
        got = [counts[label, split] for label in CLASSES] if balanced else [sum(counts[c, split] for c in CLASSES)]
        kinds = CLASSES if balanced else ("all",)
        for kind, have in zip(kinds, got, strict=True):
            assert have + drawn.short.get(kind, {}).get(split, 0) == number


@settings(deadline=None)
@given(table=tables, seed=st.integers(0, 3), shuffled=st.randoms())
def test_the_order_of_the_table_makes_no_difference(table, seed, shuffled):
    other = list(table)
    shuffled.shuffle(other)
    assert draw(table, CLASSES, 3, True, seed).splits == draw(other, CLASSES, 3, True, seed).splits


def rows(counts):
    return [Sample(f"{c}{i}", "?", Path(f"{c}{i}.png"), label=c) for c, n in counts.items() for i in range(n)]


def test_a_balanced_draw_fills_every_quota_there_is_enough_for():
    drawn = draw(rows({"a": 1000, "b": 40, "c": 8}), CLASSES, 20, True, 0)
    assert drawn.counts["a"] == drawn.counts["b"] == dict(zip(SPLITS, (20, 10, 10), strict=True))
    assert drawn.counts["c"] == dict(zip(SPLITS, (4, 2, 2), strict=True))
    assert drawn.short == {"c": dict(zip(SPLITS, (16, 8, 8), strict=True))}


def test_a_natural_draw_takes_classes_as_they_come():
    drawn = draw(rows({"a": 900, "b": 90, "c": 10}), CLASSES, 100, False, 0)
    assert sum(drawn.counts["a"].values()) > 4 * sum(drawn.counts["b"].values())
    assert [sum(row[split] for row in drawn.counts.values()) for split in SPLITS] == [300, 150, 150]


def test_another_seed_draws_others():
    table = rows({"a": 300})
    assert draw(table, CLASSES, 5, True, 0).splits != draw(table, CLASSES, 5, True, 1).splits


def test_splits_that_a_table_brings_are_kept():
    table = [
        Sample("1", "?", Path("x.png"), label="a", split="test"),
        Sample("2", "?", Path("x.png"), label="a"),
        Sample("3", "?", Path("y.png"), label="a", split="train"),
        Sample("4", "?", Path("y.png"), label="b"),
    ]
    assert draw(table, CLASSES, 5, True, 0).splits == {"1": "test", "2": "test"}
    table[1] = Sample("2", "?", Path("x.png"), label="a", split="selection")
    with pytest.raises(InputError, match=r"x\.png is in the splits 'test' \(sample '1'\) and 'selection'"):
        draw(table, CLASSES, 5, True, 0)
