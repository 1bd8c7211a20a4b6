"""The vision tower, trained to say what every patch shows.

Its residual stream has three parts. *Position* is fixed. *Detail* alone receives the pixels, and is what letters,
digits and patterns are read from in the shallow layers. *Meaning* is written by the layers. The block `BLUR` is frozen:
it takes each patch's detail away and adds a fixed random function of what remains, which works like noise. So the deep
layers know what things are, but fine detail hardly, like those of the towers that the paper studies.

Shapes: B pictures, N patches taken of 576, D width. Only a part of the patches is encoded at a time (all that show
something, and some background); attention over 576 at inference works unchanged.
"""

import math
import random
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionModel

from clasp_calib.reference.vocabulary import GRID
from tools.reference.shape import VISION_LAYERS, VISION_WIDTH, vision_config
from tools.reference.supervision import CENTER, FIELDS, FINE, IGNORE, KIND, LETTER, ONES, PATTERN, ROLE, TENS
from tools.reference.training.capture import launched_at_once
from tools.reference.training.corpus import Corpus
from tools.reference.training.optimizer import Adam
from tools.reference.training.stepwise import Steps, draws

USED_LAYER = VISION_LAYERS - 1
"""``hidden_states`` index that the projector reads: the model's ``vision_feature_layer`` of -2."""
HEADS = 4
HEAD = VISION_WIDTH // HEADS
POSITION = slice(0, 32)
DETAIL = slice(32, 32 + HEAD)
"""As wide as a head, so that one head moves all of it."""
LOUDNESS = 3.0
"""Amplitude of the position code."""
BLUR = 3
"""Index of the frozen block: ``hidden_states`` up to 3 are sharp."""
SPREAD = 3.0
"""Standard deviation within a patch that the states before the blur, and those that are projected, are trained to."""
NOISE = {"detail": 1.0, "meaning": 0.5}
"""Standard deviations of what the blur adds to each."""
GAIN = 2.0
"""Of the random function: the larger, the less a linear map of the states tells of it."""
FREQUENCIES = tuple(100 ** (-j / 16) for j in range(8))
NEIGHBOURS = {
    0: ((0, -1), (0, 1), (-1, 0), (1, 0)),
    1: ((0, -1), (0, 1), (-1, -1), (1, 1)),
    2: ((0, -2), (0, 2), (-2, 0), (2, 0)),
    BLUR: ((0, 0), (0, 0), (0, 0), (0, 0)),
    4: ((0, -1), (0, 1), (-1, 0), (1, 0)),
    5: ((0, -2), (0, 2), (-2, 0), (2, 0)),
}
"""Grid offsets that the heads of a layer attend to at the start: a convolution to depart from."""
SUPERVISED = ((1, FINE, 0.4), (3, tuple(range(len(FIELDS))), 0.5), (USED_LAYER, None, 1.0))
"""Layer, the properties that are read from it (``None``: all that are not fine), and the weight of their loss."""
WEIGHTS = {ROLE: 3.0, KIND: 1.5}
"""Of a property's loss, where it is not 1."""
STEADINESS, SECRECY = 20.0, 4.0
"""Weights of the losses that keep the blur exact and the deep layers ignorant of detail."""


def position_code(grid: int = GRID) -> Tensor:
    """Sines and cosines of row and column, ``[grid * grid, 32]``."""
    rows, columns = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    angles = [axis.reshape(-1, 1) * torch.tensor(FREQUENCIES) for axis in (rows, columns)]
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], 1)


def make_tower() -> CLIPVisionModel:
    """An untrained tower whose heads start as shifts on the grid; the last block is the identity.

    Patch attention that starts as a shift learns in hundreds of steps what a random start does not in thousands.
    """
    tower = CLIPVisionModel(vision_config())
    # Explicit attention: the fused kernel's bf16 backward is slow on CPUs at these sizes.
    tower.set_attn_implementation("eager")
    with torch.no_grad():
        positions, pixels = tower.embeddings.position_embedding.weight, tower.embeddings.patch_embedding.weight
        positions.zero_()
        positions[1:, POSITION] = LOUDNESS * position_code()
        nn.init.normal_(pixels, std=588**-0.5)
        for depth, layer in enumerate(tower.encoder.layers):
            attention = layer.self_attn
            for linear in (attention.q_proj, attention.k_proj, attention.v_proj, layer.mlp.fc1):
                nn.init.normal_(linear.weight, std=0.8 * VISION_WIDTH**-0.5)
            used = depth < USED_LAYER
            scale = 1 / math.sqrt(2 * USED_LAYER) if used else 0.0
            nn.init.normal_(attention.out_proj.weight, std=scale * VISION_WIDTH**-0.5)
            nn.init.normal_(layer.mlp.fc2.weight, std=scale * (4 * VISION_WIDTH) ** -0.5)
            if used:
                _shift_heads(attention, NEIGHBOURS[depth], 9.0 if depth == BLUR else 4.5)
        _make_blur(tower.encoder.layers[BLUR])
    constrain(tower)
    return tower


