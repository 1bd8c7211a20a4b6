import math

import torch
from hypothesis import given, settings, strategies as st
from slow_ranking import distance, order

from clasp_calib.baselines.sparsevlm import recycle, recycled
from clasp_calib.baselines.sparsevlm_v2 import positional_bias, rating


def reference_recycle(hidden, scores):
    count = int(0.3 * len(hidden)) + 1
    clusters = count // 10 + 1
    best = order([float(s) for s in scores])[:count]
    points = [hidden[i] for i in best]
    away = [[distance(a, b) / math.sqrt(len(a)) for b in points] for a in points]
    density = [math.exp(-sum(d * d for d in sorted(row)[:clusters]) / clusters) for row in away]
    denser = order(density)
    value, farthest = [], max(map(max, away))
    for i in range(count):
        above = [away[i][j] for j in denser[: denser.index(i)]]
        value.append(min([*above, farthest]) * density[i])
    centres = order(value)[:clusters]
    members = [[] for _ in centres]
    for i in range(count):
        home = centres.index(i) if i in centres else min(range(clusters), key=lambda k: (away[i][centres[k]], k))
        members[home].append(points[i])
    means = [[sum(float(row[c]) for row in of) / len(of) for c in range(len(of[0]))] for of in members]
    return means, [best[c] for c in centres]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), pruned=st.integers(1, 90))
def test_recycling_equals_the_slow_reference(seed, pruned):
    generator = torch.Generator().manual_seed(seed)
    hidden, scores = torch.randn(pruned, 5, generator=generator), torch.rand(pruned, generator=generator)
    scores = (scores * 8).round() / 8  # many equal ratings
    means, centres = recycle(hidden, scores)
    expected, expected_centres = reference_recycle(hidden.double(), scores.double())
    assert centres.tolist() == expected_centres
    assert torch.allclose(means.double(), torch.tensor(expected, dtype=torch.float64), atol=1e-5)
    assert len(means) == recycled(pruned)[1]


def test_recycling_of_equal_tokens():
    """All distances are 0: the first points are the centres, and all others join the first of them."""
    means, centres = recycle(torch.ones(60, 4), torch.zeros(60))
    assert centres.tolist() == [0, 1]
    assert torch.equal(means, torch.ones(2, 4))


def mean_of_layers(after, edges):
    counts, layers = (576, *after), (0, *edges, 32)
    return sum(n * (b - a) for n, a, b in zip(counts, layers, layers[1:], strict=False)) / 32


def test_the_published_counts_with_what_comes_back():
    """What leaves a layer, as SparseVLM prints it, and what enters one."""
    leaving, entering = {}, {}
    for label, kept in {192: (300, 200, 110), 128: (303, 110, 36), 64: (66, 30, 17)}.items():
        after, before = [], 576
        for count in kept:
            after.append(count + recycled(before - count)[1])
            before = after[-1]
        leaving[label] = round(mean_of_layers(after, (2, 6, 15)), 2)
        entering[label] = round(mean_of_layers(after, (3, 7, 16)), 2)
    assert leaving == {192: 192.03, 128: 128.62, 64: 64.81}
    assert entering == {192: 206.5, 128: 145.41, 64: 82.25}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), coarse=st.booleans())
def test_the_freed_rating_equals_the_slow_reference(seed, coarse):
    generator = torch.Generator().manual_seed(seed)
    heads, raters, tokens, width, best = 6, 3, 11, 8, 4
    attention = torch.rand(heads, raters, tokens, generator=generator)
    if coarse:
        attention = attention.round() / 4  # equal heads abound
    frequencies = [10000 ** (-2 * i / width) for i in range(width // 2)]
    places = [list(range(20, 20 + raters)), list(range(4, 4 + tokens))]
    ropes = []
    for ids in places:
        angles = torch.tensor([[p * f for f in frequencies] * 2 for p in ids])
        ropes.append((angles.cos(), angles.sin()))

    def ones_product(p, q):
        return sum(2 * math.cos((p - q) * f) for f in frequencies) / math.sqrt(width)

    expected_bias = [[ones_product(p, q) for q in places[1]] for p in places[0]]
    bias = positional_bias(*ropes)
    assert torch.allclose(bias.double(), torch.tensor(expected_bias, dtype=torch.float64), atol=1e-5)
    bias = torch.tensor(expected_bias, dtype=torch.float64)

    freed = attention.double() / bias
    chosen = order([float(head.sum()) for head in freed])[:best]
    expected = [
        sum(float(freed[h, r, n]) for h in chosen for r in range(raters)) / (best * raters) for n in range(tokens)
    ]
    found = rating(attention.double(), bias, best)
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64))
