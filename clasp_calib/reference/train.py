"""``python -m clasp_calib.reference.train``: make the reference model from nothing, deterministically by seed.

Stages: a tokenizer; the vision tower on dense patch labels; the decoder on oracle tokens; the tower's features of all
pictures; the projector by regression; projector and decoder together; the export to a directory that transformers
loads. What takes long is kept in the work directory and not made again; the two decoder stages go on from their last
checkpoint when they were interrupted, with the result of an uninterrupted run.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPVisionModel, LlamaForCausalLM
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from clasp_calib.common.errors import InputError
from clasp_calib.common.progress import track
from clasp_calib.common.scripts import ended
from clasp_calib.reference import model as shape
from clasp_calib.reference.export import export
from clasp_calib.reference.questions import Question
from clasp_calib.reference.training import decoder as decoding
from clasp_calib.reference.training import joint, tower
from clasp_calib.reference.training.corpus import Corpus, make_tokenizer
from clasp_calib.reference.training.curves import plot_curves
from clasp_calib.reference.training.optimizer import MasterAdamW, to_bfloat16
from clasp_calib.reference.training.packing import Packer

VALIDATION_SEED = 5_000_000


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out. Stage n draws from ``seed + n``; the tower's is ``tower_seed``."""

    seed: int = 0
    tower_seed: int = 0
    scenes: int = 30_000
    pictures: int = 6_000
    validation: int = 60
    checkpoint: int = 200
    tower_steps: int = 2_000
    oracle_steps: int = 2_400
    projector_steps: int = 6_000
    joint_steps: int = 2_000


TINY = Recipe(
    scenes=64,
    pictures=40,
    validation=4,
    checkpoint=2,
    tower_steps=3,
    oracle_steps=3,
    projector_steps=3,
    joint_steps=3,
)
"""Three steps of everything: what the tests run."""
TOWER_FILES = ("tower.pt", "features-train.npy", "features-validation.npy")


class Training:
    """The stages over one work directory.

    Raises:
        InputError: the directory holds stages of another recipe.
    """

    def __init__(self, recipe: Recipe, work: Path):
        self.recipe, self.work = recipe, work
        work.mkdir(parents=True, exist_ok=True)
        mark, wanted = work / "recipe.json", json.dumps(vars(recipe), sort_keys=True)
        if mark.exists() and mark.read_text(encoding="utf-8") != wanted:
            raise InputError(f"{work} holds the stages of another recipe; give another --work, or remove it")
        mark.write_text(wanted, encoding="utf-8")
        self._begun = time.process_time()

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
        return make_tokenizer(min(2000, self.recipe.scenes))

    @cached_property
    def packer(self) -> Packer:
        """Packs questions."""
        return Packer(self.tokenizer)

    def log(self, **event: Any) -> None:
        """One line in ``log.jsonl``, with the processor seconds spent so far in this sitting."""
        event["cpu_seconds"] = round(time.process_time() - self._begun, 1)
        with (self.work / "log.jsonl").open("a") as file:
            file.write(json.dumps(event) + "\n")

    def _follow(self, stage: str, steps: Iterator[tuple[int, float]], total: int) -> None:
        mean = None
        for step, loss in track(steps, stage, total):
            mean = loss if mean is None else 0.98 * mean + 0.02 * loss
            if step % 50 == 0 or step == total - 1:
                self.log(stage=stage, step=step, loss=round(mean, 4))

    def _seed(self, stage: int, seed: int | None = None) -> int:
        seed = (self.recipe.seed if seed is None else seed) + stage
        torch.manual_seed(seed)
        return seed

    @cached_property
    def tower(self) -> CLIPVisionModel:
        """Stage 0."""
        path, seed = self.work / "tower.pt", self._seed(0, self.recipe.tower_seed)
        vision, heads = tower.make_tower(), tower.make_heads()
        if path.exists():
            vision.load_state_dict(torch.load(path, weights_only=True)["tower"])
            return vision
        steps = self.recipe.tower_steps
        self._follow("tower", tower.train_tower(vision, heads, self.corpus, steps, seed), steps)
        for layer, _, _ in tower.SUPERVISED:
            read = tower.patch_accuracy(vision, heads, self.validation, layer)
            self.log(stage="tower", layer=layer, accuracy={k: round(v, 3) for k, v in read.items()})
        _save({"tower": vision.state_dict(), "heads": heads.state_dict()}, path)
        return vision

    @cached_property
    def spoken(self) -> tuple[LlamaForCausalLM, decoding.Oracle]:
        """Stage 1: decoder and oracle."""
        seed = self._seed(1)
        decoder, oracle = decoding.make_decoder(len(self.tokenizer)), decoding.Oracle()
        oracle.speak(decoder, self.tokenizer)
        decoder, oracle = to_bfloat16(decoder), to_bfloat16(oracle)
        trained = self._train(
            "oracle",
            decoder,
            {"decoder": decoder, "oracle": oracle},
            joint.oracle_vision(oracle, self.corpus),
            self.corpus,
            joint.oracle_counts,
            lambda index, rng: decoding.ask(self.corpus, index, rng),
            self.recipe.oracle_steps,
            2e-3,
            seed,
        )
        if trained:
            self._validate("oracle", decoder, joint.oracle_vision(oracle, self.validation))
        return decoder, oracle

    def _features(self, name: str, corpus: Corpus) -> np.ndarray:
        path = self.work / f"features-{name}.npy"
        if not path.exists():
            joint.save_features(self.tower, corpus, path)
        loaded: np.ndarray = np.load(path, mmap_mode="r")
        return loaded

    @cached_property
    def joined(self) -> tuple[CLIPVisionModel, LlamaForCausalLM, LlavaMultiModalProjector]:
        """Stages 2 and 3: the finished parts."""
        vision = self.tower
        decoder, oracle = self.spoken
        features = self._features("train", self.drawn)
        seed = self._seed(2)
        projector = to_bfloat16(LlavaMultiModalProjector(shape.llava_config(len(self.tokenizer))))
        if not (self.work / "joint.pt").exists():
            steps = self.recipe.projector_steps
            regression = joint.train_projector(projector, features, oracle, self.drawn, steps, seed)
            self._follow("projector", regression, steps)
        mixing = joint.Mixing(self.drawn)
        trained = self._train(
            "joint",
            decoder,
            {"decoder": decoder, "projector": projector},
            joint.tower_vision(projector, features, mixing),
            self.drawn,
            joint.joint_counts,
            mixing.ask,
            self.recipe.joint_steps,
            1.5e-3,
            self._seed(3),
        )
        watched = self._features("validation", self.validation)
        for mixture in (joint.OWN, joint.MIXTURES[1]) if trained else ():
            self._validate("joint", decoder, joint.one_mixture(projector, watched, mixture), mixture=mixture)
        return vision, decoder, projector

    def _train(
        self,
        stage: str,
        decoder: LlamaForCausalLM,
        parts: dict[str, torch.nn.Module],
        vision: decoding.Vision,
        corpus: Corpus,
        counts: Callable[[Any], tuple[int, int]],
        asked: Callable[[int, Any], list[Question]],
        steps: int,
        rate: float,
        seed: int,
    ) -> bool:
        """Train a decoder stage from its last checkpoint to its end; whether anything was left to do."""
        path = self.work / f"{stage}.pt"
        optimizer = MasterAdamW([p for module in parts.values() for p in module.parameters()], rate, steps)
        begin = 0
        if path.exists():
            saved = torch.load(path, weights_only=True)
            begin = saved["step"]
            for name, module in parts.items():
                module.load_state_dict(saved[name])
            if begin < steps:
                optimizer.load_state_dict(saved["optimizer"])
        training = decoding.train_decoder(
            decoder, self.packer, vision, optimizer, corpus, counts, asked, range(begin, steps), seed
        )
        mean = None
        for step, losses in track(training, stage, steps - begin):
            mean = (
                losses
                if mean is None
                else decoding.Losses(*(0.98 * a + 0.02 * b for a, b in zip(mean, losses, strict=True)))
            )
            if step % 50 == 0 or step == steps - 1:
                self.log(stage=stage, step=step, loss=round(mean.answer, 4), attention=round(mean.attention, 4))
            if (step + 1) % self.recipe.checkpoint == 0 or step == steps - 1:
                state = {name: module.state_dict() for name, module in parts.items()}
                _save({**state, "optimizer": optimizer.state_dict(), "step": step + 1}, path)
        return begin < steps

    def _validate(self, stage: str, decoder: LlamaForCausalLM, vision: decoding.Vision, **of: Any) -> None:
        for count in (decoding.ALL, 96):
            scores = decoding.accuracy(decoder, self.packer, vision, self.validation, count)
            self.log(stage=stage, visual_tokens=count, **of, accuracy={k: round(v, 3) for k, v in scores.items()})

    def run(self, out: Path) -> None:
        """All stages, then the export and the curves."""
        vision, decoder, projector = self.joined
        export(vision, projector, decoder, self.tokenizer, out)
        plot_curves(self.work / "log.jsonl", self.work / "curves.png")