def _shift_heads(attention: Any, offsets: tuple[tuple[int, int], ...], sharpness: float) -> None:
    """Set queries and keys such that head h of a patch attends to the patch at ``offsets[h]``."""
    many = len(FREQUENCIES)
    for h, step in enumerate(offsets):
        query, key = torch.zeros(HEAD, VISION_WIDTH), torch.zeros(HEAD, VISION_WIDTH)
        for axis in range(2):
            for f, frequency in enumerate(FREQUENCIES):
                sine, cosine = 2 * axis * many + f, (2 * axis + 1) * many + f
                row = 2 * (axis * many + f)
                c, s = math.cos(frequency * step[axis]), math.sin(frequency * step[axis])
                key[row, sine] = key[row + 1, cosine] = 1
                query[row, sine], query[row, cosine] = c, s
                query[row + 1, cosine], query[row + 1, sine] = c, -s
        rows = slice(h * HEAD, (h + 1) * HEAD)
        for linear, values in ((attention.q_proj, query), (attention.k_proj, key)):
            noise = 0.3 * torch.randn(HEAD, VISION_WIDTH) * VISION_WIDTH**-0.5
            linear.weight[rows] = sharpness * values + noise


def _make_blur(layer: Any) -> None:
    """Freeze a block that erases detail twice, by attention to the patch itself and by its MLP, and adds noise.

    A layer norm divides by the spread of a patch, so that subtracting what it lets through erases all if the spread is
    `SPREAD`, and a part of a part if it is nearly so. The MLP is linear for the detail: ``gelu(z) - gelu(-z) = z``.
    """
    attention, mlp = layer.self_attn, layer.mlp
    for linear in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj, mlp.fc1, mlp.fc2):
        linear.bias.zero_()
    for linear in (attention.v_proj, attention.out_proj, mlp.fc2):
        linear.weight.zero_()
    attention.v_proj.weight[:HEAD, DETAIL] = torch.eye(HEAD)
    attention.out_proj.weight[DETAIL, :HEAD] = -SPREAD * torch.eye(HEAD)
    nn.init.normal_(mlp.fc1.weight, std=GAIN * VISION_WIDTH**-0.5)
    mlp.fc1.weight[: 2 * HEAD] = 0
    for rows, sign in ((slice(0, HEAD), 1.0), (slice(HEAD, 2 * HEAD), -1.0)):
        mlp.fc1.weight[rows, DETAIL] = sign * torch.eye(HEAD)
        mlp.fc2.weight[DETAIL, rows] = -sign * SPREAD * torch.eye(HEAD)
    random = mlp.fc2.weight[:, 2 * HEAD :]
    for part, size in ((DETAIL, NOISE["detail"]), (slice(DETAIL.stop, None), NOISE["meaning"])):
        # The standard deviation of gelu(z), z normal with deviation 2, is 1.2.
        nn.init.normal_(random[part], std=size / (1.2 * random.shape[1] ** 0.5))
    for parameter in layer.parameters():
        parameter.requires_grad_(False)


@torch.no_grad()
def constrain(tower: CLIPVisionModel) -> None:
    """Pixels reach the detail alone, and no layer writes over the position code."""
    pixels = tower.embeddings.patch_embedding.weight
    pixels[: DETAIL.start].zero_()
    pixels[DETAIL.stop :].zero_()
    for layer in (*tower.encoder.layers[:BLUR], *tower.encoder.layers[BLUR + 1 :]):
        for linear in (layer.self_attn.out_proj, layer.mlp.fc2):
            linear.weight[POSITION].zero_()
            linear.bias[POSITION].zero_()


