"""Fusion in a live vision tower: the layer that the model projects becomes a mixture of all layers.

B rows of the batch, I pictures, L layers of the tower with its embeddings, T its tokens, C its width.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.adapters.base import Adapter
from clasp_calib.runtime.fusion import fuse
from clasp_calib.runtime.stages import expand_rows


class _Owners:
    """Which row of the batch each picture belongs to: pictures come in the order of their rows."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._pictures_B: Tensor | None = None

    def see(self, ids_BS: Tensor | None) -> None:
        """Count the pictures of every row, for the next time that the tower runs."""
        if ids_BS is not None:
            visual_B = (ids_BS == self._adapter.image_token_id).sum(1).cpu()
            self._pictures_B = visual_B // self._adapter.tokens_per_image if bool(visual_B.any()) else None

    def spread(self, alpha_BL: Tensor, pictures: int) -> Tensor:
        """The mixture of every picture, [I, L]; without prompts they are taken to have one each."""
        if len(alpha_BL) == 1:
            return alpha_BL.expand(pictures, -1)
        counts_B, self._pictures_B = self._pictures_B, None
        counts_B = torch.ones(pictures, dtype=torch.long) if counts_B is None else counts_B
        row_B = expand_rows(torch.arange(len(alpha_BL)), len(counts_B), "alpha")
        if int(counts_B.sum()) != pictures:
            raise ModelError(
                f"the prompts stand for {int(counts_B.sum())} pictures, {pictures} were given; "
                "expected one block of image tokens for every picture"
            )
        return alpha_BL[row_B.repeat_interleave(counts_B)]


@contextmanager
def fused_tower(model: nn.Module, adapter: Adapter, alpha_BL: Tensor) -> Iterator[None]:
    """Let the tower of ``model`` give mixtures of its layers.

    Args:
        model: what ``adapter`` is for.
        adapter: tells tower and layers.
        alpha_BL: weights over ``hidden_states``, one row for all pictures or one for every row of the batch.

    Raises:
        ModelError: the number of weights is not the number of layers.
    """
    layers = adapter.vision_layers + 1
    if alpha_BL.shape[1] != layers:
        raise ModelError(
            f"alpha has {alpha_BL.shape[1]} weights; expected {layers}, one for the tower's embeddings and "
            f"one for each of its {layers - 1} blocks"
        )
    used = alpha_BL.ne(0).any(0).nonzero().flatten().tolist()
    owners = _Owners(adapter)

    def see(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        owners.see(args[0] if args else kwargs.get("input_ids"))

    def mix(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        states = output.hidden_states
        alpha_IL = owners.spread(alpha_BL, len(states[0]))
        layers_ILTC = torch.stack([states[layer] for layer in used], dim=1)
        fused_ITC = fuse(layers_ILTC, alpha_IL[:, used])
        own = adapter.own_layer
        output.hidden_states = (*states[:own], fused_ITC, *states[own + 1 :])
        return output

    with ExitStack() as undo:
        undo.callback(adapter.vision_tower(model).register_forward_hook(mix).remove)
        if len(alpha_BL) > 1:
            multimodal = adapter.multimodal_model(model)
            undo.callback(multimodal.register_forward_pre_hook(see, with_kwargs=True).remove)
            undo.enter_context(_watched_generate(model, owners))
        yield


@contextmanager
def _watched_generate(model: Any, owners: _Owners) -> Iterator[None]:
    """Show the prompts that ``generate`` is given: it encodes pictures before any forward sees the ids."""
    plain, before = model.generate, vars(model).get("generate")

    @wraps(plain)
    def generate(*args: Any, **kwargs: Any) -> Any:
        owners.see(kwargs.get("input_ids", kwargs.get("inputs", args[0] if args else None)))
        return plain(*args, **kwargs)

    model.generate = generate
    try:
        yield
    finally:
        if before is None:
            del model.generate
        else:
            model.generate = before
