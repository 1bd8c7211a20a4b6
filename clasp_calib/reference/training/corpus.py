"""The training data: scenes by seed, their patch labels, pictures and packed questions."""

import random
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from clasp_calib.reference.model import IMAGE_MEAN, IMAGE_STD, train_tokenizer
from clasp_calib.reference.questions import balanced, questions_about
from clasp_calib.reference.scenes import Scene, draw_scene
from clasp_calib.reference.supervision import patch_labels
from clasp_calib.reference.vocabulary import (
    ACTIONS,
    COLORS,
    GRID,
    KINDS,
    PATCH,
    PATTERNS,
    PLACES,
    PURPOSES,
    WEATHERS,
    WORDS,
)


@dataclass
class Corpus:
    """The scenes of a range of seeds, with everything that training reads of them."""

    first_seed: int
    size: int

    @cached_property
    def scenes(self) -> list[Scene]:
        """The scenes, in the order of their seeds."""
        return [draw_scene(seed) for seed in range(self.first_seed, self.first_seed + self.size)]

    @cached_property
    def labels(self) -> Tensor:
        """Patch labels, ``[size, 576, 13]`` int16."""
        return torch.from_numpy(np.stack([patch_labels(s) for s in self.scenes]))

    def patches(self, indices: list[int], chosen_BN: Tensor | None = None) -> Tensor:
        """Pixels of the chosen patches (all if ``None``), normalised as the processor does.

        Returns:
            ``[B, N, 588]`` float32, each patch in the order of the tower's convolution: channel, row, column.
        """
        pictures = torch.from_numpy(np.stack([np.asarray(self.scenes[i].picture()) for i in indices]))
        grid = pictures.view(len(indices), GRID, PATCH, GRID, PATCH, 3).permute(0, 1, 3, 5, 2, 4)
        patches = grid.reshape(len(indices), GRID * GRID, 3 * PATCH * PATCH)
        if chosen_BN is not None:
            patches = patches.gather(1, chosen_BN[..., None].expand(-1, -1, patches.shape[-1]))
        scale = torch.tensor(IMAGE_STD).repeat_interleave(PATCH * PATCH)
        shift = torch.tensor(IMAGE_MEAN).repeat_interleave(PATCH * PATCH)
        return (patches.float() / 255 - shift) / scale


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