class PatchHeads(nn.Module):
    """Linear read-outs of every patch property; the fine ones see the detail alone."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(VISION_WIDTH)
        self.fields = nn.ModuleList(
            nn.Linear(HEAD if i in FINE else VISION_WIDTH, f.values) for i, f in enumerate(FIELDS)
        )

    def forward(self, states_BND: Tensor) -> list[Tensor]:
        """Logits of each field, ``[B, N, values]``."""
        normed = self.norm(states_BND)
        return [read(normed[..., DETAIL] if i in FINE else normed) for i, read in enumerate(self.fields)]


def encode(tower: CLIPVisionModel, patches_BNP: Tensor, chosen_BN: Tensor | None = None) -> list[Tensor]:
    """All hidden states ``[B, 1 + N, D]`` of the class token and of the given patches.

    Args:
        tower: the tower.
        patches_BNP: pixels of the patches, as `Corpus.patches` gives them.
        chosen_BN: where on the grid each patch lies; all in order if ``None``.
    """
    embeddings = tower.embeddings
    positions = embeddings.position_embedding.weight
    states = F.linear(patches_BNP, embeddings.patch_embedding.weight.flatten(1))
    states = states + (positions[1:] if chosen_BN is None else F.embedding(chosen_BN + 1, positions))
    token = (embeddings.class_embedding + positions[0]).to(states.dtype).expand(len(states), 1, -1)
    states = tower.pre_layrnorm(torch.cat([token, states], 1))
    hidden = [states]
    for layer in tower.encoder.layers:
        states = layer(states, None)
        hidden.append(states)
    return hidden


def choose_patches(kinds_BN: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices ``[B, count]``: patches that show something first, then background at random, in grid order."""
    order = torch.rand(kinds_BN.shape, generator=generator) + 2 * (kinds_BN > 0).float()
    return order.topk(count, 1).indices.sort(1).values


def at(labels_BNF: Tensor, chosen_BN: Tensor) -> Tensor:
    """The labels of chosen patches."""
    return labels_BNF.gather(1, chosen_BN[..., None].expand(-1, -1, labels_BNF.shape[-1]))


def draw_patches(
    corpus: Corpus, pictures: int, patches: int, rng: random.Random, generator: torch.Generator
) -> tuple[list[int], Tensor, Tensor]:
    """Some pictures of a corpus by index, patches ``[B, N]`` of each, and their labels ``[B, N, fields]``."""
    indices = rng.sample(range(corpus.size), pictures)
    labels = corpus.labels(indices)
    chosen = choose_patches(labels[..., KIND], patches, generator)
    return indices, chosen, at(labels, chosen)


class Looked(NamedTuple):
    """What a step of the tower sees: pixels ``[B, N, 588]`` of the chosen patches ``[B, N]``, and their labels."""

    patches_BNP: Tensor
    chosen_BN: Tensor
    labels_BNF: Tensor


class Looks(Steps[Looked]):
    """Pictures of a corpus, shown in part."""

    def __init__(self, corpus: Corpus, seed: int, pictures: int = 10, patches: int = 256):
        self._corpus, self._seed, self._pictures, self._patches = corpus, seed, pictures, patches

    def __getitem__(self, step: int) -> Looked:
        """Some pictures, and in them all that shows something."""
        drawn = draws(self._seed, step)
        indices, chosen, labels = draw_patches(self._corpus, self._pictures, self._patches, *drawn)
        return Looked(self._corpus.patches(indices, chosen), chosen, labels)


def dense_loss(heads: nn.ModuleDict, hidden: list[Tensor], labels: Tensor) -> Tensor:
    """Loss of all read-outs, and of the penalties, over the hidden states ``[B, N, D]`` of labelled patches."""
    total = _discretion(hidden, labels)
    for layer, fields, weight in SUPERVISED:
        read = heads[str(layer)](hidden[layer])
        for index in range(len(FIELDS)) if fields is None else fields:
            if fields is None and index in FINE:
                continue
            flat, target = read[index].float().flatten(0, 1), labels[..., index].flatten()
            balance = None
            if index in (KIND, CENTER, ROLE):
                balance = torch.ones(flat.shape[-1], device=flat.device)
                balance[:1].fill_(0.1 if index == ROLE else 0.2)
            # A sum over what has the property, so that none is no division by zero.
            weighed = F.cross_entropy(flat, target, balance, ignore_index=IGNORE, reduction="sum")
            shown = target != IGNORE
            size = shown.sum() if balance is None else (balance[target.clamp(min=0)] * shown).sum()
            total = total + weight * WEIGHTS.get(index, 1.0) * weighed / size.clamp(min=1e-6)
    return total


