import pytest
import torch
from hypothesis import given, settings, strategies as st
from slow_ranking import cosine, order

from clasp_calib.baselines.dart import dart


def reference(keys, text_keys, hidden, text_hidden, keep, image_pivots, text_pivots):
    def norms(rows):
        return [sum(abs(float(x)) for x in row) for row in rows]

    pivots = order(norms(keys))[: min(image_pivots, keep)]
    voters = [hidden[i] for i in pivots] + [text_hidden[i] for i in order(norms(text_keys))[:text_pivots]]
    kept, wanted = list(pivots), keep - len(pivots)
    for number, voter in enumerate(voters):
        quota = wanted // len(voters) + (1 if number < wanted % len(voters) else 0)
        pool = [i for i in range(len(hidden)) if i not in kept]
        kept += sorted(pool, key=lambda i: (round(cosine(voter, hidden[i]), 5), i))[:quota]
    return sorted(kept)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    tokens=st.integers(1, 30),
    text=st.integers(1, 9),
    share=st.floats(0, 1),
    coarse=st.booleans(),
)
def test_equals_the_slow_reference_ties_included(seed, tokens, text, share, coarse):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(tokens, 6), (text, 6), (tokens, 8), (text, 8)]
    if coarse:  # few values: equal norms and equal vectors abound
        parts = [torch.randint(-1, 2, shape, generator=generator).float() for shape in shapes]
    else:
        parts = [torch.randn(shape, generator=generator) for shape in shapes]
    keep = max(1, round(share * tokens))
    found = dart(*parts, keep).tolist()
    assert found == reference(*parts, keep, 4, 4)
    assert len(found) == keep


@pytest.mark.parametrize(("label", "mean"), [(192, 219.75), (128, 159.75), (64, 99.75)])
def test_the_published_counts(label, mean):
    """4 pivots and 8 times an eighth of the label, from layer 2 of 32 on."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(shape, generator=generator) for shape in [(576, 16), (40, 16), (576, 32), (40, 32)]]
    keep = 4 + 8 * (label // 8)
    assert len(dart(*parts, keep)) == keep
    assert (2 * 576 + 30 * keep) / 32 == mean
