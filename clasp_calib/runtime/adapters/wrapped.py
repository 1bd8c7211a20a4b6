"""Models with something around or in them past which no hook is called, and nothing would be pruned."""

from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from clasp_calib.common.errors import ModelError


def check_bare(model: Any) -> None:
    """Refuse a module that is not a whole transformers model as it was loaded; anything but a module is let pass.

    Raises:
        ModelError: a wrapper (PEFT, DataParallel, torch.compile), a model without its language head, compiled parts, or
            weights that are only fetched when they are used. It says what to give instead.
    """
    if not isinstance(model, nn.Module):
        return
    name = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        inside = ((path, part) for path, part in model.named_modules() if isinstance(part, PreTrainedModel))
        path, part = next(inside, ("", None))
        if part is not None:
            peft = "peft_config" in vars(model) and hasattr(model, "get_base_model")
            way = "get_base_model(), in which its adapters stay active" if peft else path
            raise ModelError(
                f"the model is a {name}, a wrapper around a {type(part).__name__}, past which nothing could be pruned; "
                f"give what it wraps: model.{way}"
            )
        return
    if not model.can_generate():
        raise ModelError(f"the model is a {name}, which has no language head; load it with AutoModelForImageTextToText")
    compiled = next(filter(_is_compiled, _parts(model)), None)
    if compiled is not None:
        path = next(path for path, part in model.named_modules() if part is compiled)
        raise ModelError(
            f"{path or 'the model'} is compiled (torch.compile), and compiled code passes over what prunes; give the "
            "model as it was before"
        )
    places = {str(place) for place in getattr(model, "hf_device_map", {}).values()}
    if "disk" in places or ("cpu" in places and len(places) > 1):
        raise ModelError(
            f"weights of this {name} are offloaded ({', '.join(sorted(places))}) and there only while they are used; "
            "load it on one device, in a dtype in which it fits"
        )


def _parts(model: nn.Module) -> Iterator[nn.Module]:
    """The model and all in it. PyTorch's own way through them, with their names, takes several times as long."""
    left, seen = [model], set[int]()
    while left:
        part = left.pop()
        if id(part) not in seen:
            seen.add(id(part))
            yield part
            left += [inner for inner in part._modules.values() if inner is not None]


def _is_compiled(part: nn.Module) -> bool:
    attributes = vars(part)
    return (
        attributes.get("_compiled_call_impl") is not None
        or "_orig_mod" in part._modules
        or hasattr(attributes.get("forward"), "_torchdynamo_orig_callable")
    )
