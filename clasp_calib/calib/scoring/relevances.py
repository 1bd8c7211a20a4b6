"""What the vision tower attends to in a sample's picture, where tokens are chosen before the decoder.

Our choice: a cache of layers does not hold it. The tower runs once for every picture, which is a small part of what
scoring all candidates on it takes, and what it says stays in memory: four bytes a visual token and kind, of all kinds
that the tower can give. So it is that of the served model to the last bit, whatever the cache's precision.

N visual tokens of a picture.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clasp_calib.cache.prepare import Prepared
from clasp_calib.cache.states import origin_of
from clasp_calib.common.media import Media
from clasp_calib.common.pruning_options import NONE
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.checks import check_relevances
from clasp_calib.runtime.tower_relevance import relevances_of


class Relevances:
    """Relevance of the visual tokens of pictures, as the tower gives it; asked for again it is not computed again.

    Args:
        model: its tower runs where and in what it is loaded.
        prepare: of a picture's key and file what the tower is shown, as the processor makes it.
    """

    def __init__(self, model: Any, prepare: Callable[[str, Media], Prepared]) -> None:
        self._model, self._prepare = model, prepare
        self._known: dict[str, dict[str, list[Tensor]]] = {}

    def of(self, key: str, picture: Media, kind: str) -> list[Tensor]:
        """Relevance [N], float32, of every picture that a file is to the adapter.

        Args:
            key: the content of the file, in short.
            picture: the file.
            kind: one of the adapter's relevances but ``none``.

        Raises:
            InputError: the file cannot be read.
            ModelError: the tower has no such relevance.
        """
        check_relevances(self._model, adapter_for(self._model), [kind])
        if key not in self._known:
            self._known[key] = self._seen(self._prepare(key, picture))
        return self._known[key][kind]

    @torch.inference_mode()
    def _seen(self, prepared: Prepared) -> dict[str, list[Tensor]]:
        adapter = adapter_for(self._model)
        kinds = [kind for kind in adapter.relevances if kind != NONE]
        place = next(adapter.vision_tower(self._model, prepared.modality).parameters())
        pixels = torch.from_numpy(prepared.pixels).to(place.device, place.dtype)
        sizes = origin_of(adapter, prepared).tower_sizes(adapter)
        return relevances_of(self._model, adapter, kinds, pixels, prepared.modality, **sizes)
