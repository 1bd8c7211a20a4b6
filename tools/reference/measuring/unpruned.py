"""Unpruned scores of many questions about one picture, which its decoder's keys and values are computed once for.

The picture stands before the question, and the decoder looks back only: so what it makes of the picture is the same
for all questions. Scores are `clasp_calib.calib.scoring.evaluator.Evaluator`'s, at a fraction of the cost.

P tokens up to the picture's last, S of the longest question and answer behind it, T of one answer, V words.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from clasp_calib.calib.scoring.features import Features
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters import adapter_for
from tools.reference.measuring.settings import Alpha

ROWS = 12
"""Questions of one forward. Our choice: their copies of the keys and values stay small."""


class SharedPicture:
    """Scores questions about one picture at a time by the metric ``exact``.

    Args:
        model: in evaluation mode, reads one picture before the question.
        prompter: of the same model.
        features: hold the model's own layer.
    """

    def __init__(self, model: Any, prompter: Prompter, features: Features) -> None:
        self._model, self._prompter, self._features = model, prompter, features
        self._adapter = adapter_for(model)
        self._known: dict[tuple[str, Alpha], list[tuple[Tensor, Tensor]]] = {}

    @torch.inference_mode()
    def hits(self, picture: Sample, questions: Sequence[Sample], alpha: Alpha | None = None) -> list[float]:
        """1 for each question whose greedy answer, end of sequence included, is an accepted one, else 0.

        Args:
            picture: a sample whose picture is looked at.
            questions: what is asked; their own pictures are not looked at.
            alpha: mixture over ``hidden_states`` 0..L_v that it is looked at through; the own layer if ``None``.

        Raises:
            CacheError: the picture is not cached.
        """
        if alpha is None:
            layers = range(self._adapter.vision_layers + 1)
            alpha = tuple(float(layer == self._adapter.own_layer) for layer in layers)
        head, end = self._head(picture), self._prompter.tokenizer.eos_token_id
        rows = [
            (number, self._prompter.prompt(q.question)[len(head) :], [*self._prompter.answer(q.question, answer), end])
            for number, q in enumerate(questions)
            for answer in dict.fromkeys(q.answers)
        ]
        right = [0.0] * len(questions)
        for start in range(0, len(rows), ROWS):
            part = rows[start : start + ROWS]
            for (number, tail, answer), logits_SV in zip(part, self._logits(picture, alpha, head, part), strict=True):
                said_T = logits_SV[len(tail) - 1 : len(tail) - 1 + len(answer)].argmax(-1)
                right[number] = max(right[number], float(said_T.tolist() == answer))
        return right

    def _head(self, picture: Sample) -> list[int]:
        """Ids of the prompt up to the picture's last token."""
        prompt, visual = self._prompter.prompt(picture.question), set(self._adapter.visual_token_ids.values())
        return prompt[: max(place for place, token in enumerate(prompt) if token in visual) + 1]

    def _logits(
        self, picture: Sample, alpha: Alpha, head: Sequence[int], rows: Sequence[tuple[int, list[int], list[int]]]
    ) -> Tensor:
        """Logits [rows, S, V] behind the picture; what is behind a row's own end means nothing."""
        texts = [[*tail, *answer[:-1]] for _, tail, answer in rows]
        longest = max(map(len, texts))
        # Padded on the right, where nothing that matters looks.
        ids = torch.tensor([text + text[-1:] * (longest - len(text)) for text in texts], device=self._model.device)
        cache = DynamicCache(config=self._model.config.get_text_config(decoder=True))
        for layer, (key, value) in enumerate(self._seen(picture, alpha, head)):
            cache.update(key.expand(len(rows), -1, -1, -1), value.expand(len(rows), -1, -1, -1), layer)
        logits: Tensor = self._model(input_ids=ids, past_key_values=cache, use_cache=True).logits
        return logits

    def _seen(self, picture: Sample, alpha: Alpha, head: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of every decoder layer behind the picture; two pictures are remembered."""
        name = self._features.key(picture), alpha
        if name not in self._known:
            if len(self._known) == 2:
                del self._known[next(iter(self._known))]
            alpha_1l = torch.tensor([[alpha[layer] for layer in self._features.layers]])
            fused_1TC, origin = self._features.fused(picture, alpha_1l), self._features.origin(picture)
            place = next(self._adapter.vision_tower(self._model, origin.modality).parameters())
            (visual,) = origin.project(self._adapter, self._model, fused_1TC.to(place.device, place.dtype))
            cached = self._model(
                input_ids=torch.tensor([head], device=self._model.device),
                mm_encoder_outputs=self._adapter.encoder_outputs(visual, origin.modality),
                use_cache=True,
                logits_to_keep=1,
            ).past_key_values
            self._known[name] = [(layer.keys, layer.values) for layer in cached.layers]
        return self._known[name]
