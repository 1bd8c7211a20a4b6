"""From oracle tokens to what the tower sees: the projector by regression, then projector and decoder together.

Shapes: B pictures, N visual tokens, D width of the tower.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from clasp_calib.common.progress import track
from clasp_calib.reference.model import VISION_WIDTH
from clasp_calib.reference.questions import FINE, Question, balanced, questions_about
from clasp_calib.reference.supervision import FIELDS, IGNORE, KIND, LETTER, ONES, TENS
from clasp_calib.reference.training.corpus import Corpus
from clasp_calib.reference.training.decoder import ALL, QUESTIONS, Oracle, Vision
from clasp_calib.reference.training.optimizer import MasterAdamW
from clasp_calib.reference.training.tower import USED_LAYER, choose_patches, encode

LAYERS = (1, 3, USED_LAYER)
"""Vision layers that are mixed in training."""
OWN = (0.0, 0.0, 1.0)
MIXTURES = ((0.25, 0.0, 0.75), (0.5, 0.0, 0.5), (0.0, 0.25, 0.75), (0.0, 0.5, 0.5), (1 / 3, 1 / 3, 1 / 3))
MIXED = 0.5
"""Share of pictures seen through a mixture."""
FINE_OF_OWN = 0.4
"""How often a picture that is seen through the model's own layer is asked about fine detail."""

WRITTEN = 12.0
"""Weight of a patch with a letter or a digit in the projector's regression: there are few, and each has to be right."""


@torch.no_grad()
def save_features(tower: CLIPVisionModel, corpus: Corpus, path: Path) -> None:
    """Write what the projector will read of every picture, ``[pictures, layers, 576, D]`` float16, as ``.npy``."""
    tower.set_attn_implementation("sdpa")  # Without a backward pass the fused kernel is the fast one.
    part = path.with_suffix(".part")
    shape = (corpus.size, len(LAYERS), ALL, VISION_WIDTH)
    features = np.lib.format.open_memmap(part, "w+", np.float16, shape)
    for first in track(range(0, corpus.size, 8), "encoding pictures", -(-corpus.size // 8)):
        indices = list(range(first, min(first + 8, corpus.size)))
        with torch.autocast("cpu", torch.bfloat16):
            hidden = encode(tower, corpus.patches(indices))
        features[indices] = torch.stack([hidden[layer][:, 1:] for layer in LAYERS], 1).half().numpy()
    features.flush()
    part.rename(path)


def gather(features: np.ndarray, indices: list[int], chosen_BN: Tensor, weights_BL: Tensor) -> Tensor:
    """Mixed features of the chosen patches, ``[B, N, D]`` bfloat16."""
    mixed = []
    for index, chosen, weights in zip(indices, chosen_BN, weights_BL, strict=True):
        used = weights.nonzero()[:, 0].tolist()
        layers = torch.from_numpy(features[index, used][:, chosen.numpy()]).float()
        mixed.append((layers * weights[used, None, None]).sum(0))
    return torch.stack(mixed).bfloat16()


def oracle_vision(oracle: Oracle, corpus: Corpus) -> Vision:
    """Visual tokens that an oracle makes of the true labels."""

    def vision(indices: list[int], chosen_BN: Tensor) -> Tensor:
        labels = corpus.labels[indices].long().gather(1, chosen_BN[..., None].expand(-1, -1, len(FIELDS)))
        tokens: Tensor = oracle(labels, chosen_BN)
        return tokens

    return vision


@dataclass
class Mixing:
    """Which mixture each picture of a batch is seen through; questions are asked first, and depend on it."""

    corpus: Corpus
    drawn: dict[int, tuple[float, ...]] = field(default_factory=dict)

    def ask(self, index: int, rng: random.Random) -> list[Question]:
        """Draw a mixture for a picture, and questions about it: seldom of fine detail where its own layer is seen."""
        mixed = rng.random() < MIXED
        self.drawn[index] = rng.choice(MIXTURES) if mixed else OWN
        questions = questions_about(self.corpus.scenes[index], rng)
        if not mixed and rng.random() > FINE_OF_OWN:
            questions = [question for question in questions if question.family not in FINE]
        return balanced(questions, QUESTIONS, rng)

    def weights(self, indices: list[int]) -> Tensor:
        """Weights of `LAYERS`, ``[B, 3]``."""
        return torch.tensor([self.drawn[index] for index in indices])


def tower_vision(projector: LlavaMultiModalProjector, features: np.ndarray, mixing: Mixing) -> Vision:
    """Visual tokens as the finished model will have them, through the mixtures that were drawn."""

    def vision(indices: list[int], chosen_BN: Tensor) -> Tensor:
        tokens: Tensor = projector(gather(features, indices, chosen_BN, mixing.weights(indices)))
        return tokens

    return vision


def one_mixture(projector: LlavaMultiModalProjector, features: np.ndarray, weights: tuple[float, ...]) -> Vision:
    """Visual tokens of one mixture."""

    def vision(indices: list[int], chosen_BN: Tensor) -> Tensor:
        mixture = torch.tensor(weights).expand(len(indices), -1)
        tokens: Tensor = projector(gather(features, indices, chosen_BN, mixture))
        return tokens

    return vision


def train_projector(
    projector: LlavaMultiModalProjector,
    features: np.ndarray,
    oracle: Oracle,
    corpus: Corpus,
    steps: int,
    seed: int,
    rate: float = 3e-3,
) -> Iterator[tuple[int, float]]:
    """Regress the projector onto the oracle's tokens, yielding (step, weighted squared error by their variance)."""
    rng = random.Random(seed)
    parameters: list[nn.Parameter] = list(projector.parameters())
    optimizer = MasterAdamW(parameters, rate, steps, decay=0.0)
    wanted_of = oracle_vision(oracle, corpus)
    for step in range(steps):
        indices = rng.sample(range(corpus.size), 24)
        chosen = choose_patches(corpus.labels[indices][..., KIND], 160)
        weights = torch.tensor([rng.choice(MIXTURES) if rng.random() < MIXED else OWN for _ in indices])
        with torch.no_grad():
            wanted = wanted_of(indices, chosen).float()
        labels = corpus.labels[indices].gather(1, chosen[..., None].expand(-1, -1, len(FIELDS)))
        written = (labels[..., [LETTER, TENS, ONES]] != IGNORE).any(-1)
        heed = 1 + (WRITTEN - 1) * written.float()
        squared = (projector(gather(features, indices, chosen, weights)).float() - wanted).square().mean(-1)
        error = (squared * heed).sum() / heed.sum() / wanted.var()
        error.backward()
        optimizer.step(step)
        yield step, error.item()


def joint_counts(rng: random.Random) -> tuple[int, int]:
    """Pictures and visual tokens of a batch: all 576 in a third of them, so that pruning cannot look like a gain."""
    draw = rng.random()
    if draw < 0.35:
        return 4, ALL
    if draw < 0.55:
        return 8, rng.choice((192, 256, 320))
    return 12, rng.choice((64, 96, 128, 160))


def oracle_counts(rng: random.Random) -> tuple[int, int]:
    """The same for the oracle stage: all 576 in a few batches."""
    if rng.random() < 0.1:
        return 4, ALL
    return 12, rng.choice((96, 128, 160))
