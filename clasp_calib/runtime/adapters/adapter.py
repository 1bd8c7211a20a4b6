"""What the runtime asks of an architecture.

B pictures of one size, R rows that they are to the tower (tiles, frames or single patches), T patch tokens of a
picture that the projector receives, C width of the tower, N visual tokens of a picture, D width of the decoder.
A *modality* is ``image`` or ``video``; a video is one picture here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class Layout:
    """Where the visual tokens of one image come from. A *cell* is what the projector makes one token of.

    ``cell_N`` is long: of every visual token the index of its cell, -1 for one that ends a line. Cells are counted
    tile by tile, each of ``grid`` rows and columns, line by line. ``place_U`` is where a tower that takes
    patches in an order of its own has each cell, ``None`` if it has none. Where the first tile shows the whole picture,
    the others cut it into ``cut`` rows and columns.
    """

    cell_N: Tensor
    tiles: int
    grid: tuple[int, int]
    place_U: Tensor | None = None
    cut: tuple[int, int] = (1, 1)

    @property
    def cells(self) -> int:
        """U, the cells of all tiles."""
        return self.tiles * self.grid[0] * self.grid[1]


class Adapter(Protocol):
    """Made from a configuration; every method takes the model, which the adapter does not keep."""

    @property
    def visual_token_ids(self) -> Mapping[str, int]:
        """For every modality the id that stands for one visual token in ``input_ids``."""
        ...

    @property
    def pixel_names(self) -> Mapping[str, str]:
        """For every modality the argument that ``forward`` takes its pixels in, such as ``pixel_values``."""
        ...

    @property
    def ragged(self) -> bool:
        """Whether pictures differ in their number of visual tokens."""
        ...

    @property
    def tokens_per_image(self) -> int:
        """N, the visual tokens of one picture.

        Raises:
            ModelError: it differs from picture to picture.
        """
        ...

    @property
    def patch_tokens(self) -> int | None:
        """R x T of what one file becomes to the tower; None where files differ in it."""
        ...

    @property
    def vision_width(self) -> int:
        """C, the width of the tower's states."""
        ...

    @property
    def size_names(self) -> Mapping[str, Sequence[str]]:
        """For every modality the ``sizes`` that `capture` and `project` take, as the processor names them."""
        ...

    @property
    def taps(self) -> Sequence[int]:
        """States that the model projects beside its own layer's; `project` refuses where there are any."""
        ...

    @property
    def vision_layers(self) -> int:
        """L_v, the blocks of the tower; its states are 0..L_v, 0 being what enters the first block."""
        ...

    @property
    def own_layer(self) -> int:
        """The state that the unmodified model projects, counted from 0."""
        ...

    @property
    def decoder_layers(self) -> int:
        """Decoder layers of the language model."""
        ...

    def language_model(self, model: nn.Module) -> nn.Module:
        """The text model: it has ``layers``, ``rotary_emb`` and ``config``."""
        ...

    def multimodal_model(self, model: nn.Module) -> nn.Module:
        """The module whose forward is given ``input_ids`` together with pictures or their features."""
        ...

    def vision_tower(self, model: nn.Module, modality: str = "image") -> nn.Module:
        """The module that encodes pixels of a modality; modalities may share it."""
        ...

    def vision_blocks(self, model: nn.Module, modality: str = "image") -> Sequence[nn.Module]:
        """The L_v blocks of the tower, each of which returns its state [R, T, C] or [R, C]."""
        ...

    def rows(self, inputs: Mapping[str, Any], modality: str = "image") -> list[int]:
        """R of every picture, from the arguments of ``forward``."""
        ...

    def tokens(self, model: nn.Module, inputs: Mapping[str, Any], modality: str = "image") -> list[int]:
        """N of every picture, from the arguments of ``forward``."""
        ...

    def grid(self, inputs: Mapping[str, Any]) -> tuple[int, int]:
        """Rows and columns of the visual tokens over the one image in the arguments of ``forward``.

        Raises:
            ModelError: they are not such a grid, or there are several images.
        """
        ...

    @property
    def laid_out(self) -> bool:
        """Whether `tower_attention` and `layouts` are known, without which nothing is pruned before the decoder."""
        ...

    @property
    def class_tokens(self) -> int:
        """Tokens at the head of a tower's state that stand for no patch: 1, or 0 if the tower has none."""
        ...

    @property
    def attention_block(self) -> int:
        """The last block before the projector in which every patch of a tile attends to every other."""
        ...

    def tower_attention(self, block: nn.Module) -> nn.Module:
        """The attention module of a block of the tower."""
        ...

    def layouts(self, model: nn.Module, inputs: Mapping[str, Any]) -> list[Layout]:
        """The `Layout` of every image in the arguments of ``forward``.

        Raises:
            ModelError: some visual tokens stand for no patch.
        """
        ...

    def positions(self, model: nn.Module, ids_BS: Tensor, **sizes: Tensor) -> Tensor | None:
        """Position ids [axes, B, S] of unpadded prompts with pictures, where they have several axes; else ``None``.

        A forward that begins behind a cached prefix must be given them. The model notes how far they lag behind the
        count of tokens, as its own forward does, so that later calls can go on from the cache.

        Args:
            model: what the adapter is for.
            ids_BS: the whole prompts.
            sizes: what the processor says of the pictures, such as ``image_grid_thw``.
        """
        ...

    def replace_own(self, tower: nn.Module, output: Any, fused: Tensor, call: Mapping[str, Any]) -> Any:
        """The tower's ``output`` as it would be if its own layer's state were ``fused``.

        Args:
            tower: as `vision_tower` gives it.
            output: what it returned.
            fused: in the shape of a block's state.
            call: keyword arguments that the tower was called with.
        """
        ...

    def capture(
        self,
        model: nn.Module,
        pixels: Tensor,
        modality: str = "image",
        layers: Sequence[int] | None = None,
        **sizes: Tensor,
    ) -> Tensor:
        """Patch tokens of states, [B, L, T, C], without class tokens that the projector does not see.

        Args:
            model: what the adapter is for.
            pixels: of pictures of one size, as the processor makes them.
            modality: ``image`` or ``video``.
            layers: which of the states 0..L_v, in the order that they are wanted; None for all.
            sizes: what else the processor says of these pictures, such as ``image_sizes`` or ``image_grid_thw``.

        Raises:
            ModelError: the pictures are not of one size.
        """
        ...

    def project(self, model: nn.Module, fused_BTC: Tensor, modality: str = "image", **sizes: Tensor) -> list[Tensor]:
        """Visual tokens [N, D] of every picture from its fused patch tokens; ``sizes`` as in `capture`.

        Raises:
            ModelError: the projector needs more than one map.
        """
        ...

    def encoder_outputs(self, features: Sequence[Tensor], modality: str = "image") -> dict[str, Any]:
        """A fresh ``mm_encoder_outputs`` for ``forward`` or ``generate``; the pictures in order of rows.

        Fresh, because ``generate`` with beams writes into what it is given: make one for every call.
        """
        ...
