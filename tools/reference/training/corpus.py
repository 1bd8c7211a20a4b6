"""The training data: scenes by seed, their patch labels, pictures and packed questions."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from clasp_calib.reference.questions import Question, draw_family, questions_about
from clasp_calib.reference.scenes import Scene, draw_scene
from clasp_calib.reference.vocabulary import (
    ACTIONS,
    COLORS,
    KINDS,
    PATCH,
    PATTERNS,
    PLACES,
    PURPOSES,
    SQUARE,
    WEATHERS,
    WORDS,
)
from tools.reference.shape import IMAGE_MEAN, IMAGE_STD, train_tokenizer
from tools.reference.supervision import patch_labels


@dataclass(frozen=True)
class Corpus:
    """The scenes of a range of seeds, each drawn when it is first needed, and kept.

    N patches of every picture: 576 of the usual size.
    """

    first_seed: int
    size: int
    picture: tuple[int, int] = SQUARE
    """Width and height of every picture, in pixels."""
    _drawn: dict[int, tuple[Scene, NDArray[np.int16]]] = field(default_factory=dict, repr=False, compare=False)

    def _look(self, index: int) -> tuple[Scene, NDArray[np.int16]]:
        if index not in self._drawn:
            scene = draw_scene(self.first_seed + index, size=self.picture)
            self._drawn[index] = scene, patch_labels(scene)
        return self._drawn[index]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        width, height = self.picture
        return height // PATCH, width // PATCH

    def scene(self, index: int) -> Scene:
        """The scene of an index."""
        return self._look(index)[0]

    def labels(self, indices: Sequence[int]) -> Tensor:
        """Patch labels, ``[B, N, 13]`` int64."""
        return torch.from_numpy(np.stack([self._look(index)[1] for index in indices])).long()

    def patches(self, indices: Sequence[int], chosen_BN: Tensor | None = None) -> Tensor:
        """Pixels of the chosen patches (all if ``None``), normalised as the processor does.

        Returns:
            ``[B, N, 588]`` float32, each patch in the order of the tower's convolution: channel, row, column.
        """
        pictures = torch.from_numpy(np.stack([np.asarray(self.scene(i).picture()) for i in indices]))
        rows, columns = self.grid
        grid = pictures.view(len(indices), rows, PATCH, columns, PATCH, 3).permute(0, 1, 3, 5, 2, 4)
        patches = grid.reshape(len(indices), rows * columns, 3 * PATCH * PATCH)
        if chosen_BN is not None:
            patches = patches.gather(1, chosen_BN[..., None].expand(-1, -1, patches.shape[-1]))
        scale = torch.tensor(IMAGE_STD).repeat_interleave(PATCH * PATCH)
        shift = torch.tensor(IMAGE_MEAN).repeat_interleave(PATCH * PATCH)
        return (patches.float() / 255 - shift) / scale


def balanced(questions: Sequence[Question], count: int, rng: random.Random) -> list[Question]:
    """``count`` questions, classes in turn, families by `SHARE` within a class; repeats where there are too few."""
    by_class: dict[str, dict[str, list[Question]]] = defaultdict(lambda: defaultdict(list))
    for question in questions:
        by_class[question.label][question.family].append(question)
    labels = list(by_class)
    rng.shuffle(labels)
    families = (by_class[labels[i % len(labels)]] for i in range(count))
    return [rng.choice(of[draw_family(list(of), rng)]) for of in families]


def tokenizer_corpus(scenes: int, seed: int) -> list[str]:
    """Text of the first ``scenes`` scenes for the tokenizer: questions and answers as they appear in prompts."""
    rng = random.Random(seed)
    texts = []
    for number in range(scenes):
        questions = balanced(questions_about(draw_scene(number), rng), 12, rng)
        texts += [f"USER: \n{q.text} ASSISTANT: {q.answer}" for q in questions]
    # Whole answers must be single tokens even where they are rare.
    answers = (*KINDS, *PURPOSES.values(), *WORDS, *COLORS, *PATTERNS, *PLACES, *WEATHERS, *ACTIONS)
    texts += [f"ASSISTANT: {word}" for word in answers] * 50
    return texts


def make_tokenizer(scenes: int = 2000, seed: int = 0) -> PreTrainedTokenizerFast:
    """The tokenizer of the reference model."""
    return train_tokenizer(tokenizer_corpus(scenes, seed))
