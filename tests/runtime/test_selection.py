import itertools

import pytest
import torch
from hypothesis import given, settings, strategies as st
from reference_selection import reference_select

from clasp_calib.common.errors import ModelError
from clasp_calib.common.pruning_options import SEEDINGS
from clasp_calib.runtime.seeding import nearness, redundancy, seeds
from clasp_calib.runtime.selection import (
    DualStage,
    gram_matrix,
    k_means,
    select,
    split_budget,
)


def points(seed, rows, tokens, width, kind="plain"):
    """Random features; the kinds are where ties, empty clusters and missing directions come from."""
    features = torch.randn(rows, tokens, width, generator=torch.Generator().manual_seed(seed))
    if kind == "duplicates":
        features[:, ::3] = features[:, :1].clone()
    if kind == "zeros":
        features[:, 1::4] = 0
    if kind == "signs":
        features = features.sign()
    if kind == "opposite":
        features[:, 1::2] = -features[:, : tokens // 2 * 2 : 2]
    return features


kinds = st.sampled_from(["plain", "duplicates", "zeros", "signs", "opposite"])
seedings = st.sampled_from(SEEDINGS)


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    kind=kinds,
    lengths=st.lists(st.integers(2, 24), min_size=1, max_size=4),
    width=st.sampled_from([2, 3, 16]),
    iterations=st.sampled_from([0, 1, 5]),
    data=st.data(),
)
def test_equals_the_slow_reference(seed, kind, *, lengths, width, iterations, data):
    rows, tokens = len(lengths), max(lengths)
    features_BND = points(seed, rows, tokens, width, kind)
    relevance_BN = torch.rand(rows, tokens, generator=torch.Generator().manual_seed(seed))
    if seed % 3 == 0:
        relevance_BN = (relevance_BN * 4).round() / 4
    valid_BN = torch.arange(tokens) >= tokens - torch.tensor(lengths)[:, None]
    counts_B = torch.tensor([data.draw(st.integers(1, n)) for n in lengths])
    rho_B = torch.tensor([data.draw(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0])) for _ in lengths])
    seeding = [data.draw(seedings) for _ in lengths]
    pivots_B, medoids_B = split_budget(counts_B, rho_B)
    gram_BNN = gram_matrix(features_BND)
    selection = select(relevance_BN, gram_BNN, pivots_B, medoids_B, valid_BN, iterations=iterations, seeding=seeding)
    for row, length in enumerate(lengths):
        first = tokens - length
        kept, pivots = reference_select(
            relevance_BN[row, first:].tolist(),
            features_BND[row, first:],
            int(pivots_B[row]),
            int(medoids_B[row]),
            iterations,
            seeding[row],
        )
        assert {i - first for i in selection.keep_BN[row].nonzero().flatten().tolist()} == kept
        assert {i - first for i in selection.pivots_BN[row].nonzero().flatten().tolist()} == pivots


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    kind=kinds,
    tokens=st.integers(1, 30),
    count=st.integers(0, 40),
    rho=st.floats(0, 1),
    seeding=st.lists(seedings, min_size=2, max_size=2),
)
def test_keeps_exactly_k_or_all(seed, kind, *, tokens, count, rho, seeding):
    relevance_BN = torch.rand(2, tokens, generator=torch.Generator().manual_seed(seed))
    gram_BNN = gram_matrix(points(seed, 2, tokens, 4, kind))
    pivots_B, medoids_B = split_budget(torch.tensor([count, max(count - 1, 0)]), torch.tensor([rho, rho]))
    selection = select(relevance_BN, gram_BNN, pivots_B, medoids_B, seeding=seeding)
    assert selection.keep_BN.sum(1).tolist() == [min(count, tokens), min(max(count - 1, 0), tokens)]
    assert not (selection.pivots_BN & ~selection.keep_BN).any()
    assert selection.pivots_BN.sum(1).tolist() == pivots_B.clamp(max=tokens).tolist()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), rho=st.floats(0, 1), count=st.integers(1, 16), seeding=seedings, data=st.data())
