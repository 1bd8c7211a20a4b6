import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clasp_calib.common.errors import InputError
from clasp_calib.runtime.fusion import alpha_from_scores, fuse, on_last_grid, scores_from_alpha

scores = st.lists(st.floats(-4, 4, width=32), min_size=2, max_size=6)


def mixture(seed, shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).softmax(-1)


def layers(seed, batch=2, count=4, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, count, 5, 3, generator=generator).to(dtype)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999))
def test_tokens_lie_in_the_convex_hull_of_the_layers(seed):
    layers_BLND = layers(seed)
    fused_BND = fuse(layers_BLND, mixture(seed, (2, 4)))
    direction_D = torch.randn(3, generator=torch.Generator().manual_seed(seed + 1))
    heights_BLN = layers_BLND @ direction_D
    fused_BN = fused_BND @ direction_D
    assert (fused_BN <= heights_BLN.amax(1) + 1e-5).all()
    assert (fused_BN >= heights_BLN.amin(1) - 1e-5).all()


def test_fuse_is_the_weighted_sum_of_each_pictures_own_weights():
    layers_BLND, alpha_BL = layers(1).double(), mixture(2, (2, 4)).double()
    expected = sum(alpha_BL[:, i, None, None] * layers_BLND[:, i] for i in range(4))
    assert torch.allclose(fuse(layers_BLND, alpha_BL), expected, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(values=scores)
def test_temperature_limits(values):
    scores_L = torch.tensor(values, dtype=torch.float64)
    uniform = alpha_from_scores(scores_L, tau=1e-9)
    assert torch.allclose(uniform, torch.full_like(scores_L, 1 / len(values)), atol=1e-7)
    separated = scores_L.mul(2).round().div(2)  # ties stay ties, other gaps are at least a half
    ties = (separated == separated.max()).double()
    assert torch.allclose(alpha_from_scores(separated, tau=1e3), ties / ties.sum(), atol=1e-9)


@settings(max_examples=100, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.floats(-4, 4), st.floats(-4, 4)), min_size=2, max_size=6),
    tau=st.floats(0.01, 20),
)
def test_softmax_is_lipschitz(pairs, tau):
    u, v = torch.tensor(pairs, dtype=torch.float64).T
    moved = (alpha_from_scores(u, tau) - alpha_from_scores(v, tau)).abs().sum()
    assert moved <= tau / 2 * (u - v).abs().sum() + 1e-12


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), tau=st.floats(0.1, 5))
def test_misrouting_moves_a_token_by_at_most_the_bound(seed, tau):
    """Prop. 1: |x(a) - x(b)| <= (tau B / 2) |W[a] - W[b]|_1."""
    scores_2L = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed)).double()
    layers_BLND = layers(seed, batch=1).double()
    fused = fuse(layers_BLND.expand(2, -1, -1, -1), alpha_from_scores(scores_2L, tau))
    bound = tau * layers_BLND.norm(dim=-1).max() / 2 * (scores_2L[0] - scores_2L[1]).abs().sum()
    assert (fused[0] - fused[1]).norm(dim=-1).max() <= bound + 1e-9


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), tau=st.floats(0.1, 5))
def test_misrouting_moves_a_projected_token_by_at_most_the_projectors_lipschitz_constant(seed, tau):
    """Cor. 1, with a projector of two linear maps and a ReLU, whose constant is the product of their norms."""
    generator = torch.Generator().manual_seed(seed)
    scores_2L = torch.randn(2, 4, generator=generator).double()
    first, second = (torch.randn(shape, generator=generator).double() for shape in ((8, 3), (6, 8)))
    layers_BLND = layers(seed, batch=1).double()
    fused = fuse(layers_BLND.expand(2, -1, -1, -1), alpha_from_scores(scores_2L, tau))
    projected = (fused @ first.T).relu() @ second.T
    constant = torch.linalg.matrix_norm(first, 2) * torch.linalg.matrix_norm(second, 2)
    bound = constant * tau * layers_BLND.norm(dim=-1).max() / 2 * (scores_2L[0] - scores_2L[1]).abs().sum()
    assert (projected[0] - projected[1]).norm(dim=-1).max() <= bound + 1e-9


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), tau=st.floats(0.1, 10))
def test_scores_give_the_mixture_back(seed, tau):
    alpha = mixture(seed, (9, 5)).double()
    alpha[0] = torch.tensor([0, 0.25, 0, 0.75, 0])
    scores = scores_from_alpha(alpha, tau)
    assert scores[0, 0] == -torch.inf
    assert torch.allclose(alpha_from_scores(scores, tau), alpha, atol=1e-12)


