"""Which row of the batch each picture belongs to: pictures come in the order of their rows.

B rows of a call, S tokens of a row.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.generation import watched_generate
from clasp_calib.runtime.stages import expand_rows


class Owners:
    """Of the pictures that are encoded next; see `noted_owners`."""

    def __init__(self, model: nn.Module, adapter: Adapter, rows: int, name: str) -> None:
        self._model, self._adapter, self._rows, self._name = model, adapter, rows, name
        self._known: dict[str, tuple[Tensor, list[int]]] = {}
        """Modality -> the owner of each picture, and how many rows it is to the tower."""

    def see(self, ids_BS: Tensor | None, inputs: Mapping[str, Any]) -> None:
        """Find the owners of the pictures in these arguments, for the next time that their tower runs."""
        self._known = {}
        for modality, pixels in self._adapter.pixel_names.items():
            if ids_BS is not None and inputs.get(pixels) is not None:
                visual_B = (ids_BS == self._adapter.visual_token_ids[modality]).sum(1).tolist()
                tokens = self._adapter.tokens(self._model, inputs, modality)
                owner_B = expand_rows(torch.arange(self._rows), len(visual_B), self._name)
                self._known[modality] = (
                    owner_B[_rows_of(tokens, visual_B)],
                    self._adapter.rows(inputs, modality),
                )

    def of(self, modalities: Sequence[str], rows: int) -> Tensor:
        """The owner of every row of the tower, long, once; without prompts, one picture for each."""
        for modality in modalities:
            if modality in self._known:
                owner, each = self._known.pop(modality)
                return owner.repeat_interleave(torch.tensor(each))
        return expand_rows(torch.arange(self._rows), rows, self._name)

    def of_picture(self, modality: str, number: int) -> int:
        """The owner of a picture of the prompts that were seen last.

        Raises:
            ModelError: they brought none, so that nobody knows.
        """
        if modality not in self._known:
            raise ModelError(
                "the rows of this batch have different selectors, so that pictures cannot be encoded without their "
                "prompts; call the model, or generate"
            )
        return int(self._known[modality][0][number])


@contextmanager
def noted_owners(model: Any, adapter: Adapter, rows: int, name: str) -> Iterator[Owners]:
    """Look at the prompts of every call of ``model``.

    Args:
        model: what ``adapter`` is for.
        adapter: of the model.
        rows: of a batch, before ``generate`` repeats them for beams.
        name: what there is one of for every row, for errors.
    """
    owners = Owners(model, adapter, rows, name)

    def see(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        owners.see(args[0] if args else kwargs.get("input_ids"), kwargs)

    hook = adapter.multimodal_model(model).register_forward_pre_hook(see, with_kwargs=True)
    try:
        with watched_generate(model, owners.see):
            yield owners
    finally:
        hook.remove()


def _rows_of(tokens: list[int], visual_B: list[int]) -> Tensor:
    """The row of the batch that each picture stands in, from the visual tokens of both; long."""
    ends = torch.tensor(visual_B).cumsum(0)
    after = torch.tensor(tokens).cumsum(0)
    if not len(after) or int(after[-1]) != int(ends[-1]):
        raise ModelError(
            f"the prompts hold {int(ends[-1])} visual tokens, the {len(tokens)} pictures given make {sum(tokens)}; "
            "expected one block of visual tokens for every picture"
        )
    return torch.searchsorted(ends, after)