def test_of_equal_tokens_the_first_stay(seed, rho, count, *, seeding, data):
    """Of tokens alike in features and relevance those of lowest index stay, wherever such twins stand."""
    features_BND = points(seed, 1, 16, 5)
    relevance_BN = torch.rand(1, 16, generator=torch.Generator().manual_seed(seed))
    twins = sorted(data.draw(st.lists(st.integers(0, 15), min_size=2, max_size=8, unique=True)))
    features_BND[:, twins], relevance_BN[:, twins] = features_BND[:, twins[:1]], relevance_BN[:, twins[:1]]
    pivots_B, medoids_B = split_budget(torch.tensor([count]), torch.tensor([rho]))
    selection = select(relevance_BN, gram_matrix(features_BND), pivots_B, medoids_B, seeding=[seeding])
    for chosen in (selection.keep_BN[0, twins].tolist(), selection.pivots_BN[0, twins].tolist()):
        assert chosen == sorted(chosen, reverse=True)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), kind=kinds, pivots=st.integers(0, 6), clusters=st.integers(1, 8))
def test_objective_never_decreases(seed, kind, pivots, clusters):
    """Prop. 3, up to 1e-5 a token."""
    gram_BNN = gram_matrix(points(seed, 3, 24, 6, kind))
    pool_BN = torch.ones(3, 24, dtype=torch.bool)
    pool_BN[:, :pivots] = False
    seeds_BK = torch.arange(pivots, pivots + clusters).expand(3, -1)
    live_BK = torch.ones_like(seeds_BK, dtype=torch.bool)
    values = [(k_means(gram_BNN, seeds_BK, live_BK, pool_BN, rounds).amax(1) * pool_BN).sum(1) for rounds in range(7)]
    tolerance = 1e-5 * pool_BN.sum(1)
    for before, after in itertools.pairwise(values):
        assert (after >= before - tolerance).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), kind=kinds, pivots=st.integers(1, 8), clusters=st.integers(1, 8))
def test_seeds_are_separated_from_pivots_and_least_redundant(seed, kind, pivots, clusters):
    """Cor. 2 in its squared form, and Prop. 2."""
    features_BND = points(seed, 1, 24, 6, kind)
    relevance_BN = torch.rand(1, 24, generator=torch.Generator().manual_seed(seed))
    order_BN = relevance_BN.argsort(descending=True, stable=True)
    redundancy_N = redundancy(nearness(gram_matrix(features_BND), order_BN, torch.tensor([pivots])))[0]
    chosen, pool = order_BN[0, :pivots], order_BN[0, pivots:].sort().values
    seeds = pool[redundancy_N[pool].argsort(stable=True)[:clusters]]
    unit = torch.nn.functional.normalize(features_BND[0].double(), dim=-1)
    filled = unit.norm(dim=-1) > 0
    r_max = redundancy_N[seeds].max()
    for i in seeds[filled[seeds]]:
        for j in chosen[filled[chosen]]:
            assert (unit[i] - unit[j]).square().sum() >= 2 * (1 - r_max) - 2e-5
    others = pool[torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))[:clusters]]
    assert redundancy_N[seeds].sum() <= redundancy_N[others].sum() + 1e-6


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), kind=kinds, pivots=st.integers(0, 3), clusters=st.integers(1, 3))
def test_farthest_first_covers_within_twice_the_best_radius(seed, kind, pivots, clusters):
    """Gonzalez' bound: the farthest token of the pool is at most twice as far as from the best seeds that there are."""
    gram_BNN = gram_matrix(points(seed, 1, 9, 3, kind)).double()
    order_BN = torch.arange(9)[None]
    pool_BN = order_BN >= pivots
    near_BN = nearness(gram_BNN, order_BN, torch.tensor([pivots]))
    distance_NN = (gram_BNN[0].diagonal()[:, None] + gram_BNN[0].diagonal() - 2 * gram_BNN[0]).clamp(min=0).sqrt()

    def radius(chosen):
        return float(distance_NN[pivots:, list(chosen)].amin(1).max())

    for name, before in (("farthest", []), ("k-center", [*range(pivots)]))[: 2 if pivots else 1]:
        found = seeds(gram_BNN, pool_BN, near_BN, [clusters], [name])[0].tolist()
        best = min(radius([*before, *others]) for others in itertools.combinations(range(pivots, 9), clusters))
        assert len({*found}) == clusters
        assert min(found) >= pivots
        # Zero vectors have cosine 0 with themselves: they lie at distance 1 from all others, in no space.
        assert kind == "zeros" or radius([*before, *found]) <= 2 * best + 0.02


