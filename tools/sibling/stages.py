"""The stages of a training of the sibling: tower, features, merger, then merger and decoder together."""

import random
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForImageTextToText
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionPatchMerger

from clasp_calib.reference.model import MODEL
from tools.reference.export import take_apart
from tools.reference.training import decoder as decoding, joint, tower as embedded_tower
from tools.reference.training.batches import OWN, Batch, Batches, Query, Seen, make_batch
from tools.reference.training.corpus import Corpus
from tools.reference.training.optimizer import MasterAdamW, to_bfloat16
from tools.reference.training.packing import Packer
from tools.reference.training.recipe import VALIDATION_SEED
from tools.reference.training.stepwise import Prepared, Steps, draws
from tools.reference.training.workshop import Workshop, save
from tools.sibling import tower
from tools.sibling.decoder import Decoder, begin_with, on_grid
from tools.sibling.recipe import Recipe
from tools.sibling.shape import TRAINED, UNSEEN, Grid, pixels, tokenizer, vision_config

SQUARE = TRAINED[0]
"""The grid that the embedded model knows."""


class InTurn(Steps[Prepared]):
    """Steps of one of several at random, so that all pictures of a step have the same grid."""

    def __init__(self, steps: Sequence[Steps[Prepared]], seed: int):
        self._steps, self._seed = steps, seed

    def __getitem__(self, step: int) -> Prepared:
        """A step of one of them."""
        drawn = random.Random(f"grid-{self._seed}-{step}").randrange(len(self._steps))
        return self._steps[drawn][step]


