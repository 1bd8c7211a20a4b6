"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: patches of all pictures in one sequence, merged two by two in both directions.

The rows of a picture are its patches.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clasp_calib.common.errors import ModelError
from clasp_calib.common.pruning_options import INPUT
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.adapters.layout import Layout


class Qwen2VLAdapter(Adapter):
    """See `clasp_calib.runtime.adapters.adapter.Adapter`; shapes and letters are explained there."""

    towers: Mapping[str, str] = {"image": "visual", "video": "visual"}
    pixel_names: Mapping[str, str] = {"image": "pixel_values", "video": "pixel_values_videos"}
    size_names: Mapping[str, Sequence[str]] = {"image": ("image_grid_thw",), "video": ("video_grid_thw",)}
    ragged = True
    patched = True
    laid_out = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.vision_layers: int = config.vision_config.depth
        self.own_layer: int = self.vision_layers

    @property
    def vision_width(self) -> int:
        """Qwen2-VL calls it ``embed_dim``, and ``hidden_size`` what the merger gives."""
        vision = self.config.vision_config
        return int(getattr(vision, "embed_dim", None) or vision.hidden_size)

    def vision_blocks(self, model: nn.Module, modality: str = "image") -> Sequence[nn.Module]:
        """The tower's blocks."""
        blocks: Any = self.vision_tower(model, modality).get_submodule("blocks")
        return list(blocks)

    def rows(self, inputs: Mapping[str, Any], modality: str = "image") -> list[int]:
        """Patches of every picture."""
        return [int(patches) for patches in inputs[f"{modality}_grid_thw"].prod(-1)]

    def tokens(self, model: nn.Module, inputs: Mapping[str, Any], modality: str = "image") -> list[int]:
        """Merged patches of every picture."""
        merged = self.config.vision_config.spatial_merge_size**2
        return [patches // merged for patches in self.rows(inputs, modality)]

    def grid(self, inputs: Mapping[str, Any]) -> tuple[int, int]:
        """The merged patches of the image."""
        grids = inputs["image_grid_thw"].tolist()
        if len(grids) != 1:
            raise ModelError(f"there are {len(grids)} pictures; expected one, to lay its tokens over it")
        merge = self.config.vision_config.spatial_merge_size
        _, height, width = grids[0]
        return height // merge, width // merge

    def tower_attention(self, block: nn.Module) -> nn.Module:
        """Of a block."""
        return block.get_submodule("attn")

    def by_picture(self, parts: Sequence[Tensor], inputs: Mapping[str, Any], modality: str) -> list[Tensor]:
        """Of the one sequence that all pictures are, whose frames attend among themselves."""
        whole_HSd = torch.cat([part[0] for part in parts], dim=1)
        pictures = torch.split(whole_HSd, self.rows(inputs, modality), dim=1)
        times = inputs[f"{modality}_grid_thw"][:, 0].tolist()
        heads, width = len(whole_HSd), whole_HSd.shape[2]
        frames = [part.reshape(heads, time, -1, width) for part, time in zip(pictures, times, strict=True)]
        return [part.transpose(0, 1) for part in frames]

    def token_values(
        self, model: nn.Module, values: Sequence[Tensor], inputs: Mapping[str, Any], modality: str
    ) -> list[Tensor]:
        """Of the patches that the merger makes one, which follow each other, put where it puts them."""
        merged = self.config.vision_config.spatial_merge_size**2
        found = []
        for frames_RP, grid in zip(values, inputs[f"{modality}_grid_thw"], strict=True):
            tokens_N = frames_RP.view(-1, merged).mean(1)
            place_N = self._places(grid[None])
            found.append(tokens_N if place_N is None else tokens_N[place_N.to(tokens_N.device)])
        return found

    def layouts(self, model: nn.Module, inputs: Mapping[str, Any]) -> list[Layout]:
        """Every token is a group of patches that the merger made one."""
        merge = self.config.vision_config.spatial_merge_size
        found = []
        for grid in inputs["image_grid_thw"]:
            time, height, width = grid.tolist()
            cells = (height // merge, width // merge)
            found.append(Layout(torch.arange(time * cells[0] * cells[1]), time, cells, self._places(grid[None])))
        return found

    def _places(self, grid_thw: Tensor) -> Tensor | None:
        """``place_U`` of pictures that follow each other."""
        return None

    def positions(self, model: nn.Module, ids_BS: Tensor, **sizes: Tensor) -> Tensor:
        """Time, height and width."""
        multimodal: Any = self.multimodal_model(model)
        kinds_BS = torch.zeros_like(ids_BS, dtype=torch.int)
        for kind, token in enumerate(self.visual_token_ids.values(), start=1):
            kinds_BS[ids_BS == token] = kind
        position_ABS, multimodal.rope_deltas = multimodal.get_rope_index(ids_BS, mm_token_type_ids=kinds_BS, **sizes)
        assert isinstance(position_ABS, Tensor)
        return position_ABS

    def replace_own(self, tower: nn.Module, output: Any, fused: Tensor, call: Mapping[str, Any]) -> Any:
        """The model reads what the tower's merger makes of the last state."""
        merger: Any = tower.get_submodule("merger")
        output.pooler_output = merger(fused)
        return output

    def _map(self, fused_BTC: Tensor, modality: str) -> Tensor:
        return fused_BTC.flatten(0, 1)

    def _blank_pixels(self, fused_BTC: Tensor, map_RTC: Tensor, modality: str) -> Tensor:
        return map_RTC.new_zeros(1).expand(len(map_RTC), 1)


class Qwen25VLAdapter(Qwen2VLAdapter):
    """The same with windowed attention, for which the tower takes its patches in another order."""

    @property
    def attention_block(self) -> int:
        """The last block without windows."""
        return int(max(self.config.vision_config.fullatt_block_indexes))

    def replace_own(self, tower: nn.Module, output: Any, fused: Tensor, call: Mapping[str, Any]) -> Any:
        """Merged in the order of the windows, which are within one picture, and put back."""
        output = super().replace_own(tower, output, fused, call)
        output.pooler_output = output.pooler_output[self._places(call["grid_thw"])]
        return output

    def _places(self, grid_thw: Tensor) -> Tensor:
        from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import get_vision_window_index

        vision = self.config.vision_config
        window_index, _ = get_vision_window_index(
            grid_thw,
            spatial_merge_size=vision.spatial_merge_size,
            window_size=vision.window_size,
            patch_size=vision.patch_size,
        )
        return torch.argsort(window_index)


class Qwen35Adapter(Qwen2VLAdapter):
    """The same before a decoder most of whose layers are recurrent, so that tokens are dropped before it only.

    Images only: text stands between the frames of a video.
    """

    towers: Mapping[str, str] = {"image": "visual"}
    pixel_names: Mapping[str, str] = {"image": "pixel_values"}
    size_names: Mapping[str, Sequence[str]] = {"image": ("image_grid_thw",), "video": ()}
    profiles: Sequence[str] = (INPUT,)


class Qwen3VLAdapter(Qwen2VLAdapter):
    """The same with deepstack: some states are projected beside the last and added to early decoder layers.

    Our choice: these stay the model's own, and only the last state becomes a mixture.
    """

    laid_out = False  # its merger is not the only thing that reads the states

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.taps: Sequence[int] = tuple(block + 1 for block in config.vision_config.deepstack_visual_indexes)

    def deepstack(self, model: nn.Module, states_KBTC: Tensor, modality: str = "image") -> list[list[Tensor]]:
        """Each state goes through a merger of its own; some configurations have none."""
        if not self.taps:
            return []
        mergers: Any = self.vision_tower(model, modality).get_submodule("deepstack_merger_list")
        place = next(mergers.parameters())
        states_KBTC = states_KBTC.to(place.device, place.dtype)
        return [
            [merger(state_TC) for state_TC in states_BTC]
            for merger, states_BTC in zip(mergers, states_KBTC, strict=True)
        ]

    def encoder_outputs(self, features: Sequence[Tensor], modality: str = "image") -> dict[str, Any]:
        """The model asks for a deepstack even where its configuration has none."""
        outputs = super().encoder_outputs(features, modality)
        outputs[modality].deepstack_features = []
        return outputs

    def replace_own(self, tower: nn.Module, output: Any, fused: Tensor, call: Mapping[str, Any]) -> Any:
        """The live tower has run its deepstack already, and a fused map has none."""
        output = super().replace_own(tower, output, fused, call)
        output.deepstack_features = getattr(output, "deepstack_features", [])
        return output