def test_least_redundant_tokens_are_alike_and_the_farthest_are_not():
    """Six copies of the token opposite to the pivot have the smallest sum of redundancies, and say one thing."""
    side = torch.eye(4)
    features = torch.cat([side[:1], -side[:1].repeat(6, 1), side[1:] + 0.2 * side[:1]])[None]
    gram_BNN, order_BN = gram_matrix(features), torch.arange(10)[None]
    pool_BN, near_BN = order_BN > 0, nearness(gram_BNN, order_BN, torch.tensor([1]))
    found = {name: seeds(gram_BNN, pool_BN, near_BN, [4], [name])[0].tolist() for name in SEEDINGS}
    assert sorted(found["redundancy"]) == [1, 2, 3, 4]
    assert sorted(found["farthest"]) == sorted(found["k-center"]) == [1, 7, 8, 9]
    assert found["k-center"][0] == 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 10))
def test_pivots_have_the_largest_relevance(seed, count):
    relevance_BN = torch.rand(1, 12, generator=torch.Generator().manual_seed(seed))
    selection = select(relevance_BN, None, torch.tensor([count]), torch.tensor([0]))
    assert relevance_BN[selection.keep_BN].sum() == pytest.approx(
        float(relevance_BN.sort(descending=True).values[0, :count].sum()), abs=1e-6
    )


def test_ties_of_relevance_go_to_the_lower_index():
    selection = select(torch.full((1, 6), 0.25), None, torch.tensor([3]), torch.tensor([0]))
    assert selection.keep_BN[0].tolist() == [True] * 3 + [False] * 3


def test_two_members_of_a_cluster_tie_and_the_lower_stays():
    features = torch.tensor([[[1.0, 0, 0], [0.2, 1, 0], [0, 1, 0.2], [0.1, 0, 1]]])
    selection = select(torch.tensor([[1.0, 0, 0, 0]]), gram_matrix(features), torch.tensor([1]), torch.tensor([2]))
    assert selection.keep_BN[0].tolist() == [True, True, False, True]


def test_redundancies_within_the_tolerance_go_by_index():
    """Tokens 1 and 2 are as near the pivot up to 3e-7: the lower index seeds the cluster and is its medoid."""
    gram = torch.tensor([[1.0, 0.5, 0.4999997], [0.5, 1, 0.1], [0.4999997, 0.1, 1]])
    selection = select(torch.tensor([[1.0, 0, 0]]), gram[None], torch.tensor([1]), torch.tensor([1]), iterations=0)
    assert selection.keep_BN[0].tolist() == [True, True, False]


def test_without_pivots_seeds_are_farthest_first():
    """Three tight groups: each must give one medoid, whatever their indices."""
    centres = torch.eye(4)[:3]
    features = torch.cat([centres[0].repeat(5, 1), centres[1].repeat(2, 1), centres[2].repeat(1, 1)])[None]
    selection = select(torch.rand(1, 8), gram_matrix(features), torch.tensor([0]), torch.tensor([3]))
    assert selection.keep_BN[0].nonzero().flatten().tolist() == [0, 5, 7]


def test_rows_do_not_depend_on_their_neighbours():
    gram_BNN = gram_matrix(points(3, 4, 20, 8))
    relevance_BN = torch.rand(4, 20)
    pivots_B, medoids_B = torch.tensor([3, 0, 9, 5]), torch.tensor([6, 4, 0, 2])
    seeding = ["farthest", "redundancy", "k-center", "k-center"]
    together = select(relevance_BN, gram_BNN, pivots_B, medoids_B, seeding=seeding)
    for row in range(4):
        one = slice(row, row + 1)
        alone = select(relevance_BN[one], gram_BNN[one], pivots_B[one], medoids_B[one], seeding=seeding[one])
        assert torch.equal(together.keep_BN[one], alone.keep_BN)


