"""What a crew scores at a time, one sample with all the candidates that are asked about it; and what it scores with."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch

from clasp_calib.artifacts.checkpoint_digest import weights_digest
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.feature_sources import open_source
from clasp_calib.calib.scoring.metrics import MAX_NEW_TOKENS
from clasp_calib.calib.scoring.model_settings import model_settings
from clasp_calib.calib.scoring.objective import METRIC
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.scoring.scores import Scores
from clasp_calib.common.errors import StudyError
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.decoding import Greedy
from clasp_calib.runtime.loading import load_model

_SETTINGS = {
    "config": "model configuration",
    "attention": "attention implementation",
    "pictures": "picture settings of the processor",
    "texts": "tokenizer or chat template",
}
"""What settings are called where they differ."""


@dataclass(frozen=True)
class ScoreTask:
    """Candidates to score on one sample."""

    sample: Sample
    candidates: tuple[Candidate, ...]
    pruning: Pruning

    def done_with(self, evaluator: Evaluator) -> Scores:
        """What the evaluator says of them."""
        return evaluator.scores(self.sample, self.candidates, self.pruning)


@dataclass(frozen=True)
class ModelRecipe:
    """What another process needs to load the model of this one."""

    name: str
    """Directory or Hub id, as transformers loads it."""
    device: str
    dtype: str
    weights: str
    """Digest of the weights."""
    generation: tuple[tuple[str, str], ...]
    """What answers depend on in the generation config."""
    settings: tuple[tuple[str, str], ...]
    """What `model_settings` says of the model and its processor."""
    threads: int
    """That torch computes with."""

    @classmethod
    def of(cls, model: Any, processor: Any, threads: int) -> "ModelRecipe":
        """To load a model and a processor that were loaded here."""
        return cls(
            name=model.config._name_or_path,
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            weights=weights_digest(model),
            generation=tuple(Greedy(model).settings.items()),
            settings=tuple(model_settings(model, processor).items()),
            threads=threads,
        )

    def loaded(self) -> tuple[Any, Any]:
        """The model and its processor.

        Raises:
            StudyError: the model or the processor here has other weights, or other settings, than that of the recipe.
        """
        torch.set_num_threads(self.threads)
        model, processor = load_model(self.name, self.device, self.dtype)
        here = ModelRecipe.of(model, processor, self.threads)
        found = {"weights": (here.weights, self.weights), "generation config": (here.generation, self.generation)}
        expected = dict(self.settings)
        found |= {_SETTINGS[name]: (value, expected[name]) for name, value in here.settings}
        if other := [said for said, (value, wanted) in found.items() if value != wanted]:
            raise StudyError(
                f"a worker loaded {self.name} with other {', '.join(other)} than the process that began has; give all "
                "machines the same model and processor, and save what was changed in memory with save_pretrained and "
                "load it from there, or use one worker"
            )
        return model, processor


@dataclass(frozen=True)
class PromptingRecipe:
    """What another process needs to make the tool of this one that prompts the model."""

    model: ModelRecipe
    prompt: str

    @property
    def device(self) -> str:
        """Of the model."""
        return self.model.device

    @property
    def threads(self) -> int:
        """That torch computes with."""
        return self.model.threads

    def on(self, device: str) -> Self:
        """The same for another device."""
        return replace(self, model=replace(self.model, device=device))


@dataclass(frozen=True)
class EvaluatorRecipe(PromptingRecipe):
    """What another process needs to make the evaluator of this one."""

    cache: Path | None
    layers: tuple[int, ...]
    max_new_tokens: int = MAX_NEW_TOKENS
    objective: str = METRIC

    def made(self) -> Evaluator:
        """Load the model and make the evaluator.

        Raises:
            StudyError: the model here is not that of the recipe.
        """
        model, processor = self.model.loaded()
        features = open_source(self.cache, model, processor).at(self.layers)
        return Evaluator(model, Prompter(processor, model, self.prompt), features, self.max_new_tokens, self.objective)
