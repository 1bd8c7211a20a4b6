"""MiniCPM-V 4.6: slices of a picture in one sequence, whose tower makes one token of four in its midst."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from clasp_calib.common.errors import ModelError
from clasp_calib.common.pruning_options import INPUT
from clasp_calib.runtime.adapters.siglip import LastStateAdapter


class MiniCPMVAdapter(LastStateAdapter):
    """See `clasp_calib.runtime.adapters.adapter.Adapter`; each slice counts as one picture, whose rows are its tokens.

    A file becomes a small copy of the whole, and as many slices as its processor cuts, of another size. The tower
    merges windows of 2 x 2 tokens behind its block ``insert_layer_id``, unless ``downsample_mode`` is ``4x``.

    Our choice: earlier states are brought to the later grid by the mean of each window, which is also what the merger
    adds its own output to. Most decoder layers are recurrent, so that tokens are dropped before the decoder only.
    Images only: text stands between the frames of a video.
    """

    size_names: Mapping[str, Sequence[str]] = {"image": ("target_sizes",), "video": ()}
    ragged = True
    patched = True
    profiles: Sequence[str] = (INPUT,)

    def __init__(self, config: Any) -> None:
        """For a configuration.

        Raises:
            ModelError: windows are not of 2 x 2 tokens, or not merged between two blocks.
        """
        super().__init__(config)
        merged, last = config.vision_config.insert_layer_id, self.vision_layers - 2
        if self._halved and not 0 <= merged <= last:
            raise ModelError(
                f"insert_layer_id={merged} does not merge tokens between two of the {self.vision_layers} blocks of the "
                f"{config.model_type} tower; give a model with one of 0 to {last}, or with downsample_mode='4x'"
            )
        kernels = {"merge_kernel_size": config.merge_kernel_size}
        if self._halved:
            kernels["window_kernel_size"] = config.vision_config.window_kernel_size
        for name, kernel in kernels.items():
            if tuple(kernel) != (2, 2):
                raise ModelError(
                    f"{name}={tuple(kernel)} is not supported; give a {config.model_type} model that makes one token "
                    "of windows of (2, 2)"
                )

    def check_arguments(self, inputs: Mapping[str, Any]) -> None:
        """The tower must merge as the configuration says."""
        own, asked = self.config.downsample_mode, inputs.get("downsample_mode")
        if asked not in (None, own):
            raise ModelError(
                f"downsample_mode={asked!r} was given to a model whose configuration says {own!r}; set it in the "
                "configuration and in the image processor, and not in a call"
            )

    def rows(self, inputs: Mapping[str, Any], modality: str = "image") -> list[int]:
        """Tokens of every slice that leave the tower.

        Raises:
            ModelError: see `check_arguments`.
        """
        return [height * width for height, width in self._grids(inputs)]

    def tokens(self, model: nn.Module, inputs: Mapping[str, Any], modality: str = "image") -> list[int]:
        """Merged tokens of every slice."""
        merged = self._merge**2
        return [tokens // merged for tokens in self.rows(inputs, modality)]

    def pictures(self, inputs: Mapping[str, Any], modality: str = "image") -> int:
        """One for every file, with all of its slices."""
        return len(inputs["pixel_values"])

    def by_picture(self, parts: Sequence[Tensor], inputs: Mapping[str, Any], modality: str) -> list[Tensor]:
        """Of the slices, each of which attends to itself in a call of its own."""
        return list(parts)

    def token_values(
        self, model: nn.Module, values: Sequence[Tensor], inputs: Mapping[str, Any], modality: str
    ) -> list[Tensor]:
        """Of the tokens that the projector makes one."""
        grids = self._grids(inputs)
        return [_windows(one_1P[0], grid, self._merge) for one_1P, grid in zip(values, grids, strict=True)]

    def aligned(self, state: Tensor, layer: int, call: Mapping[str, Any]) -> Tensor:
        """Those from before the merge in means of its windows."""
        if call.get("use_vit_merger", self._halved) != self._halved:
            self.check_arguments({"downsample_mode": "4x" if self._halved else "16x"})
        tokens_TC = state[0]
        if not self._halved or layer > self.config.vision_config.insert_layer_id + 1:
            return tokens_TC
        grids = call["target_sizes"].tolist()
        slices = torch.split(tokens_TC, [height * width for height, width in grids])
        return torch.cat([_windows(one_TC, grid, 2) for one_TC, grid in zip(slices, grids, strict=True)])

    def replace_own(self, tower: nn.Module, output: Any, fused: Tensor, call: Mapping[str, Any]) -> Any:
        """The model reads the last state through the tower's norm."""
        return super().replace_own(tower, output, fused[None], call)

    def encoder_outputs(self, features: Sequence[Tensor], modality: str = "image") -> dict[str, Any]:
        """A fresh ``mm_encoder_outputs``, slice by slice."""
        return {modality: BaseModelOutputWithPooling(pooler_output=list(features))}

    def features(self, model: nn.Module, pixels: Tensor, modality: str, sizes: Mapping[str, Tensor]) -> Any:
        """Of several files [B, 3, patch, length] in one sequence."""
        sequence_13PX = pixels.permute(1, 2, 0, 3).flatten(2)[None]
        return super().features(model, sequence_13PX, modality, sizes)

    @property
    def _halved(self) -> bool:
        """Whether the tower merges tokens in its midst."""
        return bool(self.config.downsample_mode != "4x")

    @property
    def _merge(self) -> int:
        """Tokens on a side of the square that the projector makes one."""
        return int(2**self.config.merger_times)

    def _grids(self, inputs: Mapping[str, Any]) -> list[tuple[int, int]]:
        """Height and width of every slice when it leaves the tower."""
        self.check_arguments(inputs)
        halved = 2 if self._halved else 1
        return [(height // halved, width // halved) for height, width in inputs["target_sizes"].tolist()]

    def _row_tokens(self, modality: str) -> int:
        return 1

    def _map(self, fused_BTC: Tensor, modality: str) -> Tensor:
        return fused_BTC.flatten(0, 1)

    def _blank_pixels(self, fused_BTC: Tensor, map_RTC: Tensor, modality: str) -> Tensor:
        return map_RTC.new_zeros(1).expand(1, 3, 1, 1)


def _windows(tokens: Tensor, grid: Sequence[int], side: int) -> Tensor:
    """Means of the squares of a grid [T] or [T, C], line by line."""
    height, width = grid
    squares = tokens.view(height // side, side, width // side, side, *tokens.shape[1:])
    return squares.mean((1, 3)).flatten(0, 1)
