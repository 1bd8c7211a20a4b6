import torch
from hypothesis import given, settings, strategies as st

from clasp_calib.runtime.fusion import fuse


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
@given(seed=st.integers(0, 999), tau=st.floats(0.1, 5))
def test_misrouting_moves_a_token_by_at_most_the_bound(seed, tau):
    """Prop. 1: |x(a) - x(b)| <= (tau B / 2) |W[a] - W[b]|_1."""
    scores_2L = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed)).double()
    layers_BLND = layers(seed, batch=1).double()
    fused = fuse(layers_BLND.expand(2, -1, -1, -1), (tau * scores_2L).softmax(-1))
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
    fused = fuse(layers_BLND.expand(2, -1, -1, -1), (tau * scores_2L).softmax(-1))
    projected = (fused @ first.T).relu() @ second.T
    constant = torch.linalg.matrix_norm(first, 2) * torch.linalg.matrix_norm(second, 2)
    bound = constant * tau * layers_BLND.norm(dim=-1).max() / 2 * (scores_2L[0] - scores_2L[1]).abs().sum()
    assert (projected[0] - projected[1]).norm(dim=-1).max() <= bound + 1e-9


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
