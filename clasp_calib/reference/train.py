"""``python -m clasp_calib.reference.train``: make the reference model from nothing, deterministically by seed.

Stages: a tokenizer; the vision tower on dense patch labels; the decoder on oracle tokens; the tower's features of all
pictures; the projector by regression; projector and decoder together; the export to a directory that transformers
loads. What takes long is kept in the work directory and not made again; the two decoder stages go on from their last
checkpoint when they were interrupted, with the result of an uninterrupted run.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import CLIPVisionModel, LlamaForCausalLM
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from clasp_calib.common.errors import InputError
from clasp_calib.common.hashing import sha256_file
from clasp_calib.common.progress import track
from clasp_calib.common.scripts import ended
from clasp_calib.reference import model as shape
from clasp_calib.reference.export import export
from clasp_calib.reference.training import decoder as decoding
from clasp_calib.reference.training import joint, tower
from clasp_calib.reference.training.batches import ALL, OWN, Batches
from clasp_calib.reference.training.corpus import Corpus, make_tokenizer
from clasp_calib.reference.training.curves import plot_curves
from clasp_calib.reference.training.optimizer import MasterAdamW, to_bfloat16
from clasp_calib.reference.training.packing import Packer
from clasp_calib.reference.training.stepwise import Prepared, Steps

VALIDATION_SEED = 5_000_000


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out. Stage n draws from ``seed + n``; the tower's is ``tower_seed``."""

    seed: int = 0
    tower_seed: int = 0
    size: str = "default"
    start: str = ""
    """Digest of the projector and decoder that joint training starts from; from oracle tokens if empty."""
    scenes: int = 30_000
    pictures: int = 12_000
    validation: int = 60
    checkpoint: int = 500
    many: int = 3
    """Times as many pictures in a batch as `joint.joint_counts` draws."""
    tower_steps: int = 2_000
    oracle_steps: int = 1_400
    projector_steps: int = 5_000
    joint_steps: int = 1_800
    joint_rate: float = 1.5e-3


RECIPES_HELP = (
    "full: for a GPU; short: what a core trains in an hour; late: some more of the joint stage, for --start-from; "
    "tiny: three steps a stage, to try it"
)
RECIPES = {
    "full": Recipe(),
    "short": Recipe(
        pictures=6_000, checkpoint=200, many=1, oracle_steps=2_400, projector_steps=6_000, joint_steps=2_000
    ),
    "late": Recipe(pictures=4_000, checkpoint=200, many=1, joint_steps=1_000, joint_rate=1e-3),
    "tiny": Recipe(
        scenes=64,
        pictures=40,
        validation=4,
        checkpoint=2,
        many=1,
        tower_steps=3,
        oracle_steps=3,
        projector_steps=3,
        joint_steps=3,
    ),
}
STAGES = ("tower", "features", "oracle", "joint")
SIZES = {"default": shape.DEFAULT, "large": shape.LARGE}
START = "start"
TOKENIZER = "tokenizer.json"
TOWER_FILES = ("tower.pt", "features-train.npy", "features-validation.npy")