@pytest.mark.parametrize(("count", "rho", "pivots"), [(45, 0.7, 32), (5, 0.5, 3), (10, 0.0, 0), (7, 1.0, 7)])
def test_halves_go_to_the_pivots(count, rho, pivots):
    pivots_B, medoids_B = split_budget(torch.tensor([count]), torch.tensor([rho], dtype=torch.float64))
    assert (int(pivots_B), int(medoids_B)) == (pivots, count - pivots)


def test_gram_matrix_is_computed_in_full_precision():
    """Can fail only on processors that have products of less precision."""
    features_BND, matmul = points(2, 1, 40, 64), torch.backends.mkldnn.matmul
    expected, before = gram_matrix(features_BND), matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        assert torch.equal(gram_matrix(features_BND), expected)
        assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before


def test_gram_matrix_ignores_autocast():
    features_BND = points(2, 1, 40, 64)
    expected = gram_matrix(features_BND)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(gram_matrix(features_BND), expected)
    assert gram_matrix(features_BND.half()).dtype == torch.float32
    zero = features_BND.clone()
    zero[0, 3] = 0
    assert not gram_matrix(zero)[0, 3].any()


def test_dual_stage_splits_and_selects():
    relevance_BN, gram_BNN = torch.rand(2, 20), gram_matrix(points(9, 2, 20, 5))
    counts_B, rho_B = torch.tensor([9, 4]), torch.tensor([0.3, 0.8]).double()
    valid_BN = torch.ones(2, 20, dtype=torch.bool)
    chosen = DualStage(iterations=3)(relevance_BN, gram_BNN, counts_B, rho_B, valid_BN)
    expected = select(relevance_BN, gram_BNN, *split_budget(counts_B, rho_B), iterations=3)
    assert torch.equal(chosen.keep_BN, expected.keep_BN)
    assert chosen.pivots_BN.sum(1).tolist() == [3, 3]


def test_dual_stage_seeds_every_row_its_own_way_and_repeats_it_for_beams():
    relevance_BN, gram_BNN = torch.rand(4, 40), gram_matrix(points(9, 4, 40, 5))
    counts_B, rho_B = torch.full((4,), 16), torch.full((4,), 0.25).double()
    valid_BN = torch.ones(4, 40, dtype=torch.bool)
    dual = DualStage(iterations=0, seedings=("redundancy", "k-center"))
    chosen = dual(relevance_BN, gram_BNN, counts_B, rho_B, valid_BN)
    rows = ["redundancy", "redundancy", "k-center", "k-center"]
    expected = select(relevance_BN, gram_BNN, *split_budget(counts_B, rho_B), iterations=0, seeding=rows)
    plain = select(relevance_BN, gram_BNN, *split_budget(counts_B, rho_B), iterations=0)
    assert torch.equal(chosen.keep_BN, expected.keep_BN)
    assert (chosen.keep_BN == plain.keep_BN).all(1).tolist() == [True, True, False, False]
    with pytest.raises(ModelError, match="2 seedings for a batch of 3 rows; give one, or one a row"):
        dual(relevance_BN[:3], gram_BNN[:3], counts_B[:3], rho_B[:3], valid_BN[:3])


@pytest.mark.parametrize("names", [(), ("farthest", "relevance")])
def test_a_seeding_that_there_is_not_is_refused(names):
    with pytest.raises(ModelError, match="expected one or more of redundancy, farthest, k-center"):
        DualStage(seedings=names)


def test_tokens_that_cancel_out_have_no_mean_and_the_first_seeds():
    """In float32 the mean of these is rounding error, not zero, and must not choose."""
    features_BND = torch.tensor([[[1.0, 1], [-1, 1], [1, -1], [-1, -1]]])
    selection = select(torch.rand(1, 4), gram_matrix(features_BND), torch.tensor([0]), torch.tensor([1]), iterations=0)
    assert selection.keep_BN[0].tolist() == [True, False, False, False]
