"""AdamW for a model in bfloat16: the weights that are updated are float32 copies."""

from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import nn

from clasp_calib.reference.training.schedule import rate_at

Part = TypeVar("Part", bound=nn.Module)


def to_bfloat16(module: Part) -> Part:
    """Round a module's parameters to bfloat16, and leave its buffers alone.

    ``module.bfloat16()`` would round the rotary frequencies too: at 600 tokens' distance the angles are then off by
    up to half a radian, and the exported float32 model is not the one that was trained.
    """
    for parameter in module.parameters():
        parameter.data = parameter.data.bfloat16()
    return module


class MasterAdamW:
    """AdamW with float32 master weights, clipped gradients, and a warm-up, flat, linear-decay learning rate."""

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float, steps: int, decay: float = 0.02):
        self._parameters = list(parameters)
        self._masters = [p.detach().float().requires_grad_() for p in self._parameters]
        matrices = [m for m in self._masters if m.ndim > 1]
        vectors = [m for m in self._masters if m.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
        self._adam = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)
        self._rate, self._steps = rate, steps

    def step(self, step: int) -> None:
        """Update the model from its gradients, and clear them."""
        for parameter, master in zip(self._parameters, self._masters, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
        nn.utils.clip_grad_norm_(self._masters, 1.0)
        for group in self._adam.param_groups:
            group["lr"] = rate_at(step, self._steps, self._rate)
        self._adam.step()
        with torch.no_grad():
            for parameter, master in zip(self._parameters, self._masters, strict=True):
                parameter.copy_(master)
                parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs."""
        return {"masters": self._masters, "adam": self._adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        with torch.no_grad():
            for parameter, master, saved in zip(self._parameters, self._masters, state["masters"], strict=True):
                master.copy_(saved)
                parameter.copy_(saved)
        self._adam.load_state_dict(state["adam"])
