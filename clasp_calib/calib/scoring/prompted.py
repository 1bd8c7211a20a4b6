"""A prompt that many candidates have gone through together, and what follows it: given answers, or generated ones.

What candidates share is computed once: the text before the picture for all samples, where nothing is pruned the picture
for all questions about it, the layers before the first stage for all ratios of a mixture, the prompt for all answers.

M mixtures, B candidates, N visual tokens of the picture, S tokens of the prompt, T tokens of an answer, V words, D
width of the decoder.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from clasp_calib.calib.scoring.cache_mark import CacheMark
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.checks import is_recurrent
from clasp_calib.runtime.deepstack import with_deepstack
from clasp_calib.runtime.tower_relevance import with_relevance

_Layers = list[tuple[Tensor, Tensor]]
"""Keys and values of every decoder layer."""


@dataclass(frozen=True)
class Picture:
    """A sample's files as the decoder sees them: for each of M mixtures the visual tokens [N, D] of every picture.

    A file is one picture as a rule, and several where a model cuts it into tiles.
    """

    visual: Sequence[Sequence[Tensor]]
    files: Sequence[int]
    """How many of these pictures each file is."""
    modality: str = "image"
    sizes: Mapping[str, Tensor] = field(default_factory=dict)
    """What the processor says of them besides their pixels."""
    deepstack: Sequence[Sequence[Tensor]] = ()
    """For each decoder layer that adds visual features to what it gives, those [N, D] of every picture."""
    relevance: Sequence[Sequence[Tensor]] = ()
    """Of every picture that it is, [N], float32, for each mixture; empty where nothing is chosen by it."""
    known_as: Hashable = None
    """What the decoder's keys and values of them are kept under for other questions; None: they are not kept."""

    @property
    def tokens(self) -> list[int]:
        """Visual tokens of every file in the prompt."""
        parts = iter(self.visual[0])
        return [sum(len(part) for part in islice(parts, pictures)) for pictures in self.files]


class Prefixes:
    """Keys and values of what stands before the question: computed once for all samples that share it.

    That is the text before the picture. The decoder looks back only, so where nothing is pruned it is the picture too.
    What other numbers of threads computed differs in the last bits and is not used.

    Args:
        model: in evaluation mode, not pruned while it is called here.
        adapter: of the model.
        kept: keep anything; otherwise every prompt is begun anew.
    """

    def __init__(self, model: Any, adapter: Adapter, kept: bool = True) -> None:
        self._model, self._adapter, self._kept = model, adapter, kept
        self._visual = set(adapter.visual_token_ids.values())
        # Our choice: one text is kept, and one picture. There are more texts only where the question stands before the
        # picture, and then they seldom come again.
        self._texts: dict[Hashable, _Layers] = {}
        self._pictures: dict[Hashable, _Layers] = {}

    def cache(self, prompt: Sequence[int], picture: Picture) -> tuple[DynamicCache, int]:
        """A new cache that holds the beginning of a prompt in all mixtures, and how many tokens that are.

        Args:
            prompt: its ids.
            picture: that of the prompt. If it is ``known_as`` something, the cache holds the prompt up to the last
                visual token, else up to the first.
        """
        visual = [place for place, token in enumerate(prompt) if token in self._visual]
        if not (visual and self._kept) or is_recurrent(self._model):  # whose states are none of tokens
            return self._filled([], len(picture.visual)), 0
        text, seen = tuple(prompt[: visual[0]]), tuple(prompt[: visual[-1] + 1])
        begun, shown = (torch.get_num_threads(), text), (torch.get_num_threads(), picture.known_as, seen)
        if text and begun not in self._texts:
            ids, filled = torch.tensor([text], device=self._model.device), self._filled([], 1)
            self._model(input_ids=ids, past_key_values=filled, use_cache=True, logits_to_keep=1)
            self._texts = {begun: _layers(filled)}
        cache = self._filled(self._texts.get(begun, []), len(picture.visual))
        if picture.known_as is None:
            return cache, len(text)
        if shown not in self._pictures:
            forward(self._model, self._adapter, seen, picture, cache, len(text), 1)
            self._pictures = {shown: _layers(cache)}
        return self._filled(self._pictures[shown], len(picture.visual)), len(seen)

    def _filled(self, layers: _Layers, rows: int) -> DynamicCache:
        cache = DynamicCache(config=self._model.config.get_text_config(decoder=True))
        if not is_recurrent(self._model):
            cache.activate_past_recording()  # or what a window has passed could not be gone back to
        for number, (key, value) in enumerate(layers):
            cache.update(key.expand(rows, -1, -1, -1), value.expand(rows, -1, -1, -1), number)
        return cache


def _layers(cache: DynamicCache) -> _Layers:
    return [(layer.keys, layer.values) for layer in cache.layers]


