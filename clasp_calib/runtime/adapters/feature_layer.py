"""Which state of its tower a model projects."""

from typing import Any

from clasp_calib.common.errors import ModelError


def feature_layer(layer: Any, vision_layers: int) -> int:
    """``vision_feature_layer`` counted from 0.

    Args:
        layer: as a configuration has it.
        vision_layers: L_v, the blocks of the tower.

    Raises:
        ModelError: the tower has no such layer, or several are projected.
    """
    if not isinstance(layer, int):
        raise ModelError(
            f"vision_feature_layer is {layer}: this projector was trained on concatenated layers, which a mixture of "
            "layers does not fit; expected a model with one layer"
        )
    if not -vision_layers - 1 <= layer <= vision_layers:
        raise ModelError(
            f"vision_feature_layer is {layer}, and the tower has the layers 0 to {vision_layers}; give the config.json "
            "that was saved with the model"
        )
    return layer % (vision_layers + 1)
