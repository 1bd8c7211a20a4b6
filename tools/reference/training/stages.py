"""The stages of a training of the embedded model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import CLIPVisionModel, LlamaForCausalLM
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from tools.reference import shape
from tools.reference.export import export
from tools.reference.training import decoder as decoding, joint, tower
from tools.reference.training.batches import ALL, OWN, Batch, Batches
from tools.reference.training.corpus import Corpus, make_tokenizer
from tools.reference.training.curves import plot_curves
from tools.reference.training.optimizer import MasterAdamW, to_bfloat16
from tools.reference.training.packing import Packer
from tools.reference.training.recipe import SIZES, VALIDATION_SEED, Recipe
from tools.reference.training.workshop import Workshop, save

STAGES = ("tower", "features", "oracle", "joint")
"""Where a training can stop, in order."""
START = "start"
"""The finished decoder and projector that joint training goes on with are kept like a stage of this name."""
TOKENIZER = "tokenizer.json"
TOWER_FILES = ("tower.pt", "features-train.npy", "features-validation.npy")
"""What the stages up to the features leave in a work directory."""


class Training(Workshop):
    """The stages over one work directory.

    Args:
        recipe: what to train.
        work: where the stages are kept.
        device: trains.
        workers: processes that draw pictures and questions; with none this process does.

    Raises:
        InputError: the directory holds stages of another recipe.
    """

    def __init__(self, recipe: Recipe, work: Path, device: str = "cpu", workers: int = 0):
        super().__init__(vars(recipe), work, device, workers, recipe.checkpoint)
        self.recipe = recipe

    @cached_property
    def corpus(self) -> Corpus:
        """All training scenes."""
        return Corpus(0, self.recipe.scenes)

    @cached_property
    def drawn(self) -> Corpus:
        """The scenes whose pictures are encoded for the joint stage."""
        return Corpus(0, self.recipe.pictures)

    @cached_property
    def validation(self) -> Corpus:
        """Scenes of none of the benchmark's splits, to watch training with."""
        return Corpus(VALIDATION_SEED, self.recipe.validation)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        path = self.work / TOKENIZER
        if path.exists():
            return shape.as_tokenizer(Tokenizer.from_file(str(path)))
        tokenizer = make_tokenizer(min(2000, self.recipe.scenes))
        path.write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
        return tokenizer

    @cached_property
    def packer(self) -> Packer:
        """Packs questions."""
        return Packer(self.tokenizer)

    def _seed(self, stage: int, seed: int | None = None) -> int:
        seed = (self.recipe.seed if seed is None else seed) + stage
        torch.manual_seed(seed)
        return seed

    @cached_property
    def tower(self) -> CLIPVisionModel:
        """Stage 0."""
        path, seed = self.work / "tower.pt", self._seed(0, self.recipe.tower_seed)
        vision, heads = tower.make_tower().to(self._device), tower.make_heads().to(self._device)
        if path.exists():
            vision.load_state_dict(self.load(path)["tower"])
            return vision
        steps = self.recipe.tower_steps
        looks = self.over(tower.Looks(self.corpus, seed), range(steps))
        self.follow("tower", tower.train_tower(vision, heads, looks, steps), steps)
        for layer, _, _ in tower.SUPERVISED:
            read = tower.patch_accuracy(vision, heads, self.validation, layer)
            self.log("tower", layer=layer, accuracy={k: round(v, 3) for k, v in read.items()})
        save({"tower": vision.state_dict(), "heads": heads.state_dict()}, path)
        return vision

    def features(self, name: str, corpus: Corpus) -> torch.Tensor:
        """What the tower makes of a corpus, ``[pictures, layers, 576, D]`` float16, on the device."""
        path = self.work / f"features-{name}.npy"
        if not path.exists():
            album = joint.Album(corpus)
            joint.save_features(joint.encoder(self.tower), self.over(album, album.steps), (corpus.size, ALL), path)
        # Copy on write, so that torch need not warn of memory that it must not change.
        return torch.from_numpy(np.load(path, mmap_mode="c")).to(self._device)

    def _decoder(self) -> LlamaForCausalLM:
        return decoding.make_decoder(len(self.tokenizer), SIZES[self.recipe.size])

    @cached_property
    def spoken(self) -> tuple[LlamaForCausalLM, decoding.Oracle]:
        """Stage 1: decoder and oracle."""
        seed = self._seed(1)
        decoder, oracle = self._decoder(), decoding.Oracle(SIZES[self.recipe.size].width)
        oracle.speak(decoder, self.tokenizer)
        decoder, oracle = to_bfloat16(decoder).to(self._device), to_bfloat16(oracle).to(self._device)
        batches = Batches(self.corpus, self.packer, joint.oracle_counts, decoding.ask, seed, self.recipe.many)
        vision, parts = joint.oracle_vision(oracle), {"decoder": decoder, "oracle": oracle}
        watch = partial(self._validate, "oracle", decoder, vision, OWN)
        self._train("oracle", parts, vision, batches, self.recipe.oracle_steps, 2e-3, watch)
        return decoder, oracle

    @cached_property
    def joined(self) -> tuple[CLIPVisionModel, LlamaForCausalLM, LlavaMultiModalProjector]:
        """Stages 2 and 3: the finished parts."""
        recipe, seed = self.recipe, self._seed(2)
        stage = "late" if recipe.start else "joint"
        config = shape.llava_config(len(self.tokenizer), SIZES[recipe.size])
        projector = to_bfloat16(LlavaMultiModalProjector(config)).to(self._device)
        if self.finished(stage, recipe.joint_steps):
            decoder = to_bfloat16(self._decoder()).to(self._device)
            self.restore(stage, {"decoder": decoder, "projector": projector})
            return self.tower, decoder, projector
        features = self.features("train", self.drawn)
        vision = joint.tower_vision(projector, features)
        if recipe.start:
            decoder = to_bfloat16(self._decoder()).to(self._device)
            self.restore(START, {"decoder": decoder, "projector": projector})
        else:
            decoder, oracle = self.spoken
            if not (self.work / "joint.pt").exists():
                steps = recipe.projector_steps
                shows = self.over(joint.Shows(self.drawn, seed), range(steps))
                regression = joint.train_projector(projector, vision, joint.oracle_vision(oracle), shows, steps)
                self.follow("projector", regression, steps)
        batches = Batches(
            self.drawn, self.packer, joint.joint_counts, joint.ask, self._seed(4 if recipe.start else 3), recipe.many
        )
        parts = {"decoder": decoder, "projector": projector}

        def watch() -> None:
            watched = joint.tower_vision(projector, self.features("validation", self.validation))
            for mixture in (OWN, joint.MIXTURES[1]):
                self._validate(stage, decoder, watched, mixture)

        self._train(stage, parts, vision, batches, recipe.joint_steps, recipe.joint_rate, watch)
        return self.tower, decoder, projector

    def _train(
        self,
        stage: str,
        parts: Mapping[str, torch.nn.Module],
        vision: decoding.Vision,
        batches: Batches,
        steps: int,
        rate: float,
        watch: Callable[[], None],
    ) -> None:
        def train(optimizer: MasterAdamW, drawn: Iterator[Batch], left: range) -> Iterator[tuple[int, decoding.Losses]]:
            return decoding.train_decoder(parts["decoder"], self.packer.prefix, vision, optimizer, drawn, left)

        self.train(stage, parts, batches, steps, rate, train, watch)

    def _validate(
        self, stage: str, decoder: LlamaForCausalLM, vision: decoding.Vision, mixture: Sequence[float]
    ) -> None:
        for count in (ALL, 96):
            scores = decoding.accuracy(decoder, self.packer, vision, self.validation, mixture, count)
            rounded = {k: round(v, 3) for k, v in scores.items()}
            self.log(stage, visual_tokens=count, mixture=mixture, accuracy=rounded)

    def until(self, stage: str) -> None:
        """The stages up to one of `STAGES`, without an export."""
        if stage in ("tower", "features"):
            _ = self.tower
        if stage == "features":
            self.features("train", self.drawn)
            self.features("validation", self.validation)
        if stage == "oracle":
            _ = self.spoken
        if stage == "joint":
            _ = self.joined

    def run(self, out: Path) -> None:
        """All stages, then the export and the curves."""
        vision, decoder, projector = (part.cpu() for part in self.joined)
        export(vision, projector, decoder, self.tokenizer, out)
        plot_curves(self.work / "log.jsonl", self.work / "curves.png")
