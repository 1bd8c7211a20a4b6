"""How answers are decoded: greedily, and in all else as the model's own generation config says.

This is the one place that decides it, for scores as for `generate`. B rows, S tokens of a prompt, T of an answer, V
words.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from clasp_calib.common.errors import ModelError

OTHERWISE = {
    **{"do_sample": False, "num_beams": 1, "num_return_sequences": 1, "token_healing": False},
    **dict.fromkeys(("num_beam_groups", "penalty_alpha", "dola_layers", "constraints", "force_words_ids")),
    **dict.fromkeys(("guidance_scale", "watermarking_config", "max_time")),
}
"""Ways to choose tokens that are not greedy, with the value that turns each off. Our choice: none is followed, since a
score has to be the same whenever it is measured, and to depend on one path."""
WITHOUT_EFFECT = {
    **dict.fromkeys(("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")),
    **dict.fromkeys(("prompt_lookup_num_tokens", "assistant_early_exit", "use_mtp", "cache_implementation")),
    **dict.fromkeys(("max_length", "early_stopping", "length_penalty", "diversity_penalty")),
    **dict.fromkeys(("output_attentions", "output_hidden_states", "output_scores", "output_logits"), False),
    **{"use_cache": True, "return_dict_in_generate": False},
}
"""What does not change a greedy answer, with the value that keeps it out of the way."""
IDS_ASIDE = {"pad_token_id", "bos_token_id", "transformers_version", "_from_model_config", "max_new_tokens"}
SHORT = 200
"""Characters of a value that are recorded as they are."""


class Greedy:
    """Greedy decoding by a model's generation config: its ends of sequence, and its logits processors.

    Args:
        model: of transformers, with ``generate``.
        tokenizer: the model's; needed to generate where texts end an answer (``stop_strings``).

    Raises:
        ModelError: the generation config cannot be used.
    """

    def __init__(self, model: Any, tokenizer: Any = None) -> None:
        self._model, self._tokenizer = model, tokenizer
        try:
            ends = self._config(1).eos_token_id
            words = model.get_output_embeddings().weight.shape[0]
            prompt_11 = torch.zeros(1, 1, dtype=torch.long, device=model.device)
            # Some processors look only at the words of a first step whether they fit the model.
            self._processors(prompt_11, 1)(prompt_11, torch.zeros(1, words, device=model.device))
        except Exception as error:  # A file that people write by hand may fail in any way.
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(
                f"the model's generation config cannot be used ({reason}); mend its generation_config.json"
            ) from error
        given = () if ends is None else ends if isinstance(ends, list) else (ends,)
        self.ends: tuple[int, ...] = tuple(end for end in given if 0 <= end < words)
        """Ids that end an answer, of those that the model can say: generate passes over others."""

    @cached_property
    def settings(self) -> dict[str, str]:
        """Name -> value of all in the generation config that an answer depends on; of a long value its digest."""
        told = self._config(1).to_diff_dict()
        plain = self._model.generation_config._get_default_generation_params()
        aside = {*OTHERWISE, *WITHOUT_EFFECT, *IDS_ASIDE}
        return {
            name: _short(str(value))
            for name, value in sorted(told.items())
            if name not in aside and value is not None and value != plain.get(name)
        }

    @cached_property
    def stops_at_texts(self) -> bool:
        """Whether texts end an answer, so that its tokens alone do not tell where it ends."""
        return self._config(1).stop_strings is not None

    def say(self, calibrated: Mapping[str, str] | None = None) -> None:
        """Say once what the generation config asks for that is not followed.

        Args:
            calibrated: `settings` of a calibration, if they are known; what differs is said too.
        """

        # A server need not have what it is printed with.
        from clasp_calib.common.progress import note_once

        config = self._model.generation_config
        asked = {name: getattr(config, name, None) for name in OTHERWISE}
        told = [f"{name}={value}" for name, value in asked.items() if value not in (None, False, 1, OTHERWISE[name])]
        if told or config.do_sample:
            told = ["do_sample=True"] * bool(config.do_sample) + told
            note_once(
                f"the model's generation config asks for {', '.join(told)}, which is not followed: every answer here "
                "is greedy, scored and generated alike; decode with do_sample=False and num_beams=1 to get the same"
            )
        if calibrated is not None and calibrated != self.settings:
            names = sorted({*calibrated, *self.settings})
            was = {name: (calibrated.get(name, "not set"), self.settings.get(name, "not set")) for name in names}
            told = [f"{name} was {before}, is {now}" for name, (before, now) in was.items() if before != now]
            note_once(
                f"the model's generation config is not that of the calibration ({'; '.join(told)}), so its answers may "
                "differ; use the generation_config.json of the calibration, or calibrate again"
            )
        if self.stops_at_texts:
            note_once(
                "the model's generation config ends answers at stop_strings: the metric exact generates every "
                "answer, which takes longer than its one forward"
            )

    def arguments(self, max_new_tokens: int) -> dict[str, Any]:
        """Arguments for ``model.generate``."""
        config = self._model.generation_config
        own = {name: value for name, value in {**OTHERWISE, **WITHOUT_EFFECT}.items() if hasattr(config, name)}
        texts = {"tokenizer": self._tokenizer} if config.stop_strings is not None else {}
        return {**own, **texts, "max_new_tokens": max_new_tokens}

    def ended(self, ids: Sequence[int]) -> list[int]:
        """An answer's ids to the first end of sequence and with it; what follows is padding, by whatever token."""
        end = next((place for place, token in enumerate(ids) if token in self.ends), len(ids))
        return list(ids[: end + 1])

    def choices(self, prompt: Sequence[int], answer: Sequence[int], logits_BTV: Tensor, limit: int) -> Tensor:
        """The tokens [B, T + 1] that would be chosen after the prompt and each beginning of an answer.

        Args:
            prompt: S ids, visual tokens included: penalties see them as ``generate`` does.
            answer: T ids.
            logits_BTV: of T + 1 tokens, given what comes before each.
            limit: most new tokens.
        """
        scores_BTV = logits_BTV.float()  # As generate does.
        if self.settings.keys() <= {"eos_token_id"}:
            return scores_BTV.argmax(-1)
        ids_S = torch.tensor([*prompt, *answer], device=scores_BTV.device)
        processors = self._processors(ids_S[: len(prompt)].expand(len(scores_BTV), -1), limit)
        steps = [
            processors(ids_S[: len(prompt) + step].expand(len(scores_BTV), -1), scores_BTV[:, step].clone())
            for step in range(scores_BTV.shape[1])
        ]
        return torch.stack([scores_BV.argmax(-1) for scores_BV in steps], dim=1)

    def _processors(self, ids_BS: Tensor, limit: int) -> Any:
        config, length = self._config(limit), ids_BS.shape[1]
        self._model._prepare_special_tokens(config, True, device=ids_BS.device)
        config.max_length = length + limit
        if config.min_new_tokens is not None:
            config.min_length = length + config.min_new_tokens
        return self._model._get_logits_processor(
            config, input_ids_seq_length=length, encoder_input_ids=ids_BS, device=ids_BS.device
        )

    def _config(self, max_new_tokens: int) -> Any:
        arguments = self.arguments(max_new_tokens)
        arguments.pop("tokenizer", None)
        return self._model._prepare_generation_config(None, **arguments)[0]


def _short(value: str) -> str:
    return value if len(value) <= SHORT else f"sha256:{sha256(value.encode()).hexdigest()}"