def _save(state: dict[str, Any], path: Path) -> None:
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.rename(path)


def _recipe_of(work: Path) -> dict[str, int]:
    """The recipe of a work directory whose tower and features are finished.

    Raises:
        InputError: there is none.
    """
    for name in (*TOWER_FILES, "recipe.json"):
        if not (work / name).exists():
            raise InputError(f"{work} has no {name}; train there first, without --tower-of")
    recipe: dict[str, int] = json.loads((work / "recipe.json").read_text(encoding="utf-8"))
    return recipe


def _with_tower_of(recipe: Recipe, other: Path, work: Path) -> Training:
    """A training that takes tower and features from another one.

    Raises:
        InputError: the other is not finished so far, or was made by other numbers.
    """
    theirs = _recipe_of(other)
    for name in ("scenes", "pictures", "validation", "tower_steps"):
        if theirs[name] != getattr(recipe, name):
            raise InputError(
                f"{other} was trained with {theirs[name]} {name}, not {getattr(recipe, name)}; give another"
            )
    training = Training(replace(recipe, tower_seed=theirs["tower_seed"]), work)
    for name in TOWER_FILES:
        if not (work / name).exists():
            part = work / f"{name}.part"
            shutil.copy(other / name, part)
            part.rename(work / name)
    return training


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(".training"), help="where the stages are kept")
    parser.add_argument("--out", type=Path, default=shape.MODEL, help="where the model is written")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tower-of", type=Path, help="work directory whose tower is kept; only the decoder is trained")
    parser.add_argument("--tiny", action="store_true", help="three steps of every stage, to try the script")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # Sums over threads come in no fixed order; one thread makes the result repeatable.
    recipe = replace(TINY if arguments.tiny else Recipe(), seed=arguments.seed, tower_seed=arguments.seed)
    if arguments.tower_of:
        training = _with_tower_of(recipe, arguments.tower_of, arguments.work)
    else:
        training = Training(recipe, arguments.work)
    training.run(arguments.out)


if __name__ == "__main__":
    sys.exit(ended(main))
