"""A CLIP model with its text tower, from a directory: for methods that rate patches by a question."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clasp_calib.common.errors import InputError
from clasp_calib.common.hashing import sha256_json
from clasp_calib.runtime.adapters.adapter import Adapter

LOOK = "give the directory of the CLIP model whose vision tower the multimodal model has"


@lru_cache(maxsize=1)
def clip_in(directory: str) -> tuple[Any, Any]:
    """The ``CLIPModel`` of a directory, in evaluation mode and float32, and its tokenizer.

    Raises:
        InputError: there is none.
    """
    from transformers import AutoConfig, AutoTokenizer, CLIPModel

    try:
        kind = AutoConfig.from_pretrained(directory, trust_remote_code=False).model_type
        if kind != "clip":
            raise InputError(f"{directory} holds a {kind} model and no CLIP; {LOOK}")
        model = CLIPModel.from_pretrained(directory, torch_dtype=torch.float32)
        return model.eval(), AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{directory} holds no CLIP model with its tokenizer ({reason:.200}); {LOOK}") from error


def checked_clip(directory: str, adapter: Adapter) -> str:
    """What a CLIP model is called in tables: its directory's name, and a hash of its weights.

    Args:
        directory: where it is.
        adapter: of a multimodal model.

    Raises:
        InputError: there is none, or its vision tower has another shape than that of the multimodal model.
    """
    model, _ = clip_in(directory)
    config = model.config.vision_config
    shape, wanted = (config.hidden_size, config.num_hidden_layers), (adapter.vision_width, adapter.vision_layers)
    if shape != wanted:
        raise InputError(
            f"the vision tower of the CLIP model in {directory} has width {shape[0]} and {shape[1]} blocks, and the "
            f"model's has {wanted[0]} and {wanted[1]}; {LOOK}"
        )
    weights = [float(part.detach().double().sum()) for part in model.parameters()]
    return f"{Path(directory).resolve().name} {sha256_json(weights)[:8]}"


def clip_ids(tokenizer: Any, text: str) -> Tensor:
    """A text as CLIP's tokenizer gives it, [M, W] long: in several parts if it is longer than CLIP takes."""
    longest = min(int(tokenizer.model_max_length), 77) - 2
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    parts = [ids[at : at + longest] for at in range(0, len(ids), longest)] or [[]]
    width = max(map(len, parts)) + 1
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    # What comes after the first end is not looked at.
    return torch.tensor([[begin, *part, *[end] * (width - len(part))] for part in parts])
