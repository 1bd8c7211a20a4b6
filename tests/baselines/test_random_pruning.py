import torch
from hypothesis import given, settings, strategies as st
from tiny_models import tiny_batch, tiny_llava

from clasp_calib.baselines.random_pruning import RandomPruning, RandomRows
from clasp_calib.runtime.pruner import prune
from clasp_calib.runtime.schedule import Schedule
from clasp_calib.runtime.selection import DualStage, gram_matrix

SCHEDULE = Schedule(16, 8, (1, 2, 4), (9, 6, 3))


def choose(seed, valid_BN, counts):
    selector, size = RandomPruning(seed), valid_BN.shape
    return selector(torch.zeros(size), None, torch.tensor(counts), torch.ones(len(counts)).double(), valid_BN)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), lengths=st.lists(st.integers(0, 12), min_size=1, max_size=4), data=st.data())
def test_keeps_exactly_that_many_valid_tokens(seed, lengths, data):
    counts = [data.draw(st.integers(0, length)) for length in lengths]
    valid_BN = torch.arange(12) >= 12 - torch.tensor(lengths)[:, None]
    selection = choose(seed, valid_BN, counts)
    assert selection.keep_BN.sum(1).tolist() == counts
    assert not (selection.keep_BN & ~valid_BN).any()
    assert torch.equal(selection.keep_BN, choose(seed, valid_BN, counts).keep_BN)


def test_every_token_is_as_likely():
    valid_BN = torch.ones(4000, 8, dtype=torch.bool)
    share_N = choose(3, valid_BN, [2] * 4000).keep_BN.float().mean(0)
    assert (share_N - 0.25).abs().max() < 0.03


def test_rows_and_seeds_differ():
    valid_BN = torch.ones(2, 64, dtype=torch.bool)
    first, second = choose(1, valid_BN, [32, 32]).keep_BN
    assert not torch.equal(first, second)
    assert not torch.equal(first, choose(2, valid_BN, [32, 32]).keep_BN[0])


def test_stages_are_nested_in_a_model():
    model = tiny_llava()
    with prune(model, schedule=SCHEDULE, rho=1.0, selector=RandomPruning(5)) as pruner:
        model.generate(**tiny_batch(model), max_new_tokens=2)
    for row in range(3):
        kept = [stage.kept(row) for stage in pruner.stats.stages]
        assert [len(k) for k in kept] == [9, 6, 3]
        assert set(kept[2]) < set(kept[1]) < set(kept[0])
        assert not pruner.stats.stages[0].pivots(row)


@settings(max_examples=40, deadline=None)
@given(
    seeds=st.lists(st.none() | st.integers(0, 9), min_size=1, max_size=5),
    rhos=st.lists(st.floats(0, 1), min_size=5, max_size=5),
    data=st.integers(0, 1000),
)
def test_rows_are_chosen_as_alone(seeds, rhos, data):
    """The obvious way: each row in a batch of its own, by the selection that it wants."""
    rows, generator = len(seeds), torch.Generator().manual_seed(data)
    relevance_BN = torch.rand(rows, 12, generator=generator)
    gram_BNN = gram_matrix(torch.randn(rows, 12, 4, generator=generator))
    given_ = (relevance_BN, gram_BNN, torch.tensor([5] * rows), torch.tensor(rhos[:rows]).double())
    valid_BN = torch.rand(rows, 12, generator=generator) < 0.9
    valid_BN[:, :5] = True
    together = RandomRows(seeds, DualStage())
    assert together.needs_gram == (None in seeds)
    found = together(*given_, valid_BN)
    for row, seed in enumerate(seeds):
        alone = DualStage() if seed is None else RandomPruning(seed)
        expected = alone(*(part[[row]] for part in given_), valid_BN[[row]])
        assert torch.equal(found.keep_BN[[row]], expected.keep_BN)
        assert torch.equal(found.pivots_BN[[row]], expected.pivots_BN)
