import torch
from hypothesis import given, settings, strategies as st
from slow_ranking import cosine, order

from clasp_calib.baselines.btp import attended, balanced, diverse, spread


def reference_diverse(hidden, count, chosen):
    like = [[round(cosine(a, b), 5) for b in hidden] for a in hidden]
    kept = set(chosen)
    for _ in range(count):
        pool = [i for i in range(len(hidden)) if i not in kept]
        if not pool:
            break
        if kept:
            nearest = {i: max(like[i][j] for j in kept) for i in pool}
        else:
            nearest = {i: max([like[i][j] for j in pool if j != i], default=0) for i in pool}
        kept.add(min(pool, key=lambda i: (nearest[i], i)))
    return kept


def reference_stage(hidden, attention, keep, diversity, share, candidates, cells):
    count = int(keep * share)
    best = order([float(a) for a in attention])[: int(count * candidates)]
    by_attention = [i for i in best if i < keep] + [i for i in best if i >= keep]
    wanted = by_attention[:count] + sorted(reference_diverse(hidden, int(keep * diversity), [])) + list(cells)
    kept = list(dict.fromkeys(wanted))[:keep]
    return sorted(reference_diverse(hidden, keep - len(kept), kept))


def tokens_of(seed, tokens, coarse):
    generator = torch.Generator().manual_seed(seed)
    attention = torch.rand(tokens, generator=generator)
    if coarse:
        return torch.randint(-1, 2, (tokens, 4), generator=generator).float(), (attention * 4).round()
    return torch.randn(tokens, 6, generator=generator), attention


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), tokens=st.integers(1, 30), share=st.floats(0, 1), coarse=st.booleans())
def test_stages_equal_the_slow_reference_ties_included(seed, tokens, share, coarse):
    hidden, attention = tokens_of(seed, tokens, coarse)
    keep = max(1, round(share * tokens))
    for diversity, part, candidates, cells in [(0.3, 0.3, 3.7, spread(1, tokens, keep // 2)), (0.1, 0.9, 1.5, ())]:
        found = balanced(
            hidden, attention, keep, diversity=diversity, attention=part, candidates=candidates, cells=cells
        )
        assert found.tolist() == reference_stage(hidden, attention, keep, diversity, part, candidates, cells)
        assert len(found) == keep


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), tokens=st.integers(1, 20), coarse=st.booleans(), data=st.data())
def test_diversity_goes_on_from_what_is_chosen(seed, tokens, coarse, data):
    hidden, _ = tokens_of(seed, tokens, coarse)
    chosen = data.draw(st.sets(st.integers(0, tokens - 1)))
    count = data.draw(st.integers(0, tokens))
    mask = torch.zeros(tokens, dtype=torch.bool)
    mask[list(chosen)] = True
    found = diverse(hidden, count, mask)
    assert set(found.nonzero().flatten().tolist()) == reference_diverse(hidden, count, chosen)


def test_early_positions_come_first():
    assert attended(torch.arange(10.0), 3, 6, early=6).tolist() == [5, 4, 9]


def test_cells_are_spread_by_city_blocks():
    chosen = [0]
    cells = [(y, x) for y in range(5) for x in range(4)]
    while len(chosen) < 7:
        away = [min(abs(y - cells[c][0]) + abs(x - cells[c][1]) for c in chosen) for y, x in cells]
        chosen.append(order(away)[0])
    assert list(spread(5, 4, 7)) == chosen
