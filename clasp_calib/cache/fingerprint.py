"""Which encoder made these features: a fingerprint of everything that they depend on besides the picture."""

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from clasp_calib.common.errors import ModelError
from clasp_calib.common.hashing import sha256_json
from clasp_calib.runtime.adapters import adapter_for

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

_NOT_THE_ENCODER = {"transformers_version", "dtype", "torch_dtype", "architectures", "processor_class"}
_DIGITS = 16


def encoder_fingerprint(model: "PreTrainedModel", processor: "ProcessorMixin") -> str:
    """Fingerprint of a model's vision towers and of the processor that prepares its pictures.

    Four parts, so that a refusal shows which one differs::

        weights:<hex> dtype:<name> tower:<hex> pictures:<hex>

    ``weights`` hashes the names, shapes and *values* of the towers' tensors: narrower floats are widened to
    float32 first, which is exact. So a checkpoint loaded in another dtype keeps this part when no value was
    rounded (float16 stored, float32 loaded) and differs in ``dtype`` alone, whereas other weights, or values
    that loading rounded, change ``weights``. ``tower`` hashes the tower's configuration, ``pictures`` the
    image processor's class and settings, and the video processor's if there is one. Neither holds a path or a version.

    Raises:
        ModelError: the architecture is not known, or the tower's weights are not loaded.
    """
    adapter = adapter_for(model)
    towers: list[Any] = list(dict.fromkeys(adapter.vision_tower(model, each) for each in adapter.pixel_names))
    dtypes = {str(tensor.dtype).removeprefix("torch.") for tower in towers for tensor in tower.parameters()}
    parts = {
        "weights": _hash_of_values(towers),
        "dtype": "+".join(sorted(dtypes)),
        "tower": sha256_json(_lasting(towers[0].config.to_diff_dict()))[:_DIGITS],
    }
    return " ".join([*(f"{name}:{value}" for name, value in parts.items()), pictures_fingerprint(processor)])


def pictures_fingerprint(processor: "ProcessorMixin") -> str:
    """The last part of `encoder_fingerprint`: all that the tower's input depends on besides the picture."""
    settings: list[Any] = []
    for part in (getattr(processor, "image_processor", processor), getattr(processor, "video_processor", None)):
        if part is not None:
            settings += [type(part).__name__, _lasting(json.loads(part.to_json_string()))]
    return f"pictures:{sha256_json(settings)[:_DIGITS]}"


def _hash_of_values(towers: Sequence[torch.nn.Module]) -> str:
    digest = hashlib.sha256()
    for name, tensor in (item for tower in towers for item in sorted(tower.state_dict().items())):
        if tensor.is_meta:
            raise ModelError(
                f"the weights of the vision tower are not loaded ({name}); load the model without offloading"
            )
        values = tensor.detach().cpu()
        if values.is_floating_point() and values.element_size() < 4:
            values = values.float()
        digest.update(f"{name} {list(values.shape)} {values.dtype}\n".encode())
        digest.update(values.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:_DIGITS]


def _lasting(settings: dict[str, Any]) -> dict[str, Any]:
    """Without what changes when a checkpoint moves or a library is updated."""
    return {
        name: value for name, value in settings.items() if name not in _NOT_THE_ENCODER and not name.startswith("_")
    }