def forward(
    model: Any, adapter: Adapter, ids: Sequence[int], picture: Picture, cache: DynamicCache, held: int, kept: int
) -> Tensor:
    """Go through the tokens that a cache does not hold yet, and let it hold them.

    Args:
        model: in evaluation mode.
        adapter: of the model.
        ids: tokens from the first on.
        picture: the picture among them.
        cache: holds the first ``held`` of them, and with these all visual tokens or none.
        held: see ``cache``.
        kept: how many of the last tokens' logits are wanted.

    Returns:
        These logits, [B, kept, V].
    """
    ids_1S = torch.tensor([ids], device=model.device)
    mixtures, sizes = len(picture.visual), {name: size.to(ids_1S.device) for name, size in picture.sizes.items()}
    position_A1S = adapter.positions(model, ids_1S, **sizes)
    new_1S, seen = ids_1S[:, held:], {}
    if not set(ids[held:]).isdisjoint(adapter.visual_token_ids.values()):
        visual = [part for mixture in picture.visual for part in mixture]
        deepstack = [[*features] * mixtures for features in picture.deepstack]
        seen["mm_encoder_outputs"] = with_deepstack(adapter.encoder_outputs(visual, picture.modality), deepstack)
        if picture.relevance:
            with_relevance(seen["mm_encoder_outputs"], [part for rated in picture.relevance for part in rated])
    logits_BTV: Tensor = model(
        input_ids=new_1S.expand(mixtures, -1),
        position_ids=None if position_A1S is None else position_A1S[:, :, held:].expand(-1, mixtures, -1),
        **{name: value.expand(mixtures, -1) for name, value in adapter.prompt_inputs(ids_1S).items()},
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=kept,
        **seen,
    ).logits
    return logits_BTV[:, -kept:]  # MiniCPM-V gives all of them


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
        self._cache, self._held = prefixes.cache(prompt, picture)
        self._first_B1V: Tensor | None = None
        self._behind = 0
        """Tokens of an answer that the cache holds behind the prompt."""
        self._rows = 0
        self._mark: CacheMark | None = None
        """Where a recurrent decoder has all of the prompt but its last token behind it."""

    def logits(self, answer: Sequence[int]) -> Tensor:
        """Logits [B, T, V] of every token of an answer, given the prompt and the answer's tokens before it."""
        if is_recurrent(self._model):
            return self._marked_logits(answer)
        if self._first_B1V is None:
            return self._begin(answer)
        # A cropped window has no key to spare, so it is always cropped to where `generated` begins.
        again = self.prompt[-1:] if any(self._cache.is_sliding) else []
        self._crop(self._behind + len(again))
        self._behind = len(answer) - 1
        if not (ids := [*again, *answer[:-1]]):
            return self._first_B1V
        ids_BT = self._ids(ids, len(self._first_B1V))
        logits_BTV: Tensor = self._model(input_ids=ids_BT, past_key_values=self._cache, use_cache=True).logits
        return logits_BTV if again else torch.cat([self._first_B1V, logits_BTV], dim=1)

    def generated(self, **how: Any) -> Tensor:
        """Ids [B, T] of the answers that ``generate`` gives with these arguments; nothing more can be asked after."""
        if is_recurrent(self._model):
            rows = len(self._marked_logits([0]))
            assert self._mark is not None
            self._mark.back()
            return self._continued(rows, how)
        # Of an answer of one token nothing but the prompt is gone through, whatever token it is.
        rows = len(self._begin([0]) if self._first_B1V is None else self._first_B1V)
        # generate wants to see a token that is not cached.
        self._crop(self._behind + 1)
        return self._continued(rows, how)

    def _marked_logits(self, answer: Sequence[int]) -> Tensor:
        """The same where the cache cannot be cut off: the prompt's last token is gone through for every answer."""
        if self._mark is None:
            begun = forward(self._model, self._adapter, self.prompt[:-1], self._picture, self._cache, 0, 1)
            self._rows, self._mark = len(begun), CacheMark(self._cache)
        self._mark.back()
        ids_BT = self._ids([self.prompt[-1], *answer[:-1]], self._rows)
        logits_BTV: Tensor = self._model(input_ids=ids_BT, past_key_values=self._cache, use_cache=True).logits
        return logits_BTV

    def _continued(self, rows: int, how: Mapping[str, Any]) -> Tensor:
        ids_BS = self._ids(self._as_cached(), rows)
        output_BS = self._model.generate(
            input_ids=ids_BS,
            attention_mask=torch.ones_like(ids_BS),
            past_key_values=self._cache,
            **how,
        )
        generated_BT: Tensor = output_BS[:, ids_BS.shape[1] :]
        return generated_BT

    def _begin(self, answer: Sequence[int]) -> Tensor:
        ids = [*self.prompt, *answer[:-1]]
        logits_BTV = forward(self._model, self._adapter, ids, self._picture, self._cache, self._held, len(answer))
        self._first_B1V, self._behind = logits_BTV[:, :1], len(answer) - 1
        return logits_BTV

    def _as_cached(self) -> list[int]:
        """The prompt without as many visual tokens as never entered the decoder."""
        dropped = len(self.prompt) - 1 - int(self._cache.get_seq_length())
        visual = set(self._adapter.visual_token_ids.values())
        left_out = {place for place, token in enumerate(self.prompt) if token in visual}
        left_out = set(sorted(left_out)[:dropped])
        return [token for place, token in enumerate(self.prompt) if place not in left_out]

    def _crop(self, tokens: int) -> None:
        if tokens:
            self._cache.crop(-tokens)

    def _ids(self, ids: Sequence[int], rows: int) -> Tensor:
        return torch.tensor(ids, device=self._model.device).expand(rows, -1)
