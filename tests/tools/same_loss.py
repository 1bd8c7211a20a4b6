"""Compares a loss with a slow one, gradients and all."""

import pytest
import torch
from torch import Tensor


def mean_of(losses: list[Tensor]) -> Tensor:
    """0 of none."""
    return torch.stack(losses).mean() if losses else torch.zeros(())


def gradients(loss: Tensor, of: list[Tensor]) -> list[Tensor]:
    """Of what the loss does not depend on, 0."""
    found: tuple[Tensor | None, ...] = (None,) * len(of)
    if loss.requires_grad:
        found = torch.autograd.grad(loss, of, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(t) if grad is None else grad for t, grad in zip(of, found, strict=True)]


def assert_same_loss(ours: Tensor, slow: Tensor, of: list[Tensor]) -> None:
    """To float32's precision, as what the gradient adds up is."""
    assert ours.item() == pytest.approx(slow.item(), rel=1e-5)
    for found, wanted in zip(gradients(ours, of), gradients(slow, of), strict=True):
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))