class Training(Workshop):
    """The stages over one work directory, on the CPU.

    Args:
        recipe: what to train.
        work: where the stages are kept.

    Raises:
        InputError: the directory holds stages of another recipe.
    """

    def __init__(self, recipe: Recipe, work: Path):
        super().__init__(vars(recipe), work, "cpu", 0, recipe.checkpoint)
        self.recipe, self.tokenizer = recipe, tokenizer()
        self.packer = Packer(self.tokenizer)

    def corpora(self, size: int) -> dict[Grid, Corpus]:
        """So many scenes of each grid of training."""
        return {grid: Corpus(self.recipe.scenes * i, size, pixels(grid)) for i, grid in enumerate(TRAINED)}

    @cached_property
    def drawn(self) -> dict[Grid, Corpus]:
        """The scenes whose pictures are encoded."""
        return self.corpora(self.recipe.pictures)

    @cached_property
    def validation(self) -> dict[Grid, Corpus]:
        """Scenes of none of the benchmark's splits, also of grids that are not trained on."""
        grids = (SQUARE, TRAINED[1], *UNSEEN)
        return {
            grid: Corpus(VALIDATION_SEED + 1_000 * i, self.recipe.validation, pixels(grid))
            for i, grid in enumerate(grids)
        }

    def _seed(self, stage: int) -> int:
        seed = self.recipe.seed + stage
        torch.manual_seed(seed)
        return seed

    @cached_property
    def tower(self) -> Any:
        """Stage 0."""
        path, seed, steps = self.work / "tower.pt", self._seed(0), self.recipe.tower_steps
        vision, heads = tower.make_tower(), embedded_tower.make_heads()
        if path.exists():
            vision.load_state_dict(self.load(path)["tower"])
            return vision
        glances = tower.Glances(list(self.corpora(self.recipe.scenes).values()), seed)
        self.follow("tower", tower.train_tower(vision, heads, self.over(glances, range(steps)), steps), steps)
        for grid, corpus in self.validation.items():
            for layer, _, _ in embedded_tower.SUPERVISED:
                read = tower.patch_accuracy(vision, heads, corpus, layer)
                self.log("tower", grid=grid, layer=layer, accuracy={k: round(v, 3) for k, v in read.items()})
        save({"tower": vision.state_dict(), "heads": heads.state_dict()}, path)
        return vision

    def features(self, name: str, corpus: Corpus, encode: joint.Encode) -> torch.Tensor:
        """What a tower makes of a corpus, ``[pictures, layers, N, D]`` float16."""
        path, album = self.work / f"features-{name}.npy", joint.Album(corpus)
        if not path.exists():
            rows, columns = corpus.grid
            joint.save_features(encode, self.over(album, album.steps), (corpus.size, rows * columns), path)
        return torch.from_numpy(np.load(path, mmap_mode="c"))

    def own_features(self, name: str, corpora: dict[Grid, Corpus]) -> dict[Grid, torch.Tensor]:
        """What the sibling's tower makes of corpora."""
        vision = self.tower

        def encoded(grid: Grid) -> joint.Encode:
            return lambda patches_BNP: tower.encode(vision, patches_BNP, grid)

        return {
            grid: self.features(f"{name}-{grid[0]}x{grid[1]}", corpus, encoded(grid))
            for grid, corpus in corpora.items()
        }

    def _shown(self, corpus: Corpus) -> Batch:
        """Some questions about a few pictures, to measure the embedded model with."""
        rng, generator = draws(self.recipe.seed, -1)
        queries: list[Query] = [joint.ask(corpus.scene(i), rng) for i in range(4)]
        return make_batch(corpus, range(4), self.packer, queries, 192, generator)

    def _begin(self, merger: Any, decoder: Decoder) -> None:
        """Stage 1: the embedded model's decoder, and a merger that speaks to it as its projector does."""
        path, steps = self.work / "merger.pt", self.recipe.merger_steps
        if path.exists():
            saved = self.load(path)
            merger.load_state_dict(saved["merger"])
            decoder.load_state_dict(saved["decoder"])
            return
        embedded = AutoModelForImageTextToText.from_pretrained(MODEL, dtype=torch.float32)
        projector, blocks = (to_bfloat16(part) for part in take_apart(embedded))
        corpus = self.drawn[SQUARE]
        theirs = self.features("embedded", corpus, joint.encoder(embedded.model.vision_tower))
        ours = self.own_features("train", {SQUARE: corpus})
        teacher = joint.tower_vision(projector, theirs)
        begin_with(decoder, blocks, teacher, self.packer.prefix, self._shown(corpus))
        shows = self.over(joint.Shows(corpus, self.recipe.seed + 1, min(24, corpus.size)), range(steps))
        regression = joint.train_projector(merger, joint.tower_vision(merger, ours[SQUARE]), teacher, shows, steps)
        self.follow("merger", regression, steps)
        self._watch("merger", merger, decoder)
        save({"merger": merger.state_dict(), "decoder": decoder.state_dict()}, path)

    @cached_property
    def joined(self) -> tuple[Any, Any, Decoder]:
        """All stages: the finished tower, merger and decoder."""
        recipe = self.recipe
        self._seed(1)
        merger, decoder = Qwen3VLVisionPatchMerger(vision_config()), Decoder(len(self.tokenizer))
        merger, decoder = to_bfloat16(merger), to_bfloat16(decoder)
        parts = {"merger": merger, "decoder": decoder}
        if self.finished("joint", recipe.joint_steps):
            self.restore("joint", parts)
            return self.tower, merger, decoder
        self._begin(merger, decoder)
        features, seed = self.own_features("train", self.drawn), self._seed(2)
        vision = _by_grid({grid: joint.tower_vision(merger, of) for grid, of in features.items()})
        drawn_from = [Batches(c, self.packer, joint.joint_counts, joint.ask, seed) for c in self.drawn.values()]
        batches = InTurn(drawn_from, seed)

        def train(optimizer: MasterAdamW, drawn: Iterator[Batch], left: range) -> Iterator[tuple[int, decoding.Losses]]:
            return decoding.train_decoder(decoder, self.packer.prefix, vision, optimizer, drawn, left, on_grid)

        watch = partial(self._watch, "joint", merger, decoder)
        self.train("joint", parts, batches, recipe.joint_steps, recipe.joint_rate, train, watch)
        return self.tower, merger, decoder

    def _watch(self, stage: str, merger: Any, decoder: Decoder) -> None:
        """Log how good the parts are on the grids of validation."""
        for grid, features in self.own_features("validation", self.validation).items():
            vision, corpus = joint.tower_vision(merger, features), self.validation[grid]
            for mixture in (OWN, joint.MIXTURES[1]):
                for count in (grid[0] * grid[1], 96):
                    scores = decoding.accuracy(decoder, self.packer, vision, corpus, mixture, count, place=on_grid)
                    rounded = {k: round(v, 3) for k, v in scores.items()}
                    self.log(stage, grid=grid, visual_tokens=count, mixture=mixture, accuracy=rounded)


def _by_grid(visions: dict[Grid, decoding.Vision]) -> decoding.Vision:
    """Visual tokens of pictures of any grid."""

    def vision(seen: Seen) -> torch.Tensor:
        rows, columns = seen.grid_2.tolist()
        return visions[rows, columns](seen)

    return vision