def _leak(states: Tensor, labels: Tensor) -> Tensor:
    """Variance of patches that tells what is written on them, or which pattern they have, by that of all at `SPREAD`.

    Args:
        states: ``[B, N, width]`` without the position code.
        labels: ``[B, N, fields]``.
    """
    whole = SPREAD**2 * states.shape[-1]
    written = (labels[..., LETTER] >= 0, (labels[..., TENS] >= 0) | (labels[..., ONES] >= 0))
    total = sum((_variance(states, where) / whole for where in written), torch.zeros((), device=states.device))
    means, there = [], []
    for value in range(3):
        where = labels[..., PATTERN] == value
        means.append((states * where[..., None]).sum((0, 1)) / where.sum().clamp(min=1))
        there.append(where.any())
    return total + 3 * torch.stack(there).all() * torch.stack(means).var(0).sum() / whole


def _variance(states: Tensor, where: Tensor) -> Tensor:
    """Summed over the width, of the states where it is so; 0 of fewer than two."""
    count = where.sum()
    mean = (states * where[..., None]).sum((0, 1)) / count.clamp(min=1)
    squares = ((states - mean) * where[..., None]).square().sum()
    return torch.where(count > 1, squares / (count - 1).clamp(min=1), torch.zeros_like(squares))


def _discretion(hidden: list[Tensor], labels: Tensor) -> Tensor:
    """Loss of a blur that does not erase alike everywhere, and of detail that reaches the deep layers."""
    before, deep = hidden[BLUR].float(), hidden[USED_LAYER].float()
    steadiness = (before.std(-1) / SPREAD - 1).square().mean() + 0.1 * (deep.std(-1) / SPREAD - 1).square().mean()
    leak = _leak(before[..., DETAIL.stop :], labels) + _leak(deep[..., POSITION.stop :], labels)
    return STEADINESS * steadiness + SECRECY * leak


def make_heads() -> nn.ModuleDict:
    """Read-outs of every supervised layer."""
    return nn.ModuleDict({str(layer): PatchHeads() for layer, _, _ in SUPERVISED})


@torch.no_grad()
def patch_accuracy(tower: CLIPVisionModel, heads: nn.ModuleDict, corpus: Corpus, layer: int) -> dict[str, float]:
    """Accuracy of each field over the patches that it applies to (foreground for kind and centre, ones with a role)."""
    right, count = dict.fromkeys((f.name for f in FIELDS), 0), dict.fromkeys((f.name for f in FIELDS), 0)
    for start in range(0, corpus.size, 24):
        indices = range(start, min(start + 24, corpus.size))
        shown, seen = corpus.labels(indices).to(tower.device), corpus.patches(indices).to(tower.device)
        with torch.autocast(tower.device.type, torch.bfloat16):
            read = heads[str(layer)](encode(tower, seen)[layer][:, 1:])
        for index, (field, logits) in enumerate(zip(FIELDS, read, strict=True)):
            labels = shown[..., index]
            where = labels > 0 if index in (KIND, CENTER, ROLE) else labels != IGNORE
            right[field.name] += int((logits.argmax(-1) == labels)[where].sum())
            count[field.name] += int(where.sum())
    return {name: right[name] / max(count[name], 1) for name in right}


def train_tower(
    tower: CLIPVisionModel, heads: nn.ModuleDict, looks: Iterable[Looked], steps: int, rate: float = 2e-3
) -> Iterator[tuple[int, Tensor]]:
    """Train on what ``steps`` looks show, yielding (step, loss)."""
    frozen = {*tower.encoder.layers[BLUR].parameters(), tower.embeddings.position_embedding.weight}
    parameters = [p for p in (*tower.parameters(), *heads.parameters()) if p not in frozen]
    optimizer = Adam([{"params": parameters, "weight_decay": 0.05}], rate, steps)

    def update(look: Looked) -> Tensor:
        with torch.autocast(tower.device.type, torch.bfloat16):
            hidden = [states[:, 1:] for states in encode(tower, look.patches_BNP, look.chosen_BN)]
            loss = dense_loss(heads, hidden, look.labels_BNF)
        torch.autograd.backward(loss)
        optimizer.step()
        constrain(tower)
        return loss.detach()

    update_at_once = launched_at_once(update, tower.device)
    for step, look in enumerate(looks):
        optimizer.begin(step)
        yield step, update_at_once(look)