class Training:
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
        self.recipe, self.work, self._device, self._workers = recipe, work, torch.device(device), workers
        work.mkdir(parents=True, exist_ok=True)
        mark, wanted = work / "recipe.json", json.dumps(vars(recipe), sort_keys=True)
        if mark.exists() and mark.read_text(encoding="utf-8") != wanted:
            raise InputError(f"{work} holds the stages of another recipe; give another --work, or remove it")
        mark.write_text(wanted, encoding="utf-8")
        self._begun = time.monotonic()

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

    def log(self, stage: str, **event: Any) -> None:
        """One line in ``log.jsonl``, with the device and the seconds of this sitting so far."""
        place = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else "CPU"
        event |= {"device": place, "seconds": round(time.monotonic() - self._begun, 1)}
        with (self.work / "log.jsonl").open("a") as file:
            file.write(json.dumps({"stage": stage, **event}) + "\n")

    def _over(self, steps: Steps[Prepared], numbers: range) -> Iterator[Prepared]:
        return steps.over(numbers, self._device, self._workers)

    def _follow(self, stage: str, steps: Iterator[tuple[int, torch.Tensor]], total: int) -> None:
        mean = None
        for step, loss in track(steps, stage, total):
            mean = loss if mean is None else 0.98 * mean + 0.02 * loss
            if step % 50 == 0 or step == total - 1:
                self.log(stage, step=step, loss=round(mean.item(), 4))

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
            vision.load_state_dict(self._load(path)["tower"])
            return vision
        steps = self.recipe.tower_steps
        looks = self._over(tower.Looks(self.corpus, seed), range(steps))
        self._follow("tower", tower.train_tower(vision, heads, looks, steps), steps)
        for layer, _, _ in tower.SUPERVISED:
            read = tower.patch_accuracy(vision, heads, self.validation, layer)
            self.log("tower", layer=layer, accuracy={k: round(v, 3) for k, v in read.items()})
        _save({"tower": vision.state_dict(), "heads": heads.state_dict()}, path)
        return vision

    def features(self, name: str, corpus: Corpus) -> torch.Tensor:
        """What the tower makes of a corpus, ``[pictures, layers, 576, D]`` float16, on the device."""
        path = self.work / f"features-{name}.npy"
        if not path.exists():
            album = joint.Album(corpus)
            joint.save_features(self.tower, self._over(album, album.steps), corpus.size, path)
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
        if self._train("oracle", parts, vision, batches, self.recipe.oracle_steps, 2e-3):
            self._validate("oracle", decoder, vision, OWN)
        return decoder, oracle

    @cached_property
    def joined(self) -> tuple[CLIPVisionModel, LlamaForCausalLM, LlavaMultiModalProjector]:
        """Stages 2 and 3: the finished parts."""
        recipe, seed = self.recipe, self._seed(2)
        stage = "late" if recipe.start else "joint"
        config = shape.llava_config(len(self.tokenizer), SIZES[recipe.size])
        projector = to_bfloat16(LlavaMultiModalProjector(config)).to(self._device)
        if self._finished(stage, recipe.joint_steps):
            decoder = to_bfloat16(self._decoder()).to(self._device)
            self._restore(stage, {"decoder": decoder, "projector": projector})
            return self.tower, decoder, projector
        features = self.features("train", self.drawn)
        if recipe.start:
            decoder = to_bfloat16(self._decoder()).to(self._device)
            self._restore(START, {"decoder": decoder, "projector": projector})
        else:
            decoder, oracle = self.spoken
            if not (self.work / "joint.pt").exists():
                steps = recipe.projector_steps
                shows = self._over(joint.Shows(self.drawn, seed), range(steps))
                regression = joint.train_projector(projector, features, oracle, shows, steps)
                self._follow("projector", regression, steps)
        batches = Batches(
            self.drawn, self.packer, joint.joint_counts, joint.ask, self._seed(4 if recipe.start else 3), recipe.many
        )
        parts = {"decoder": decoder, "projector": projector}
        self._train(
            stage, parts, joint.tower_vision(projector, features), batches, recipe.joint_steps, recipe.joint_rate
        )
        watched = joint.tower_vision(projector, self.features("validation", self.validation))
        for mixture in (OWN, joint.MIXTURES[1]):
            self._validate(stage, decoder, watched, mixture)
        return self.tower, decoder, projector

    def _load(self, path: Path) -> Any:
        return torch.load(path, weights_only=True, map_location=self._device)

    def _finished(self, stage: str, steps: int) -> bool:
        path = self.work / f"{stage}.pt"
        return path.exists() and bool(self._load(path)["step"] == steps)

    def _restore(self, stage: str, parts: Mapping[str, torch.nn.Module]) -> dict[str, Any]:
        saved: dict[str, Any] = self._load(self.work / f"{stage}.pt")
        for name, module in parts.items():
            module.load_state_dict(saved[name])
        return saved

    def _train(
        self,
        stage: str,
        parts: Mapping[str, torch.nn.Module],
        vision: decoding.Vision,
        batches: Batches,
        steps: int,
        rate: float,
    ) -> bool:
        """Train a decoder stage from its last checkpoint to its end; whether anything was left to do."""
        path = self.work / f"{stage}.pt"
        optimizer = MasterAdamW([p for module in parts.values() for p in module.parameters()], rate, steps)
        begin = 0
        if path.exists():
            saved = self._restore(stage, parts)
            begin = saved["step"]
            if begin < steps:
                optimizer.load_state_dict(saved["optimizer"])
        left = range(begin, steps)
        training = decoding.train_decoder(
            parts["decoder"], self.packer.prefix, vision, optimizer, self._over(batches, left), left
        )
        mean = None
        for step, losses in track(training, stage, len(left)):
            both = torch.stack(losses)
            mean = both if mean is None else 0.98 * mean + 0.02 * both
            if step % 50 == 0 or step == steps - 1:
                answer, attention = mean.tolist()
                self.log(stage, step=step, loss=round(answer, 4), attention=round(attention, 4))
            state = {name: module.state_dict() for name, module in parts.items()} | {"step": step + 1}
            if step == steps - 1:
                _save(state, path)
            elif (step + 1) % self.recipe.checkpoint == 0:
                _save({**state, "optimizer": optimizer.state_dict()}, path)
        return begin < steps

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


