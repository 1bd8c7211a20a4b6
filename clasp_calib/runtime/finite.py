"""Numbers that are not finite: found where they begin, before anything is made of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from clasp_calib.common.errors import ModelError

ADVICE = (
    "in float16, numbers above 65504 overflow: load the model in bfloat16 or float32 (--dtype bfloat16); in these, its "
    "checkpoint is damaged"
)


class NonFiniteError(ModelError):
    """NaN or infinity, where a model's numbers were expected; whoever knows the sample adds its name."""


def all_finite(values: Tensor) -> Tensor:
    """Whether all values are finite numbers, bool []; a GPU is not waited for."""
    if not values.numel():
        return torch.ones((), dtype=torch.bool, device=values.device)
    # NaN comes through; 20 times as fast as isfinite() on a CPU, and nothing as large as the values is made.
    low, high = torch.aminmax(values)
    return low.isfinite() & high.isfinite()


@contextmanager
def finite_logits(model: nn.Module, what: str) -> Iterator[None]:
    """Stop at the first forward within the ``with`` block whose logits are not finite.

    Args:
        model: a transformers model with a language head.
        what: is asked, such as a sample; it is named in front of every `NonFiniteError`.

    Raises:
        ModelError: it names the first decoder layer that was given such numbers, if the cache tells.
    """

    def check(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        if not bool(all_finite(output.logits.detach())):
            raise NonFiniteError(f"the model's logits are not finite{_where(output.past_key_values)}; {ADVICE}")

    handle = model.register_forward_hook(check)
    try:
        yield
    except NonFiniteError as error:
        raise ModelError(f"{what}: {error}") from error
    finally:
        handle.remove()


def _where(cache: Any) -> str:
    layers = getattr(cache, "layers", ())
    known = [(number, layer.keys, layer.values) for number, layer in enumerate(layers) if layer.keys is not None]
    for number, keys, values in known:
        if not bool(all_finite(keys) & all_finite(values)):
            return f", as is what enters decoder layer {number}" if number else ", as is what enters the decoder"
    return ", though keys and values of all decoder layers are" if known else ""
