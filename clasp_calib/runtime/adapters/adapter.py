"""What the runtime asks of an architecture, and how a model of the usual make answers.

B pictures of one size, R rows that they are to the tower (tiles, frames or single patches), T patch tokens of a
picture that the projector receives, L states of the tower, C their width, N visual tokens of a picture, D width of the
decoder. A *modality* is ``image`` or ``video``; a video is one picture here.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from clasp_calib.common.errors import ModelError
from clasp_calib.common.pruning_options import CLASS_TOKEN, MEAN_ATTENTION, NONE, PROFILES
from clasp_calib.runtime.adapters.layout import Layout
from clasp_calib.runtime.adapters.towers import EncodedError, Recorded, Recorder, recorded_states, replaced


class Adapter:
    """Made from a configuration; every method takes the model, which the adapter does not keep.

    ``model.model`` has a ``language_model``, towers named in ``towers``, and a ``get_<modality>_features`` for each of
    them. A subclass says in ``__init__`` what the configuration tells, and overrides what differs.
    """

    towers: Mapping[str, str] = {"image": "vision_tower"}
    """For every modality the attribute of ``model.model`` that encodes its pixels; modalities may share it."""
    pixel_names: Mapping[str, str] = {"image": "pixel_values"}
    """For every modality the argument that ``forward`` takes its pixels in."""
    size_names: Mapping[str, Sequence[str]] = {"image": (), "video": ()}
    """For every modality the ``sizes`` that `capture` and `project` take, as the processor names them."""
    visual_token_ids: Mapping[str, int]
    """For every modality the id that stands for one visual token in ``input_ids``."""
    ragged = False
    """Whether pictures differ in their number of visual tokens."""
    patched = False
    """Whether the processor cuts pictures into patches, and leaves each its own size."""
    laid_out = False
    """Whether `layouts` is known, without which no peer prunes before the decoder."""
    profiles: Sequence[str] = PROFILES
    """Where tokens may be dropped, see `clasp_calib.common.pruning_options.PruningOptions`."""
    class_tokens = 0
    """Tokens at the head of a tower's state that stand for no patch: 1, or 0 if the tower has none."""
    taps: Sequence[int] = ()
    """States that the model projects beside its own layer's, see `deepstack`."""
    vision_layers: int
    """L_v, the blocks of the tower; its states are 0..L_v, 0 being what enters the first block."""
    own_layer: int
    """The state that the unmodified model projects, counted from 0."""
    decoder_layers: int
    """Decoder layers of the language model."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.visual_token_ids = {modality: getattr(config, f"{modality}_token_id") for modality in self.towers}
        self.decoder_layers = config.text_config.num_hidden_layers

    @property
    def tokens_per_image(self) -> int:
        """N, the visual tokens of one picture.

        Raises:
            ModelError: it differs from picture to picture.
        """
        raise ModelError(
            f"pictures of a {self.config.model_type} model differ in their number of visual tokens; "
            "give budgets in percent, and do not ask for one number"
        )

    @property
    def films(self) -> str | None:
        """The modality that a video is to the model, which may be that of images; ``None`` if it takes none."""
        return "video" if "video" in self.towers else None

    @property
    def tile_tokens(self) -> int | None:
        """Visual tokens of one row of pixels, where all have as many; ``None`` where they differ."""
        return None if self.ragged else self.tokens_per_image

    @property
    def patch_tokens(self) -> int | None:
        """R x T of what one file becomes to the tower; ``None`` where files differ in it."""
        return None

    @property
    def vision_width(self) -> int:
        """C, which most towers call ``hidden_size``."""
        return int(self.config.vision_config.hidden_size)

    @property
    def relevances(self) -> Sequence[str]:
        """What relevance in the profile ``input`` may come from, the default first."""
        return (CLASS_TOKEN, MEAN_ATTENTION, NONE) if self.class_tokens else (MEAN_ATTENTION, NONE)

    @property
    def attention_block(self) -> int:
        """The last block before the projector in which every patch of a tile attends to every other."""
        return self.own_layer - 1

    def language_model(self, model: nn.Module) -> nn.Module:
        """The text model: it has ``layers``, ``rotary_emb`` and ``config``."""
        return self.multimodal_model(model).get_submodule("language_model")

    def multimodal_model(self, model: nn.Module) -> nn.Module:
        """The module whose forward is given ``input_ids`` together with pictures or their features."""
        inner = model.model
        assert isinstance(inner, nn.Module)
        return inner

    def vision_tower(self, model: nn.Module, modality: str = "image") -> nn.Module:
        """The module that encodes pixels of a modality."""
        return self.multimodal_model(model).get_submodule(self.towers[modality])

    def vision_blocks(self, model: nn.Module, modality: str = "image") -> Sequence[nn.Module]:
        """The L_v blocks of the tower, each of which returns its state [R, T, C] or [R, C]."""
        raise NotImplementedError

    def tower_attention(self, block: nn.Module) -> nn.Module:
        """The attention module of a block of the tower."""
        raise NotImplementedError

    def by_picture(self, parts: Sequence[Tensor], inputs: Mapping[str, Any], modality: str) -> list[Tensor]:
        """Queries or keys of a block of the tower, picture by picture: [tiles or frames, heads, tokens, width].

        Args:
            parts: as the calls of the block's attention had them.
            inputs: arguments of ``forward``.
            modality: ``image`` or ``video``.
        """
        return list(torch.split(torch.cat(list(parts)), self.rows(inputs, modality)))

    def token_values(
        self, model: nn.Module, values: Sequence[Tensor], inputs: Mapping[str, Any], modality: str
    ) -> list[Tensor]:
        """A number for every visual token [N] of each picture, from one for every patch of its tiles or frames.

        Tokens that stand for no patch get 0, those of several patches the mean.

        Args:
            model: what the adapter is for.
            values: of each picture, float32 [tiles or frames, patches].
            inputs: arguments of ``forward``.
            modality: ``image`` or ``video``.
        """
        raise NotImplementedError

    def rows(self, inputs: Mapping[str, Any], modality: str = "image") -> list[int]:
        """R of every picture, from the arguments of ``forward``: one, unless a subclass knows better."""
        return [1] * len(inputs[self.pixel_names[modality]])

    def check_arguments(self, inputs: Mapping[str, Any]) -> None:
        """Refuse, by a `ModelError`, arguments of ``forward`` and ``generate`` that the adapter does not follow."""

    def pictures(self, inputs: Mapping[str, Any], modality: str = "image") -> int:
        """B, as which `capture` gives the pictures in the arguments of ``forward``.

        Raises:
            ModelError: they are not of one size.
        """
        rows = self.rows(inputs, modality)
        if len(set(rows)) > 1:
            raise ModelError(f"these pictures are of different sizes ({rows} rows); capture pictures of one size")
        return len(rows)

    def tokens(self, model: nn.Module, inputs: Mapping[str, Any], modality: str = "image") -> list[int]:
        """N of every picture, from the arguments of ``forward``."""
        return [self.tokens_per_image] * len(self.rows(inputs, modality))

    def tokens_of(
        self, model: nn.Module, pictures: int, patches: int, modality: str = "image", **sizes: Tensor
    ) -> list[int]:
        """N of every picture, of which together ``patches`` patch tokens were captured; ``sizes`` as in `capture`."""
        rows = patches // (pictures * self._row_tokens(modality))
        pixels = torch.empty(pictures, rows, device="meta")
        return self.tokens(model, {self.pixel_names[modality]: pixels, **sizes}, modality)

    def grid(self, inputs: Mapping[str, Any]) -> tuple[int, int]:
        """Rows and columns of the visual tokens over the one image in the arguments of ``forward``.

        Raises:
            ModelError: they are not such a grid, or there are several images.
        """
        images = len(self.rows(inputs))
        tokens = self.tile_tokens or 0
        side = math.isqrt(tokens)
        if images != 1 or side == 0 or side**2 != tokens:
            raise ModelError(
                f"the visual tokens of {images} picture(s) of this {self.config.model_type} model are not one grid "
                "over a picture; drop --overlay, or use one picture of a model without tiles"
            )
        return side, side

    def layouts(self, model: nn.Module, inputs: Mapping[str, Any]) -> list[Layout]:
        """The `Layout` of every image in the arguments of ``forward``.

        Raises:
            ModelError: some visual tokens stand for no patch.
        """
        raise NotImplementedError

    def positions(self, model: nn.Module, ids_BS: Tensor, **sizes: Tensor) -> Tensor | None:
        """Position ids [axes, B, S] of unpadded prompts with pictures, where they have several axes; else ``None``.

        A forward that begins behind a cached prefix must be given them. The model notes how far they lag behind the
        count of tokens, as its own forward does, so that later calls can go on from the cache.

        Args:
            model: what the adapter is for.
            ids_BS: the whole prompts.
            sizes: what the processor says of the pictures, such as ``image_grid_thw``.
        """
        return None

    def prompt_inputs(self, ids_BS: Tensor) -> dict[str, Tensor]:
        """Arguments of ``forward`` that a processor makes of whole prompts besides their ids and positions."""
        return {}

    def masks(
        self, model: nn.Module, inputs: Mapping[str, Any], visual_BT: Tensor, call: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What a decoder must be told besides once tokens are dropped before it, where its model makes masks for it.

        Args:
            model: what the adapter is for.
            inputs: arguments of the model's ``forward``.
            visual_BT: bool, the keys that are visual tokens of this call.
            call: arguments of the decoder's, tokens already dropped.
        """
        return {}

    def aligned(self, state: Tensor, layer: int, call: Mapping[str, Any]) -> Tensor:
        """A layer's state in the shape and with the tokens of ``own_layer``'s; ``call`` as in `replace_own`."""
        return state

    def replace_own(self, tower: nn.Module, output: Any, fused: Tensor, call: Mapping[str, Any]) -> Any:
        """The tower's ``output`` as it would be if its own layer's state were ``fused``.

        Args:
            tower: as `vision_tower` gives it.
            output: what it returned.
            fused: in the shape that `aligned` gives.
            call: keyword arguments that the tower was called with.
        """
        raise NotImplementedError

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
            layers: which of the states 0..L_v, in the order that they are wanted; ``None`` for all.
            sizes: what else the processor says of these pictures, such as ``image_sizes`` or ``image_grid_thw``.

        Raises:
            ModelError: the pictures are not of one size.
        """
        wanted = range(self.vision_layers + 1) if layers is None else layers
        pictures = self.pictures({self.pixel_names[modality]: pixels, **sizes}, modality)
        states: dict[int, Tensor] = {}
        with (
            recorded_states(self.vision_blocks(model, modality), wanted, states),
            replaced(self.multimodal_model(model), self.towers[modality], Recorder(self.vision_tower(model, modality))),
            suppress(EncodedError),
        ):
            self.features(model, pixels, modality, sizes)
        cut = self._cut(modality)
        maps = [self.aligned(states[layer], layer, sizes) for layer in wanted]
        maps = [map_RTC.reshape(len(map_RTC), -1, map_RTC.shape[-1])[:, cut:] for map_RTC in maps]
        return torch.stack([map_RTC.reshape(pictures, -1, map_RTC.shape[-1]) for map_RTC in maps], dim=1)

    def project(self, model: nn.Module, fused_BTC: Tensor, modality: str = "image", **sizes: Tensor) -> list[Tensor]:
        """Visual tokens [N, D] of every picture from its fused patch tokens; ``sizes`` as in `capture`.

        Through transformers' own ``get_<modality>_features``, its tower replaced meanwhile.
        """
        tower: Any = self.vision_tower(model, modality)
        weight = next(tower.parameters())
        map_RTC = self._map(fused_BTC.to(weight.device, weight.dtype), modality)
        states = (map_RTC,) * (self.vision_layers + 1)

        def made(call: Mapping[str, Any]) -> Any:
            output = BaseModelOutputWithPooling(last_hidden_state=map_RTC, hidden_states=states)
            return self.replace_own(tower, output, map_RTC, call)

        with replaced(self.multimodal_model(model), self.towers[modality], Recorded(tower, made)):
            pixels = self._blank_pixels(fused_BTC, map_RTC, modality)
            pooled = self.features(model, pixels, modality, sizes).pooler_output
        return self._pictures(pooled, len(fused_BTC))

    def deepstack(self, model: nn.Module, states_KBTC: Tensor, modality: str = "image") -> list[list[Tensor]]:
        """What the decoder adds to its first layers, one layer after the other: [N, D] of every picture.

        Args:
            model: what the adapter is for.
            states_KBTC: the states ``taps`` of every picture, as `capture` gives them.
            modality: ``image`` or ``video``.

        Returns:
            K lists of B tensors, as `clasp_calib.runtime.deepstack.with_deepstack` takes them; none without ``taps``.
        """
        return []

    def encoder_outputs(self, features: Sequence[Tensor], modality: str = "image") -> dict[str, Any]:
        """A fresh ``mm_encoder_outputs`` for ``forward`` or ``generate``; the pictures in order of rows.

        Fresh, because ``generate`` with beams writes into what it is given: make one for every call. A model with
        ``taps`` takes it with `clasp_calib.runtime.deepstack.with_deepstack`.
        """
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

    def features(self, model: nn.Module, pixels: Tensor, modality: str, sizes: Mapping[str, Tensor]) -> Any:
        """What transformers' own ``get_<modality>_features`` returns; ``sizes`` as in `capture`."""
        getter = getattr(self.multimodal_model(model), f"get_{modality}_features")
        placed = {name: size.to(pixels.device) for name, size in sizes.items()}
        return getter(**{self.pixel_names[modality]: pixels}, **placed, return_dict=True)