def _with_tower_of(recipe: Recipe, other: Path, work: Path, **how: Any) -> Training:
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
    training = Training(replace(recipe, tower_seed=theirs["tower_seed"]), work, **how)
    for name in TOWER_FILES:
        if not (work / name).exists():
            part = work / f"{name}.part"
            shutil.copy(other / name, part)
            part.rename(work / name)
    return training


def _taken_from(other: Path) -> dict[str, Any]:
    """What a recipe takes over from a training that it goes on with.

    Raises:
        InputError: the other is not finished.
    """
    for name in ("joint.pt", "tower.pt", TOKENIZER, "recipe.json"):
        if not (other / name).exists():
            raise InputError(f"{other} has no {name}; train there first")
    theirs = json.loads((other / "recipe.json").read_text(encoding="utf-8"))
    ended_at = torch.load(other / "joint.pt", weights_only=True, map_location="cpu")["step"]
    if ended_at != theirs["joint_steps"]:
        raise InputError(f"{other} has {ended_at} of {theirs['joint_steps']} joint steps; let it end first")
    kept = {name: theirs[name] for name in ("tower_seed", "size", "tower_steps")}
    return {"start": sha256_file(other / "joint.pt")[:12], **kept}


def _from_start(recipe: Recipe, other: Path, work: Path, **how: Any) -> Training:
    """A training whose joint stage starts where another one's ended, with its tower and its tokenizer."""
    training = Training(recipe, work, **how)
    taken = {"joint.pt": f"{START}.pt"} | {name: name for name in ("tower.pt", TOKENIZER, "log.jsonl")}
    for name, ours in taken.items():
        if not (work / ours).exists():
            part = work / f"{ours}.part"
            shutil.copy(other / name, part)
            part.rename(work / ours)
    return training


def _repeatable(device: str) -> None:
    """Sums over threads come in no fixed order, and neither do some of a GPU's."""
    torch.set_num_threads(1)
    if device != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(".training"), help="where the stages are kept")
    parser.add_argument("--out", type=Path, help="where the model is written (the embedded one's place)")
    parser.add_argument("--recipe", choices=RECIPES, default="full", help=RECIPES_HELP)
    parser.add_argument("--size", choices=SIZES, default="default", help="of the decoder")
    parser.add_argument("--seed", type=int, default=0)
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--tower-of", type=Path, help="work directory whose tower is kept; only the decoder is trained")
    other.add_argument("--start-from", type=Path, help="finished work directory whose joint stage is gone on with")
    parser.add_argument("--until", choices=STAGES, help="stop after a stage; a later run goes on")
    parser.add_argument("--device", default="cpu", help="cpu (one thread) or cuda")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw pictures and questions")
    arguments = parser.parse_args()
    if arguments.recipe == "late" and not arguments.start_from:
        raise InputError("the recipe late goes on with another training; give its work directory as --start-from")
    if arguments.device != "cpu" and not torch.cuda.is_available():
        raise InputError(f"torch sees no GPU for --device {arguments.device}; give cpu, or install a torch with CUDA")
    _repeatable(arguments.device)
    recipe = replace(RECIPES[arguments.recipe], seed=arguments.seed, tower_seed=arguments.seed, size=arguments.size)
    if arguments.start_from:
        recipe = replace(recipe, **_taken_from(arguments.start_from))
    if recipe.size != "default" and not (arguments.out or arguments.until):
        raise InputError("the embedded model has the default size; give --out")
    how = {"device": arguments.device, "workers": arguments.workers}
    if arguments.tower_of:
        training = _with_tower_of(recipe, arguments.tower_of, arguments.work, **how)
    elif arguments.start_from:
        training = _from_start(recipe, arguments.start_from, arguments.work, **how)
    else:
        training = Training(recipe, arguments.work, **how)
    if arguments.until:
        training.until(arguments.until)
    else:
        training.run(arguments.out or shape.MODEL)


if __name__ == "__main__":
    sys.exit(ended(main))
