"""What transformers passes over in a checkpoint: damaged files, and weights that it fills at random or leaves out."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.finite import ADVICE, all_finite

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# transformers falls back to its defaults where some of these cannot be parsed, generation_config.json first of all.
SETTINGS = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    INDEX,
)
FLOATING = ("F64", "F32", "F16", "BF16")
_POINTER = b"version https://git-lfs"
# What wrappers put into the names of weights.
_WRAPPERS = {
    "torch.compile": (r"_orig_mod\.", "save what was compiled (model._orig_mod.save_pretrained)"),
    "DataParallel": (r"module\.", "save what was wrapped (model.module.save_pretrained)"),
    "FSDP": (r"_(?:fsdp_wrapped|checkpoint_wrapped)_module\.", "save the gathered state without these parts"),
}
_PEFT = r"base_model\.model\.|base_layer\.|modules_to_save\.(?:\w+\.)?|lora_\w+\.(?:\w+\.)?"
_MERGE = "merge the adapter (merge_and_unload()) and save the model again (save_pretrained)"


def check_files(folder: Path) -> None:
    """Refuse a checkpoint's folder whose files cannot be what they are called.

    Raises:
        ModelError: settings that are no JSON object, weights that are missing or cut off, an adapter without PEFT.
    """
    from transformers.utils import is_peft_available

    if (folder / "adapter_config.json").is_file() and not is_peft_available():
        raise ModelError(
            f"{folder} holds a PEFT adapter (adapter_config.json), which would be left out, as the package peft is not "
            f"installed; {_MERGE}"
        )
    found = {name: _settings(folder / name) for name in SETTINGS if (folder / name).is_file()}
    quantised = "quantization_config" in found.get("config.json", {})
    for path in _weight_files(folder, found.get(INDEX)):
        if not path.is_file():
            raise ModelError(f"{path} is missing, though {INDEX} names it; fetch the checkpoint again")
        try:
            _refuse_pointer(path)
            with safe_open(path, framework="pt") as weights:
                kinds = {name: weights.get_slice(name).get_dtype() for name in weights.keys() if "weight" in name}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path} is damaged or cut off ({error}); fetch the checkpoint again") from error
        if codes := [f"{name} ({kind})" for name, kind in kinds.items() if kind not in FLOATING and not quantised]:
            raise ModelError(
                f"{path} holds weights that are codes of a quantisation and no numbers: {_some(codes)}; give "
                "config.json its quantization_config, or a checkpoint that is not quantised"
            )


def check_weights(source: str, model: nn.Module, info: Mapping[str, Any], dtype: str) -> None:
    """Refuse a model of which not everything came from its checkpoint, and say what of the checkpoint it lacks.

    Args:
        source: where it was loaded from.
        model: on its device.
        info: what transformers tells with ``output_loading_info``.
        dtype: that it was loaded in.

    Raises:
        ModelError: weights are missing, of other shapes, named as a wrapper names them, or not finite.
    """
    missing, unexpected = info["missing_keys"], info["unexpected_keys"]
    for wrapper, (pattern, remedy) in {"PEFT": (_PEFT, _MERGE), **_WRAPPERS}.items():
        mark = re.compile(rf"(?:^|(?<=\.))(?:{pattern})")
        renamed = sorted(name for name in unexpected if mark.search(name))
        if renamed and (missing or wrapper == "PEFT"):
            raise ModelError(
                f"weights in {source} are named as {wrapper} names them: {_some(renamed)}; without that the first is "
                f"{mark.sub('', renamed[0])!r}. They are not loaded, so {remedy}"
            )
    if missing:
        raise ModelError(
            f"{source} lacks weights of a {type(model).__name__}, which would be random numbers: {_some(missing)}"
            + (f"; instead it has {_some(unexpected)}" if unexpected else "")
            + "; give the whole checkpoint, or save the model again (save_pretrained)"
        )
    if wrong := sorted(info["mismatched_keys"]):
        told = [f"{name} is {tuple(given)} and should be {tuple(wanted)}" for name, given, wanted in wrong]
        raise ModelError(f"weights in {source} do not fit its config.json: {_some(told)}; give the two that belong")
    if info["error_msgs"]:
        raise ModelError(f"weights in {source} cannot be loaded ({info['error_msgs'][0]}); fetch the checkpoint again")
    known = {_numberless(name) for name in model.state_dict()}
    if further := [name for name in unexpected if _numberless(name) in known]:
        raise ModelError(
            f"{source} has more layers than its config.json says, and they would be left out: {_some(further)}; give "
            "the two that belong"
        )
    if unexpected:
        # A server need not have what it is printed with.
        from clasp_calib.common.progress import note

        note(f"{source} has weights that a {type(model).__name__} does not use: {_some(unexpected)}")
    named = [(name, weight) for name, weight in model.named_parameters() if weight.is_floating_point()]
    whole = torch.stack([all_finite(weight.detach()) for _, weight in named]).tolist()
    if spoilt := [name for (name, _), finite in zip(named, whole, strict=True) if not finite]:
        raise ModelError(f"weights of {source} are not finite numbers in {dtype}: {_some(spoilt)}; {ADVICE}")


def _numberless(name: str) -> str:
    """The same for all layers of a kind."""
    return re.sub(r"\.\d+\.", ".*.", name)


def _settings(path: Path) -> dict[str, Any]:
    try:
        _refuse_pointer(path)
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read ({error or 'nested too deeply'}); fetch it again") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds a {type(found).__name__}; expected a JSON object with settings: fetch it again")
    return found


def _weight_files(folder: Path, index: Mapping[str, Any] | None) -> Iterator[Path]:
    """The safetensors files that transformers would read."""
    if (folder / WEIGHTS).is_file():
        yield folder / WEIGHTS
    elif index is not None:
        shards = index.get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(file, str) for file in shards.values()):
            raise ModelError(f"{folder / INDEX} has no weight_map from weights to files; fetch it again")
        yield from (folder / file for file in sorted(set(shards.values())))
    elif (shards := sorted(folder.glob("model-*-of-*.safetensors"))) and not any(folder.glob("pytorch_model*")):
        raise ModelError(
            f"{folder} holds {len(shards)} parts of a checkpoint ({shards[0].name} ...) without {INDEX}, which says "
            "what is where; fetch it too, or save the model again (save_pretrained)"
        )


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise ModelError(f"{path} is a Git LFS pointer, not the file itself; run git lfs pull there")


def _some(names: Collection[str], most: int = 3) -> str:
    shown = ", ".join(sorted(names)[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
