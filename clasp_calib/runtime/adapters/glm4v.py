"""GLM-4V (GLM-4.1V): Qwen2-VL's way of taking pictures, with a convolution that merges patches before the projector."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from clasp_calib.runtime.adapters.qwen_vl import Qwen2VLAdapter


class Glm4vAdapter(Qwen2VLAdapter):
    """See `clasp_calib.runtime.adapters.adapter.Adapter`; rows are patches.

    Images only: the frames of a video have the images' token, and text between them.
    """

    towers: Mapping[str, str] = {"image": "visual"}
    pixel_names: Mapping[str, str] = {"image": "pixel_values"}
    size_names: Mapping[str, Sequence[str]] = {"image": ("image_grid_thw",), "video": ()}
    laid_out = False  # the convolution does more than the merger

    def replace_own(self, tower: nn.Module, output: Any, fused: Tensor, call: Mapping[str, Any]) -> Any:
        """The model reads the last state through the tower's norm, convolution and merger."""
        norm, downsample, merger = (tower.get_submodule(name) for name in ("post_layernorm", "downsample", "merger"))
        merge = self.config.vision_config.spatial_merge_size
        square_NCmm = norm(fused).view(-1, merge, merge, fused.shape[-1]).permute(0, 3, 1, 2)
        output.pooler_output = merger(downsample(square_NCmm).flatten(1))
        return output
