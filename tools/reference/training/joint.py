"""From oracle tokens to what the tower sees: the projector by regression, then projector and decoder together.

Shapes: B pictures, N visual tokens, L mixed vision layers, D width of the tower.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel

from clasp_calib.common.progress import track
from clasp_calib.reference.questions import questions_about
from clasp_calib.reference.scenes import Scene
from tools.reference.shape import VISION_WIDTH
from tools.reference.supervision import IGNORE, LETTER, ONES, TENS
from tools.reference.training.batches import ALL, LAYERS, OWN, QUESTIONS, Query, Seen
from tools.reference.training.capture import launched_at_once
from tools.reference.training.corpus import Corpus, balanced
from tools.reference.training.decoder import Oracle, Vision
from tools.reference.training.optimizer import MasterAdamW
from tools.reference.training.stepwise import Steps, draws
from tools.reference.training.tower import draw_patches, encode

MIXTURES = ((0.25, 0.0, 0.75), (0.5, 0.0, 0.5), (0.0, 0.25, 0.75), (0.0, 0.5, 0.5), (1 / 3, 1 / 3, 1 / 3))
MIXED = 0.5
"""Share of pictures seen through a mixture."""
WRITTEN = 12.0
"""Weight of a patch with a letter or a digit in the projector's regression: there are few, and each has to be right."""


class Pixels(NamedTuple):
    """All patches of some pictures, ``[B, N, 588]``."""

    patches_BNP: Tensor


class Album(Steps[Pixels]):
    """The pictures of a corpus in their order, eight a step."""

    TOGETHER = 8

    def __init__(self, corpus: Corpus):
        self._corpus = corpus
        self.steps = range(-(-corpus.size // self.TOGETHER))

    def __getitem__(self, step: int) -> Pixels:
        """The next eight."""
        first = step * self.TOGETHER
        return Pixels(self._corpus.patches(range(first, min(first + self.TOGETHER, self._corpus.size))))


Encode = Callable[[Tensor], Sequence[Tensor]]
"""All hidden states ``[B, N, D]`` of patches ``[B, N, 588]``."""


def encoder(tower: CLIPVisionModel) -> Encode:
    """What the tower makes of patches, its class token left out."""
    tower.set_attn_implementation("sdpa")  # Without a backward pass the fused kernel is the fast one.
    return lambda patches_BNP: [states[:, 1:] for states in encode(tower, patches_BNP)]


@torch.no_grad()
def save_features(encode: Encode, album: Iterable[Pixels], shape: tuple[int, int], path: Path) -> None:
    """Write what the projector will read of every picture, ``[pictures, layers, N, D]`` float16, as ``.npy``.

    Args:
        encode: what the tower makes of patches.
        album: the pictures.
        shape: how many pictures, and how many patches each has.
        path: file to write.
    """
    part, first = path.with_suffix(".part"), 0
    size, patches = shape
    features = np.lib.format.open_memmap(part, "w+", np.float16, (size, len(LAYERS), patches, VISION_WIDTH))
    for pixels in track(album, "encoding pictures", -(-size // Album.TOGETHER)):
        with torch.autocast(pixels.patches_BNP.device.type, torch.bfloat16):
            hidden = encode(pixels.patches_BNP)
        made = torch.stack([hidden[layer] for layer in LAYERS], 1).half().cpu().numpy()
        features[first : first + len(made)] = made
        first += len(made)
    features.flush()
    part.rename(path)


def gather(features_PLND: Tensor, seen: Seen) -> Tensor:
    """Mixed features of the chosen patches, ``[B, N, D]`` bfloat16."""
    taken = features_PLND[seen.pictures_B]
    chosen = seen.chosen_BN[:, None, :, None].expand(-1, len(LAYERS), -1, taken.shape[-1])
    return (taken.gather(2, chosen).float() * seen.mixture_BL[:, :, None, None]).sum(1).bfloat16()


def oracle_vision(oracle: Oracle) -> Vision:
    """Visual tokens that an oracle makes of the true labels."""

    def vision(seen: Seen) -> Tensor:
        tokens: Tensor = oracle(seen.labels_BNF, seen.chosen_BN)
        return tokens

    return vision


def tower_vision(projector: nn.Module, features_PLND: Tensor) -> Vision:
    """Visual tokens as the finished model will have them, through the mixtures that were drawn."""

    def vision(seen: Seen) -> Tensor:
        mixed = gather(features_PLND, seen)
        tokens: Tensor = projector(mixed)
        return tokens.view(*mixed.shape[:2], -1)

    return vision


def draw_mixture(rng: random.Random) -> tuple[float, ...]:
    """The model's own layer, or a mixture."""
    return rng.choice(MIXTURES) if rng.random() < MIXED else OWN


def ask(scene: Scene, rng: random.Random) -> Query:
    """Questions of all classes about a picture, and the mixture that it is seen through."""
    mixture = draw_mixture(rng)
    return Query(balanced(questions_about(scene, rng), QUESTIONS, rng), mixture)


class Shows(Steps[Seen]):
    """Patches of a corpus, through all mixtures."""

    def __init__(self, corpus: Corpus, seed: int, pictures: int = 24, patches: int = 160):
        self._corpus, self._seed, self._pictures, self._patches = corpus, seed, pictures, patches

    def __getitem__(self, step: int) -> Seen:
        """Draw pictures, patches and a mixture for each picture."""
        rng, generator = draws(self._seed, step)
        indices, chosen, labels = draw_patches(self._corpus, self._pictures, self._patches, rng, generator)
        mixtures = [draw_mixture(rng) for _ in indices]
        return Seen(torch.tensor(indices), chosen, labels, torch.tensor(mixtures), torch.tensor(self._corpus.grid))


def train_projector(
    projector: nn.Module, vision: Vision, teacher: Vision, shows: Iterable[Seen], steps: int, rate: float = 3e-3
) -> Iterator[tuple[int, Tensor]]:
    """Regress the projector's tokens onto a teacher's, yielding (step, weighted squared error by their variance)."""
    parameters: list[nn.Parameter] = list(projector.parameters())
    optimizer = MasterAdamW(parameters, rate, steps, decay=0.0)

    def update(shown: Seen) -> Tensor:
        with torch.no_grad():
            wanted = teacher(shown).float()
        written = (torch.stack([shown.labels_BNF[..., field] for field in (LETTER, TENS, ONES)]) != IGNORE).any(0)
        heed = 1 + (WRITTEN - 1) * written.float()
        squared = (vision(shown).float() - wanted).square().mean(-1)
        error = (squared * heed).sum() / heed.sum() / wanted.var()
        torch.autograd.backward(error)
        optimizer.step()
        return error.detach()

    update_at_once = launched_at_once(update, parameters[0].device)
    for step, shown in enumerate(shows):
        optimizer.begin(step)
        yield step, update_at_once(shown)


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
