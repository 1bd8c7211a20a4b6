"""What all adapters share: reading a tower's states, and projecting a map that it did not make.

Letters as in `clasp_calib.runtime.adapters.adapter`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.adapters.adapter import Layout


class TowerAdapter:
    """`clasp_calib.runtime.adapters.adapter.Adapter` for a model of the usual make.

    ``model.model`` has a ``language_model``, towers named in ``towers``, and a ``get_<modality>_features`` for
    each of them. A subclass says in ``__init__`` what the configuration tells, and overrides what differs.
    """

    towers: Mapping[str, str] = {"image": "vision_tower"}
    pixel_names: Mapping[str, str] = {"image": "pixel_values"}
    size_names: Mapping[str, Sequence[str]] = {"image": (), "video": ()}
    ragged = False
    taps: Sequence[int] = ()
    vision_layers: int
    own_layer: int

    def __init__(self, config: Any) -> None:
        self.config = config
        self.visual_token_ids = {modality: getattr(config, f"{modality}_token_id") for modality in self.towers}
        self.decoder_layers: int = config.text_config.num_hidden_layers

    @property
    def tokens_per_image(self) -> int:
        """N, where it is the same for all pictures."""
        raise ModelError(
            f"pictures of a {self.config.model_type} model differ in their number of visual tokens; "
            "give budgets in percent, and do not ask for one number"
        )

    @property
    def patch_tokens(self) -> int | None:
        """Files differ in it, unless a subclass knows better."""
        return None

    @property
    def vision_width(self) -> int:
        """What most towers call ``hidden_size``."""
        return int(self.config.vision_config.hidden_size)

    def language_model(self, model: nn.Module) -> nn.Module:
        """The text model."""
        return self.multimodal_model(model).get_submodule("language_model")

    def multimodal_model(self, model: nn.Module) -> nn.Module:
        """``model.model``."""
        inner = model.model
        assert isinstance(inner, nn.Module)
        return inner

    def vision_tower(self, model: nn.Module, modality: str = "image") -> nn.Module:
        """The tower of a modality."""
        return self.multimodal_model(model).get_submodule(self.towers[modality])

    def vision_blocks(self, model: nn.Module, modality: str = "image") -> Sequence[nn.Module]:
        """The blocks of the tower."""
        raise NotImplementedError

    def rows(self, inputs: Mapping[str, Any], modality: str = "image") -> list[int]:
        """One row of pixels is one picture, unless a subclass knows better."""
        return [1] * len(inputs[self.pixel_names[modality]])

    def tokens(self, model: nn.Module, inputs: Mapping[str, Any], modality: str = "image") -> list[int]:
        """Every picture has as many."""
        return [self.tokens_per_image] * len(self.rows(inputs, modality))

    def grid(self, inputs: Mapping[str, Any]) -> tuple[int, int]:
        """A square, where every image has as many tokens."""
        images = len(self.rows(inputs))
        side = 0 if self.ragged else math.isqrt(self.tokens_per_image)
        if images != 1 or side == 0 or side**2 != self.tokens_per_image:
            raise ModelError(
                f"the visual tokens of {images} picture(s) of this {self.config.model_type} model are not one grid "
                "over a picture; drop --overlay, or use one picture of a model without tiles"
            )
        return side, side

    laid_out = False
    class_tokens = 0

    @property
    def attention_block(self) -> int:
        """The block that makes the state which the model projects."""
        return self.own_layer - 1

    def tower_attention(self, block: nn.Module) -> nn.Module:
        """Of a block of the tower."""
        raise NotImplementedError

    def layouts(self, model: nn.Module, inputs: Mapping[str, Any]) -> list[Layout]:
        """Of every image."""
        raise NotImplementedError

    def positions(self, model: nn.Module, ids_BS: Tensor, **sizes: Tensor) -> Tensor | None:
        """Tokens are counted."""
        return None

    def replace_own(self, tower: nn.Module, output: Any, fused: Tensor, call: Mapping[str, Any]) -> Any:
        """Put ``fused`` where the model looks for the state that it projects."""
        raise NotImplementedError

    def capture(
        self,
        model: nn.Module,
        pixels: Tensor,
        modality: str = "image",
        layers: Sequence[int] | None = None,
        **sizes: Tensor,
    ) -> Tensor:
        """States of the tower, [B, L, T, C]."""
        wanted = range(self.vision_layers + 1) if layers is None else layers
        rows = self.rows({self.pixel_names[modality]: pixels, **sizes}, modality)
        if len(set(rows)) > 1:
            raise ModelError(f"these pictures are of different sizes ({rows} rows); capture pictures of one size")
        states: dict[int, Tensor] = {}
        with (
            recorded_states(self.vision_blocks(model, modality), wanted, states),
            self._tower_replaced(model, modality, _Recorder(self.vision_tower(model, modality))),
            suppress(_EncodedError),
        ):
            self._features(model, pixels, modality, sizes)
        cut = self._cut(modality)
        maps = [states[layer] for layer in wanted]
        maps = [map_RTC.reshape(len(map_RTC), -1, map_RTC.shape[-1])[:, cut:] for map_RTC in maps]
        return torch.stack([map_RTC.reshape(len(rows), -1, map_RTC.shape[-1]) for map_RTC in maps], dim=1)

    def project(self, model: nn.Module, fused_BTC: Tensor, modality: str = "image", **sizes: Tensor) -> list[Tensor]:
        """Visual tokens through transformers' own ``get_<modality>_features``, its tower replaced meanwhile."""
        tower: Any = self.vision_tower(model, modality)
        weight = next(tower.parameters())
        map_RTC = self._map(fused_BTC.to(weight.device, weight.dtype), modality)
        with self._tower_replaced(model, modality, _Recorded(self, tower, map_RTC)):
            pixels = self._blank_pixels(fused_BTC, map_RTC, modality)
            pooled = self._features(model, pixels, modality, sizes).pooler_output
        return self._pictures(pooled, len(fused_BTC))

    def encoder_outputs(self, features: Sequence[Tensor], modality: str = "image") -> dict[str, Any]:
        """A fresh ``mm_encoder_outputs``."""
        return {modality: BaseModelOutputWithPooling(pooler_output=list(features))}

    def _cut(self, modality: str) -> int:
        """Tokens at the head of a state that the projector does not see."""
        return 0

    def _row_tokens(self, modality: str) -> int:
        """Tokens of a row that the projector sees."""
        return 1

    def _map(self, fused_BTC: Tensor, modality: str) -> Tensor:
        """Fused tokens in the shape of a state; what is cut off again has a value that is never read."""
        map_RTC = fused_BTC.reshape(-1, self._row_tokens(modality), fused_BTC.shape[-1])
        return torch.cat([map_RTC[:, : self._cut(modality)], map_RTC], dim=1)

    def _blank_pixels(self, fused_BTC: Tensor, map_RTC: Tensor, modality: str) -> Tensor:
        """Pixels of nothing, in the shape that ``get_<modality>_features`` wants to see."""
        frames = (len(fused_BTC), len(map_RTC) // len(fused_BTC)) if modality == "video" else (len(map_RTC),)
        return map_RTC.new_zeros(1).expand(*frames, 3, 1, 1)

    def _pictures(self, pooled: Any, pictures: int) -> list[Tensor]:
        """Projected tokens, picture by picture."""
        return list(pooled)

    def _features(self, model: nn.Module, pixels: Tensor, modality: str, sizes: Mapping[str, Tensor]) -> Any:
        getter = getattr(self.multimodal_model(model), f"get_{modality}_features")
        placed = {name: size.to(pixels.device) for name, size in sizes.items()}
        return getter(**{self.pixel_names[modality]: pixels}, **placed, return_dict=True)

    @contextmanager
    def _tower_replaced(self, model: nn.Module, modality: str, stand_in: nn.Module) -> Iterator[None]:
        multimodal, name = self.multimodal_model(model), self.towers[modality]
        tower = getattr(multimodal, name)
        setattr(multimodal, name, stand_in)
        try:
            yield
        finally:
            setattr(multimodal, name, tower)


@contextmanager
def recorded_states(blocks: Sequence[nn.Module], layers: Sequence[int], states: dict[int, Tensor]) -> Iterator[None]:
    """Note the states of a tower whenever it runs: of layer 0 what enters the first block, else what block l - 1 gives.

    transformers' own ``output_hidden_states`` leaves its hooks on a tower for good, and keeps every layer.
    """
    with ExitStack() as undo:
        for layer in layers:
            if layer == 0:

                def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                    states[0] = args[0] if args else kwargs["hidden_states"]

                undo.callback(blocks[0].register_forward_pre_hook(enter, with_kwargs=True).remove)
            else:

                def leave(_: nn.Module, __: tuple[Any, ...], output: Any, layer: int = layer) -> None:
                    states[layer] = output[0] if isinstance(output, tuple) else output

                undo.callback(blocks[layer - 1].register_forward_hook(leave).remove)
        yield


class _EncodedError(Exception):
    """The tower has run; what comes after it is of no interest."""


class _StandIn(nn.Module):
    """Takes a tower's place and otherwise looks like it."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.__dict__["tower"] = tower  # past nn.Module, to which it would be a part

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["tower"], name)


class _Recorder(_StandIn):
    """Runs the tower and no further. Its forward rather than a call: a hook that fuses must not see this."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.__dict__["tower"].forward(*args, **kwargs)
        raise _EncodedError


class _Recorded(_StandIn):
    """Returns one map, whatever it is shown."""

    def __init__(self, adapter: TowerAdapter, tower: nn.Module, map_RTC: Tensor) -> None:
        super().__init__(tower)
        self.__dict__["made"] = (adapter, map_RTC)

    def forward(self, *_: Any, **call: Any) -> Any:
        adapter, map_RTC = self.__dict__["made"]
        states = (map_RTC,) * (adapter.vision_layers + 1)
        output = BaseModelOutputWithPooling(last_hidden_state=map_RTC, hidden_states=states)
        return adapter.replace_own(self.__dict__["tower"], output, map_RTC, call)
