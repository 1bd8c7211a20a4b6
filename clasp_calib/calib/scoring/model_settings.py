"""What a model and its processor were told, and weights do not show: two that differ in it may answer differently."""

import json
from typing import Any

from clasp_calib.cache.fingerprint import pictures_fingerprint
from clasp_calib.common.hashing import sha256_json

_DIGITS = 16
_PASSING = {"transformers_version", "dtype", "torch_dtype", "architectures"}


def model_settings(model: Any, processor: Any) -> dict[str, str]:
    """What answers depend on besides weights, dtype and generation config, by name.

    Returns:
        ``config``: digest of the configuration of the model and its parts, without paths and versions. ``attention``:
        the implementation of each part. ``pictures``: see `clasp_calib.cache.fingerprint.pictures_fingerprint`.
        ``texts``: digest of the tokenizer, the chat templates and the processor's own numbers and texts.
    """
    config = model.config
    parts = {"": config, **{name: getattr(config, name, None) for name in config.sub_configs}}
    attention = {name: str(getattr(part, "_attn_implementation", None)) for name, part in parts.items() if part}
    return {
        "config": _digest(_lasting(config.to_diff_dict())),
        "attention": " ".join(f"{name}:{kind}" if name else kind for name, kind in attention.items()),
        "pictures": pictures_fingerprint(processor),
        "texts": _texts(processor),
    }


def _texts(processor: Any) -> str:
    tokenizer = processor.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    told = {"vocabulary": tokenizer.get_vocab()} if backend is None else json.loads(backend.to_str())
    # A call leaves its own behind; prompts are made one by one, and never cut.
    for passing in ("padding", "truncation"):
        told.pop(passing, None)
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    own = {name: value for name, value in vars(processor).items() if isinstance(value, str | int | float | None)}
    return _digest([told, special, processor.chat_template, tokenizer.chat_template, _lasting(own)])


def _lasting(settings: Any) -> Any:
    """Without what changes when a checkpoint moves, is loaded in another dtype, or a library is updated."""
    if not isinstance(settings, dict):
        return settings
    return {
        str(name): _lasting(value)
        for name, value in settings.items()
        if name not in _PASSING and not str(name).startswith("_")
    }


def _digest(content: Any) -> str:
    return sha256_json(content)[:_DIGITS]
