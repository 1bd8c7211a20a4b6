"""A tower whose first block leaves fewer tokens, of every picture as many as it needs.

R pictures of one tile, N patches, M tokens that are left of a picture, C width of the tower.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from clasp_calib.runtime.adapters.adapter import Adapter

Shrink = Callable[[Tensor], Tensor]
"""Makes tokens [M, C] of the patches [N, C] of a picture."""


class Shrunk:
    """``lengths`` are the M of the pictures of the last run; shorter ones are padded with zeros at the end.

    ``runs`` counts runs, and ``mask`` is what later blocks attend with.
    """

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.runs = 0
        self.mask: Tensor | None = None


@contextmanager
def shrinking_tower(model: nn.Module, adapter: Adapter, shrink: Shrink) -> Iterator[Shrunk]:
    """Let ``shrink`` have what leaves the first block of a CLIP tower; padding is attended to by nothing.

    Args:
        model: what ``adapter`` is for.
        adapter: of a model with a CLIP tower and pictures of one tile.
        shrink: is given the patches of every picture in turn, without class token.
    """
    shrunk, heads = Shrunk(), adapter.class_tokens

    def after_first(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        rows = [torch.cat([state_tC[:heads], shrink(state_tC[heads:])]) for state_tC in output]
        shrunk.lengths, shrunk.runs = [len(row) - heads for row in rows], shrunk.runs + 1
        padded_RtC = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        here_Rt = torch.arange(padded_RtC.shape[1], device=output.device) < torch.tensor(
            [len(row) for row in rows], device=output.device
        ).unsqueeze(1)
        # A kernel that is given no mask may be a faster one.
        nothing = torch.zeros_like(here_Rt, dtype=output.dtype).masked_fill(~here_Rt, torch.finfo(output.dtype).min)
        shrunk.mask = None if bool(here_Rt.all()) else nothing[:, None, None, :]
        return padded_RtC

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args[:1], {**kwargs, "attention_mask": shrunk.mask}

    first, *later = adapter.vision_blocks(model)
    with ExitStack() as undo:
        undo.callback(first.register_forward_hook(after_first).remove)
        for block in later:
            undo.callback(block.register_forward_pre_hook(before, with_kwargs=True).remove)
        yield shrunk
