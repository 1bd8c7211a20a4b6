"""AdamW for a model in bfloat16: the weights that are updated are float32 copies."""

from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tools.reference.training.schedule import rate_at

Part = TypeVar("Part", bound=nn.Module)


def to_bfloat16(module: Part) -> Part:
    """Round a module's parameters to bfloat16, and leave its buffers alone.

    ``module.bfloat16()`` would round the rotary frequencies too: at 600 tokens' distance the angles are then off by
    up to half a radian, and the exported float32 model is not the one that was trained.
    """
    for parameter in module.parameters():
        parameter.data = parameter.data.bfloat16()
    return module


class Adam:
    """AdamW with clipped gradients, whose learning rate warms up, stays and decays linearly.

    On a GPU the rate is a tensor there, so that `step` can be recorded.
    """

    def __init__(self, groups: list[dict[str, Any]], rate: float, steps: int):
        self._parameters: list[nn.Parameter] = [p for group in groups for p in group["params"]]
        device = self._parameters[0].device
        on_gpu = device.type == "cuda"
        lr = torch.tensor(rate, device=device) if on_gpu else rate
        self._adam = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True, capturable=on_gpu)
        self._rate, self._steps = rate, steps

    def begin(self, step: int) -> None:
        """Set the rate of a step."""
        rate = rate_at(step, self._steps, self._rate)
        for group in self._adam.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def step(self) -> None:
        """Update the parameters from their gradients, and clear these."""
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._adam.step()
        self._adam.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs."""
        return self._adam.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`, also from one of another device."""
        own = [{key: group[key] for key in ("lr", "capturable")} for group in self._adam.param_groups]
        self._adam.load_state_dict(state)
        for group, settings in zip(self._adam.param_groups, own, strict=True):
            group.update(settings)


class MasterAdamW:
    """`Adam` on float32 masters of a module's parameters."""

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float, steps: int, decay: float = 0.02):
        self._parameters = list(parameters)
        self._masters = [nn.Parameter(p.detach().float()) for p in self._parameters]
        matrices = [m for m in self._masters if m.ndim > 1]
        vectors = [m for m in self._masters if m.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
        self._adam = Adam([group for group in groups if group["params"]], rate, steps)

    def begin(self, step: int) -> None:
        """Set the rate of a step."""
        self._adam.begin(step)

    def step(self) -> None:
        """Update the model from its gradients, and clear them."""
        for parameter, master in zip(self._parameters, self._masters, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        self._adam.step()
        with torch.no_grad():
            for parameter, master in zip(self._parameters, self._masters, strict=True):
                parameter.copy_(master)

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
