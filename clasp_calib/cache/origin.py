"""How a stored picture's tokens are arranged, which is what projecting them needs to know.

Our choice: the sizes are stored with the picture rather than worked out anew from it, so that a reader needs neither
the file nor the processor, and a file that changed its place or its bytes cannot give others.

M mixtures, K states of a deepstack, B pictures that the file is captured as (tiles of InternVL, else one), T tokens of
the file, C width of the tower, N visual tokens, D width of the decoder.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.written import Written

Sizes = Mapping[str, list[Any]]


@dataclass(frozen=True)
class Origin:
    """How the patch tokens [T, C] of one file are arranged."""

    modality: str = "image"
    pictures: int = 1
    """B: T is B times the tokens of one."""
    sizes: Sizes = field(default_factory=dict)
    """What the processor says of the file besides its pixels, such as ``image_grid_thw``, as lists."""
    note: str = ""
    """What of the file the model does not see; empty as a rule."""
    written: Written = ()
    """What the processor writes for the file in a prompt, where text stands among its visual tokens; empty as a
    rule."""

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """One line."""
        told = asdict(self)
        if not self.written:
            del told["written"]
        return json.dumps(told)

    def forward_arguments(self) -> dict[str, Tensor]:
        """The sizes as ``forward`` and ``generate`` take them, for one file."""
        return {name: torch.tensor(value) for name, value in self.sizes.items()}

    def project(self, adapter: Adapter, model: Any, fused_MTC: Tensor) -> list[list[Tensor]]:
        """Visual tokens of each mixture of this file.

        The lists of several files or mixtures, joined in the order of the prompts' rows, are what
        `Adapter.encoder_outputs` takes.

        Args:
            adapter: of the model.
            model: whose projector is used.
            fused_MTC: mixtures of the file's states, of any floating dtype.

        Returns:
            M lists of tensors [N, D], one for each picture that the file is to the adapter.
        """
        mixtures, tokens, channels = fused_MTC.shape
        maps_BTC = fused_MTC.reshape(mixtures * self.pictures, tokens // self.pictures, channels)
        visual = adapter.project(model, maps_BTC, self.modality, **self.tower_sizes(adapter, mixtures))
        each = len(visual) // mixtures
        return [visual[at : at + each] for at in range(0, len(visual), each)]

    def deepstack(self, adapter: Adapter, model: Any, states_KTC: Tensor) -> list[list[Tensor]]:
        """What the file brings to the decoder's first layers, whatever the mixture.

        Args:
            adapter: of the model.
            model: whose mergers are used.
            states_KTC: the file's states ``adapter.taps``, of any floating dtype.

        Returns:
            K lists of B tensors [N, D], see `Adapter.deepstack`.
        """
        taps, tokens, channels = states_KTC.shape
        states_KBTC = states_KTC.reshape(taps, self.pictures, tokens // self.pictures, channels)
        return adapter.deepstack(model, states_KBTC, self.modality)

    def visual_tokens(self, adapter: Adapter, model: Any, patches: int) -> int:
        """Visual tokens that the file becomes in a prompt.

        Args:
            adapter: of the model.
            model: whose projector packs them.
            patches: T.
        """
        sizes = self.tower_sizes(adapter)
        return sum(adapter.tokens_of(model, self.pictures, patches, self.modality, **sizes))

    def tower_sizes(self, adapter: Adapter, copies: int = 1) -> dict[str, Tensor]:
        """The sizes that `Adapter.capture` and `Adapter.project` take, of ``copies`` of this file."""
        return {
            name: torch.tensor(self.sizes[name] * copies)
            for name in adapter.size_names[self.modality]
            if name in self.sizes
        }
