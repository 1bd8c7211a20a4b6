"""``python -m clasp_calib.reference.train``: make the reference model from nothing, deterministically by seed.

Stages, each kept in the work directory and skipped when it is there: a tokenizer; the vision tower on dense patch
labels; the decoder on oracle tokens; the tower's features of all pictures; the projector by regression; projector and
decoder together; the export to a directory that transformers loads.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionModel, LlamaForCausalLM
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from clasp_calib.common.errors import InputError
from clasp_calib.common.progress import track
from clasp_calib.reference import model as shape
from clasp_calib.reference.export import export
from clasp_calib.reference.training import decoder as decoding
from clasp_calib.reference.training import joint, tower
from clasp_calib.reference.training.corpus import Corpus, make_tokenizer
from clasp_calib.reference.training.curves import plot_curves
from clasp_calib.reference.training.optimizer import to_bfloat16
from clasp_calib.reference.training.packing import Packer

VALIDATION_SEED = 5_000_000


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out. Stage n draws from ``seed + n``."""

    seed: int = 0
    scenes: int = 30_000
    pictures: int = 12_000
    validation: int = 100
    tower_steps: int = 3_000
    oracle_steps: int = 3_600
    projector_steps: int = 400
    joint_steps: int = 3_400


TINY = Recipe(
    scenes=64,
    pictures=40,
    validation=4,
    tower_steps=3,
    oracle_steps=3,
    projector_steps=3,
    joint_steps=3,
)
"""Three steps of everything: what the tests run."""


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

    def _seed(self, stage: int) -> int:
        seed = self.recipe.seed + stage
        torch.manual_seed(seed)
        return seed

    @cached_property
    def tower(self) -> CLIPVisionModel:
        """Stage 0."""
        path, seed = self.work / "tower.pt", self._seed(0)
        vision, heads = tower.make_tower(), tower.PatchHeads()
        if path.exists():
            vision.load_state_dict(torch.load(path, weights_only=True)["tower"])
            return vision
        steps = self.recipe.tower_steps
        self._follow("tower", tower.train_tower(vision, heads, self.corpus, steps, seed), steps)
        for layer in range(1, tower.USED_LAYER + 1):
            read = tower.patch_accuracy(vision, heads, self.validation, layer)
            self.log(stage="tower", layer=layer, accuracy={k: round(v, 3) for k, v in read.items()})
        torch.save({"tower": vision.state_dict(), "heads": heads.state_dict()}, path)
        return vision

    @cached_property
    def spoken(self) -> tuple[LlamaForCausalLM, decoding.Oracle]:
        """Stage 1: decoder and oracle."""
        path, seed = self.work / "oracle.pt", self._seed(1)
        decoder, oracle = decoding.make_decoder(len(self.tokenizer)), decoding.Oracle()
        oracle.speak(decoder, self.tokenizer)
        decoder, oracle = to_bfloat16(decoder), to_bfloat16(oracle)
        if path.exists():
            saved = torch.load(path, weights_only=True)
            decoder.load_state_dict(saved["decoder"])
            oracle.load_state_dict(saved["oracle"])
            return decoder, oracle
        steps = self.recipe.oracle_steps
        vision = joint.oracle_vision(oracle, self.corpus)
        training = decoding.train_decoder(
            decoder,
            self.packer,
            vision,
            [*decoder.parameters(), *oracle.parameters()],
            self.corpus,
            joint.oracle_counts,
            steps,
            2e-3,
            seed,
        )
        self._follow("oracle", training, steps)
        self._validate("oracle", decoder, joint.oracle_vision(oracle, self.validation))
        torch.save({"decoder": decoder.state_dict(), "oracle": oracle.state_dict()}, path)
        return decoder, oracle

    def _features(self, name: str, corpus: Corpus) -> torch.Tensor:
        path = self.work / f"features-{name}.pt"
        if not path.exists():
            features = joint.tower_features(self.tower, corpus)
            torch.save(features, path)
        loaded: torch.Tensor = torch.load(path, weights_only=True, mmap=True)
        return loaded

    @cached_property
    def joined(self) -> tuple[CLIPVisionModel, LlamaForCausalLM, LlavaMultiModalProjector]:
        """Stages 2 and 3: the finished parts."""
        vision = self.tower
        decoder, oracle = self.spoken
        features = self._features("train", self.drawn)
        seed = self._seed(2)
        projector = to_bfloat16(LlavaMultiModalProjector(shape.llava_config(len(self.tokenizer))))
        path = self.work / "joint.pt"
        if path.exists():
            saved = torch.load(path, weights_only=True)
            decoder.load_state_dict(saved["decoder"])
            projector.load_state_dict(saved["projector"])
            return vision, decoder, projector
        steps = self.recipe.projector_steps
        regression = joint.train_projector(projector, features, oracle, self.drawn, steps, seed)
        self._follow("projector", regression, steps)
        watched = joint.tower_vision(projector, self._features("validation", self.validation))
        self._validate("projector", decoder, watched)
        seed, steps = self._seed(3), self.recipe.joint_steps
        training = decoding.train_decoder(
            decoder,
            self.packer,
            joint.tower_vision(projector, features),
            [*decoder.parameters(), *projector.parameters()],
            self.drawn,
            joint.joint_counts,
            steps,
            1.5e-3,
            seed,
        )
        self._follow("joint", training, steps)
        self._validate("joint", decoder, watched)
        torch.save({"decoder": decoder.state_dict(), "projector": projector.state_dict()}, path)
        return vision, decoder, projector

    def _validate(self, stage: str, decoder: LlamaForCausalLM, vision: decoding.Vision) -> None:
        for count in (decoding.ALL, 96):
            scores = decoding.accuracy(decoder, self.packer, vision, self.validation, count)
            self.log(stage=stage, visual_tokens=count, accuracy={k: round(v, 3) for k, v in scores.items()})

    def run(self, out: Path) -> None:
        """All stages, then the export and the curves."""
        vision, decoder, projector = self.joined
        export(vision, projector, decoder, self.tokenizer, out)
        plot_curves(self.work / "log.jsonl", self.work / "curves.png")


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(".training"), help="where the stages are kept")
    parser.add_argument("--out", type=Path, default=shape.MODEL, help="where the model is written")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="three steps of every stage, to try the script")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # Sums over threads come in no fixed order; one thread makes the result repeatable.
    recipe = TINY if arguments.tiny else Recipe(seed=arguments.seed)
    Training(recipe, arguments.work).run(arguments.out)


if __name__ == "__main__":
    main()