def test_one_hot_gives_its_layer_bit_for_bit():
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        layers_BLND = layers(5, dtype=dtype)
        layers_BLND[0, 2, 0, 0] = -0.0
        alpha_BL = torch.tensor([[0.0, 0, 1, 0], [1, 0, 0, 0]])
        fused_BND = fuse(layers_BLND, alpha_BL)
        assert fused_BND.dtype == dtype
        assert torch.equal(fused_BND, torch.stack([layers_BLND[0, 2], layers_BLND[1, 0]]))
        assert torch.signbit(fused_BND[0, 0, 0])


def test_layers_without_weight_are_not_read():
    layers_BLND = layers(6)
    layers_BLND[0, 1] = torch.inf
    layers_BLND[:, 3] = torch.nan
    alpha_BL = torch.tensor([[0.5, 0, 0.5, 0], [0.2, 0.3, 0.5, 0]])
    assert fuse(layers_BLND, alpha_BL).isfinite().all()


def test_one_picture_can_be_mixed_in_several_ways():
    layers_BLND, alpha_BL = layers(7, batch=1), mixture(3, (6, 4))
    together = fuse(layers_BLND.expand(6, -1, -1, -1), alpha_BL)
    apart = torch.cat([fuse(layers_BLND, row[None]) for row in alpha_BL])
    assert torch.equal(together, apart)


grids = st.tuples(st.integers(1, 7), st.integers(1, 7))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 999), sizes=st.lists(grids, min_size=1, max_size=4))
def test_resampled_layers_stay_between_the_tokens_of_their_own_layer(seed, sizes):
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(2, rows * columns, 3, generator=generator) for rows, columns in sizes]
    brought_BLND = on_last_grid(maps, sizes)
    assert brought_BLND.shape == (2, len(sizes), sizes[-1][0] * sizes[-1][1], 3)
    for index, (given_BND, size) in enumerate(zip(maps, sizes, strict=True)):
        got_BND = brought_BLND[:, index]
        assert (got_BND <= given_BND.amax(1, keepdim=True) + 1e-5).all()
        assert (got_BND >= given_BND.amin(1, keepdim=True) - 1e-5).all()
        if size == sizes[-1]:
            assert torch.equal(got_BND, given_BND)


def test_shrinking_by_a_half_weighs_neighbours_as_a_tent_does():
    """A ramp along the width, four to two: each new token is centred between two old ones, so a ramp stays one."""
    ramp_BND = torch.arange(8.0).repeat(4).reshape(1, 32, 1)
    small = torch.zeros(1, 8, 1)
    got = on_last_grid([ramp_BND, small], [(4, 8), (2, 4)])[0, 0, :, 0].view(2, 4)
    assert torch.allclose(got[0], got[1])
    assert torch.allclose(got[0, 1:3], torch.tensor([2.5, 4.5]))


def test_layers_of_another_width_cannot_be_mixed():
    with pytest.raises(InputError, match="layer 0 holds 4 tokens of width 8; expected 2 x 2 tokens of width 16"):
        on_last_grid([torch.zeros(1, 4, 8), torch.zeros(1, 1, 16)], [(2, 2), (1, 1)])
    with pytest.raises(InputError, match="layer 1 holds 5 tokens"):
        on_last_grid([torch.zeros(1, 4, 8), torch.zeros(1, 5, 8)], [(2, 2), (2, 2)])
