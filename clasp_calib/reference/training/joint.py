"""From oracle tokens to what the tower sees: the projector by regression, then projector and decoder together."""

import random
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from clasp_calib.common.progress import track
from clasp_calib.reference.supervision import FIELDS, KIND
from clasp_calib.reference.training.corpus import Corpus
from clasp_calib.reference.training.decoder import ALL, Oracle, Vision
from clasp_calib.reference.training.optimizer import MasterAdamW
from clasp_calib.reference.training.tower import USED_LAYER, choose_patches, encode


@torch.no_grad()
def tower_features(tower: CLIPVisionModel, corpus: Corpus) -> Tensor:
    """What the projector will read of every picture, ``[pictures, 576, D]`` bfloat16."""
    tower.set_attn_implementation("sdpa")  # Without a backward pass the fused kernel is the fast one.
    features = []
    for first in track(range(0, corpus.size, 8), "encoding pictures", -(-corpus.size // 8)):
        indices = list(range(first, min(first + 8, corpus.size)))
        with torch.autocast("cpu", torch.bfloat16):
            features.append(encode(tower, corpus.patches(indices))[USED_LAYER][:, 1:].bfloat16())
    return torch.cat(features)


def gather(features: Tensor, indices: list[int], chosen_BN: Tensor) -> Tensor:
    """Features of the chosen patches, ``[B, N, D]``."""
    return features[indices].gather(1, chosen_BN[..., None].expand(-1, -1, features.shape[-1]))


def oracle_vision(oracle: Oracle, corpus: Corpus) -> Vision:
    """Visual tokens that an oracle makes of the true labels."""

    def vision(indices: list[int], chosen_BN: Tensor) -> Tensor:
        labels = corpus.labels[indices].gather(1, chosen_BN[..., None].expand(-1, -1, len(FIELDS)))
        tokens: Tensor = oracle(labels, corpus.surroundings[indices], chosen_BN)
        return tokens

    return vision


def tower_vision(projector: LlavaMultiModalProjector, features: Tensor) -> Vision:
    """Visual tokens as the finished model will have them."""

    def vision(indices: list[int], chosen_BN: Tensor) -> Tensor:
        tokens: Tensor = projector(gather(features, indices, chosen_BN))
        return tokens

    return vision


def train_projector(
    projector: LlavaMultiModalProjector,
    features: Tensor,
    oracle: Oracle,
    corpus: Corpus,
    steps: int,
    seed: int,
    rate: float = 3e-3,
) -> Iterator[tuple[int, float]]:
    """Regress the projector onto the oracle's tokens, yielding (step, squared error relative to their variance)."""
    rng = random.Random(seed)
    parameters: list[nn.Parameter] = list(projector.parameters())
    optimizer = MasterAdamW(parameters, rate, steps, decay=0.0)
    wanted_of = oracle_vision(oracle, corpus)
    for step in range(steps):
        indices = rng.sample(range(corpus.size), 32)
        chosen = choose_patches(corpus.labels[indices][..., KIND], 80)
        with torch.no_grad():
            wanted = wanted_of(indices, chosen).float()
        error = (projector(gather(features, indices, chosen)).float() - wanted).square().mean() / wanted.var()
        error.backward()
        optimizer.step(step)
        yield step, error.item()


def joint_counts(rng: random.Random, progress: float) -> tuple[int, int]:
    """Pictures and visual tokens of a batch: all 576 in half of them, so that pruning cannot look like a gain."""
    draw = rng.random()
    if draw < 0.5:
        return 4, ALL
    if draw < 0.7:
        return 8, rng.choice((192, 256, 320))
    return 12, rng.choice((64, 80, 96))


def oracle_counts(rng: random.Random, progress: float) -> tuple[int, int]:
    """Few tokens at first, and all 576 in some batches of the second half."""
    if progress > 0.5 and rng.random() < 0.15:
        return 4, ALL
    return 12, rng.choice((56, 72, 96))
