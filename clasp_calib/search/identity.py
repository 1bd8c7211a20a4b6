"""Which model gave these scores: its weights, by a digest cheap enough for every start, and its settings."""

import hashlib
from typing import Any

import torch

VALUES = 256
"""Values that are looked at in each tensor. Our choice: training changes nearly all of a matrix, so a few will show it,
and hashing the whole of a 7B would delay every start by a minute."""


def weights_digest(model: Any) -> str:
    """Hex sha256 of names, shapes and evenly spaced values of all tensors of a model."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}\n".encode())
        if not tensor.is_meta:
            flat = tensor.detach().reshape(-1)
            some = flat[:: max(1, len(flat) // VALUES)].cpu().contiguous()
            digest.update(some.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def text_settings(config: Any) -> dict[str, Any]:
    """The language model's settings that its weights do not show, such as the base of its rotary positions."""
    passing = {"transformers_version", "dtype", "torch_dtype", "architectures"}
    settings = config.get_text_config().to_diff_dict()
    return {name: value for name, value in settings.items() if name not in passing and not name.startswith("_")}
