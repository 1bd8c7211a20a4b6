"""Watching the queries and keys of one attention module, without an attention matrix and without a trace.

H heads of t tokens of a tile, class tokens first, P of them patches, d width of a head.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from clasp_calib.common.errors import ModelError

AT_ONCE = 1 << 24
"""Logits that are in memory together. Our choice: 64 MB in float32."""
Watcher = Callable[[Tensor, Tensor, float], None]


class _OneLayer:
    """Configuration of one attention module: the model's, except for the name of its attention function."""

    def __init__(self, config: Any, attention: str) -> None:
        self.replaced = config
        self._attn_implementation = attention

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # of a copy that has no attributes yet
            raise AttributeError(name)
        return getattr(self.replaced, name)

    def __reduce_ex__(self, _: Any) -> NoReturn:
        """Refuse copies: their attention would be watched from here."""
        raise ModelError(COPIED)


COPIED = "this model is being pruned, and a copy would share its hooks; copy it outside of the context"
PRUNED_ALREADY = "this model is being pruned already; leave that context before you enter another"


def is_watched(attention: Any) -> bool:
    """Whether `watched_attention` is at work on this module."""
    return isinstance(attention.config, _OneLayer)


@contextmanager
def watched_attention(attention: Any, watcher: Watcher) -> Iterator[None]:
    """Show ``watcher(query, key, scaling)`` what this module attends with, as its kernel gets it.

    Args:
        attention: a transformers attention module that dispatches by ``config._attn_implementation``.
        watcher: is given queries [B, H, S, d] and keys [B, G, T, d], rotated where the module rotates them, and
            the factor of their logits, after the module's own function has run. Towers that attend chunk by
            chunk call it once for each.

    Raises:
        ModelError: the module is being watched already.
    """
    name, config = f"clasp_calib_{id(attention)}", attention.config
    if is_watched(attention):
        raise ModelError(PRUNED_ALREADY)

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any = None, **kwargs: Any) -> Any:
        mask = kwargs.pop("attention_mask", mask)
        eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        own = ALL_ATTENTION_FUNCTIONS.get_interface(config._attn_implementation, eager)
        result = own(module, query, key, value, mask, **kwargs)
        watcher(query, key, kwargs["scaling"])
        return result

    ALL_ATTENTION_FUNCTIONS[name] = attend
    attention.config = _OneLayer(config, name)
    try:
        yield
    finally:
        attention.config = config
        del ALL_ATTENTION_FUNCTIONS[name]


def received_attention(query_Htd: Tensor, key_Htd: Tensor, scaling: float, class_tokens: int, by_class: bool) -> Tensor:
    """Softmax attention [H, P] that the patches of a tile receive.

    Args:
        query_Htd: queries of one block, floating.
        key_Htd: its keys.
        scaling: factor of the logits.
        class_tokens: tokens before the patches.
        by_class: from the first class token; else the mean of what all patches give.
    """
    givers_Htd = query_Htd[:, :1] if by_class else query_Htd[:, class_tokens:]
    heads, givers, _ = givers_Htd.shape
    step = max(AT_ONCE // (heads * key_Htd.shape[1]), 1)
    given_Ht = sum(
        (givers_Htd[:, at : at + step] @ key_Htd.mT * scaling).softmax(-1).sum(1) for at in range(0, givers, step)
    )
    assert isinstance(given_Ht, Tensor)
    return given_Ht[:, class_tokens:] / givers
