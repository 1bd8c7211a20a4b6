"""What stays of pictures behind a tower in vLLM; the tower is CLIP's or SigLIP's unless a model says otherwise.

R tiles of a picture, T tokens of a tile, its class token first, U patches of a picture, N visual tokens, K of them
kept, H heads of width d, C width of the tower, D of the decoder.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models.utils import WeightsMapper

from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.adapters.layout import Layout
from clasp_calib.runtime.encoding import Encoded, TowerAttention, what_goes_on
from clasp_calib.serving.served import ServedArtifact, blocks_of
from clasp_calib.serving.vllm_plugin.ranks import all_heads
from clasp_calib.serving.vllm_plugin.received import received

TILES = 16
"""That the tower takes together, but for a picture of more. Our choice: vLLM counts what pictures leave, and would let
in many more of them than the memory for all states of the tower was measured with."""
TOWER_MAPPER = WeightsMapper(
    orig_to_new_prefix={
        f"{before}vision_tower.{part}": f"vision_tower.vision_model.{part}"
        for before in ("", "model.")
        for part in ("embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm.")
    }
)
"""transformers 5 saves a tower without ``vision_model.``, which vLLM's parameters have."""


@contextmanager
def deep_enough(config: Any) -> Iterator[None]:
    """vLLM builds a tower up to the layer that is projected, and a mixture may reach further."""
    served, own = ServedArtifact.of(config), config.vision_feature_layer
    if served:
        config.vision_feature_layer = max(adapter_for(config).own_layer, *served.layers)
    try:
        yield
    finally:
        config.vision_feature_layer = own


class PrunedTower:
    """Mixed into a model of vLLM's, before it."""

    config: Any
    vision_tower: Any
    multi_modal_projector: Any
    clasp: ServedArtifact | None

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        config = vllm_config.model_config.hf_config
        with deep_enough(config):
            super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        self.clasp = ServedArtifact.of(config)

    def prune_pictures(
        self, served: ServedArtifact, adapter: Adapter, tiles: Sequence[Tensor], numbers: Sequence[int], **sizes: Any
    ) -> list[Tensor]:
        """What stays of every picture, [K, D] each.

        Args:
            served: the artifact.
            adapter: of the model.
            tiles: pixels of every picture, [R, 3, height, width].
            numbers: of their entries.
            sizes: what the processor says of them besides, picture by picture.
        """
        found, begin = list[Tensor](), 0
        for end in range(1, len(tiles) + 1):
            if end == len(tiles) or sum(map(len, tiles[begin : end + 1])) > TILES:
                part = slice(begin, end)
                of = {name: size[part] for name, size in sizes.items()}
                found += self._prune_pictures(served, adapter, tiles[part], numbers[part], **of)
                begin = end
        return found

    def _prune_pictures(
        self, served: ServedArtifact, adapter: Adapter, tiles: Sequence[Tensor], numbers: Sequence[int], **sizes: Any
    ) -> list[Tensor]:
        wanted = [served.entries[number] for number in numbers]
        blocks, head = blocks_of(wanted, adapter), adapter.class_tokens
        layers = sorted({*blocks, *(layer for entry in wanted for layer in entry.layers)})
        states = self.states(torch.cat(list(tiles)), layers)
        seen = {block: self.attended(block, states[block]) for block in blocks}
        found, row = [], 0
        for picture, (number, layout) in enumerate(zip(numbers, self.layouts(adapter, tiles, **sizes), strict=True)):
            mine, entry = slice(row, row := row + len(tiles[picture])), served.entries[number]
            mixed_RTC = served.mixed({layer: states[layer][mine] for layer in entry.layers}, number)
            attention = {
                block: TowerAttention(query[mine].float(), key[mine].float(), scaling, head, 1, layout)
                for block in entry.blocks(adapter)
                for query, key, scaling in [seen[block]]
            }

            def project(states_UC: Tensor, rows: int = len(mixed_RTC), picture: int = picture) -> Tensor:
                return self.packed(self.projected(states_UC, rows), picture, **sizes)

            states_UC = mixed_RTC[:, head:].flatten(0, 1)
            class_RC = mixed_RTC[:, 0] if head else None
            image = Encoded(project(states_UC), layout, states_UC, class_RC, attention, project, picture)
            spread = self.spread(len(mixed_RTC), picture, **sizes)
            found.append(what_goes_on(image, served.chosen(image, adapter, number, spread)))
        return found

    def spread(self, rows: int, picture: int, **sizes: Any) -> Callable[[Tensor], Tensor] | None:
        """What makes of a number for every patch one for every token, where the layout does not tell."""
        return None

    def layouts(self, adapter: Adapter, tiles: Sequence[Tensor], **sizes: Any) -> list[Layout]:
        """Where the tokens of every picture come from."""
        raise NotImplementedError

    def packed(self, tiles_RUD: Tensor, picture: int, **sizes: Any) -> Tensor:
        """The tokens [N, D] of a picture, from those of its tiles."""
        raise NotImplementedError

    def states(self, pixels: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """States [R, T, C] of the tower by their numbers, 0 being what enters its first block."""
        parts = self.vision_tower(pixels, select_layers=list(layers), feature_select_strategy="full")
        return dict(zip(layers, parts.chunk(len(layers), -1), strict=True))

    def attended(self, block: int, entering_RTC: Tensor) -> tuple[Tensor, Tensor, float]:
        """Queries and keys of a block [R, H, T, d], made once more, and the factor of their logits."""
        layer = self.vision_tower.vision_model.encoder.layers[block]
        attention = layer.self_attn
        qkv, _ = attention.qkv_proj(layer.layer_norm1(entering_RTC))
        query, key, _ = (part.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
        return all_heads(query), all_heads(key), attention.scale

    def projected(self, states_UC: Tensor, rows: int) -> Tensor:
        """What the projector makes of the patches of so many tiles, [R, tokens of a tile, D]."""
        tokens: Tensor = self.multi_modal_projector(states_UC)
        return tokens.view(rows, -1, tokens.shape[-1])


class PrunedTiles(PrunedTower):
    """Of pictures that are cut into tiles of one size."""

    def embed_multimodal(self, **kwargs: Any) -> Any:
        """What stays of every picture: [K, D] each."""
        numbers = received(kwargs, self.clasp)
        if self.clasp is None or numbers is None:
            return super().embed_multimodal(**kwargs)  # type: ignore[misc]
        inputs = self._parse_and_validate_image_input(**kwargs)  # type: ignore[attr-defined]
        adapter, image_sizes = adapter_for(self.config), inputs["image_sizes"]
        # Pictures of one prompt come with as many tiles as the largest.
        counts = adapter.rows({"image_sizes": image_sizes})
        tiles = [of[:count] for of, count in zip(inputs["pixel_values"], counts, strict=True)]
        return self.prune_pictures(self.clasp, adapter, tiles, numbers, image_sizes=image_sizes)
