"""A prompt that many candidates have gone through together, and what follows it: given answers, or generated ones.

What candidates share is computed once: the text before the picture for all samples, the layers before the first stage
for all ratios of a mixture, the prompt for all answers.

M mixtures, B candidates, N visual tokens of the picture, S tokens of the prompt, T tokens of an answer, V words, D
width of the decoder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from clasp_calib.runtime.adapters.adapter import Adapter


class Prefixes:
    """Keys and values of the text before the picture, which is the same for all samples of a template.

    Args:
        model: in evaluation mode, not pruned while it is called here.
        adapter: of the model.
    """

    def __init__(self, model: Any, adapter: Adapter) -> None:
        self._model = model
        self._visual = set(adapter.visual_token_ids.values())
        self._known: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}

    def cache(self, prompt: Sequence[int], rows: int) -> tuple[DynamicCache, int]:
        """A new cache that holds the prompt's text before its first visual token, and how many tokens that are."""
        length = next((place for place, token in enumerate(prompt) if token in self._visual), 0)
        cache = DynamicCache(config=self._model.config.get_text_config(decoder=True))
        if length:
            for layer, (key, value) in enumerate(self._of(tuple(prompt[:length]))):
                cache.update(key.expand(rows, -1, -1, -1), value.expand(rows, -1, -1, -1), layer)
        return cache, length

    def _of(self, prefix: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
        if prefix not in self._known:
            # Our choice: one prefix is kept. There are more only where the question stands before the picture, and
            # then they seldom come again.
            self._known.clear()
            ids = torch.tensor([prefix], device=self._model.device)
            layers = self._model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values.layers
            self._known[prefix] = [(layer.keys, layer.values) for layer in layers]
        return self._known[prefix]


@dataclass(frozen=True)
class Picture:
    """One file as the decoder sees it: for each of M mixtures the visual tokens [N, D] of every picture that it is."""

    visual: Sequence[Sequence[Tensor]]
    modality: str = "image"
    sizes: Mapping[str, Tensor] = field(default_factory=dict)
    """What the processor says of it besides its pixels."""

    @property
    def tokens(self) -> int:
        """Visual tokens in the prompt."""
        return sum(len(part) for part in self.visual[0])


class Prompted:
    """One prompt with a picture in M mixtures, which B candidates go on from.

    Everything is called within the pruning of the candidates, or without any, and then B is M.

    Args:
        model: in evaluation mode.
        adapter: of the model.
        prompt: its ids.
        picture: what its visual tokens are.
        prefixes: of the model.
    """

    def __init__(
        self, model: Any, adapter: Adapter, prompt: Sequence[int], picture: Picture, prefixes: Prefixes
    ) -> None:
        self._model, self._adapter = model, adapter
        self.prompt, self._picture = list(prompt), picture
        self._cache, self._prefix = prefixes.cache(prompt, len(picture.visual))
        self._first_B1V: Tensor | None = None
        self._behind = 0
        """Tokens of an answer that the cache holds behind the prompt."""

    def logits(self, answer: Sequence[int]) -> Tensor:
        """Logits [B, T, V] of every token of an answer, given the prompt and the answer's tokens before it."""
        if self._first_B1V is None:
            return self._begin(answer)
        self._crop(self._behind)
        self._behind = len(answer) - 1
        if len(answer) == 1:
            return self._first_B1V
        ids_BT = self._ids(answer[:-1], len(self._first_B1V))
        logits_BTV = self._model(input_ids=ids_BT, past_key_values=self._cache, use_cache=True).logits
        return torch.cat([self._first_B1V, logits_BTV], dim=1)

    def generated(self, **how: Any) -> Tensor:
        """Ids [B, T] of the answers that ``generate`` gives with these arguments; nothing more can be asked after."""
        # Of an answer of one token nothing but the prompt is gone through, whatever token it is.
        rows = len(self._begin([0]) if self._first_B1V is None else self._first_B1V)
        # generate wants to see a token that is not cached.
        self._crop(self._behind + 1)
        ids_BS = self._ids(self.prompt, rows)
        output_BS = self._model.generate(
            input_ids=ids_BS,
            attention_mask=torch.ones_like(ids_BS),
            past_key_values=self._cache,
            **how,
        )
        generated_BT: Tensor = output_BS[:, ids_BS.shape[1] :]
        return generated_BT

    def _begin(self, answer: Sequence[int]) -> Tensor:
        ids_1S = self._ids([*self.prompt, *answer[:-1]], 1)
        sizes = {name: size.to(ids_1S.device) for name, size in self._picture.sizes.items()}
        position_A1S = self._adapter.positions(self._model, ids_1S, **sizes)
        mixtures = len(self._picture.visual)
        position_AMS = None if position_A1S is None else position_A1S[:, :, self._prefix :].expand(-1, mixtures, -1)
        visual = [part for mixture in self._picture.visual for part in mixture]
        logits_BTV: Tensor = self._model(
            input_ids=ids_1S[:, self._prefix :].expand(mixtures, -1),
            position_ids=position_AMS,
            mm_encoder_outputs=self._adapter.encoder_outputs(visual, self._picture.modality),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=len(answer),
        ).logits
        self._first_B1V, self._behind = logits_BTV[:, :1], len(answer) - 1
        return logits_BTV

    def _crop(self, tokens: int) -> None:
        if tokens:
            self._cache.crop(-tokens)

    def _ids(self, ids: Sequence[int], rows: int) -> Tensor:
        return torch.tensor(ids, device=self._model.device).expand(rows, -1)
