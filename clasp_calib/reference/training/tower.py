"""The vision tower, trained to say what every patch shows.

Shapes: B pictures, N patches taken of 576, D width. Only a part of the patches is encoded at a time (all that show
something, and some background); attention over 576 at inference works unchanged.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionModel

from clasp_calib.reference.model import VISION_LAYERS, WIDTH, vision_config
from clasp_calib.reference.supervision import CENTER, FIELDS, IGNORE, KIND
from clasp_calib.reference.training.corpus import Corpus
from clasp_calib.reference.training.schedule import rate_at
from clasp_calib.reference.vocabulary import GRID, PLACES, TIMES

USED_LAYER = VISION_LAYERS - 1
"""``hidden_states`` index that the projector reads: the model's ``vision_feature_layer`` of -2."""
NEIGHBOURS = (
    ((0, -1), (0, 1), (-1, 0), (1, 0)),
    ((0, -1), (0, 1), (-1, -1), (1, 1)),
    ((0, -2), (0, 2), (-1, 0), (1, 0)),
    ((0, -2), (0, 2), (-2, 0), (2, 0)),
    ((0, -1), (0, 1), (-1, 1), (1, -1)),
)
"""Grid offsets that the heads of a layer attend to at the start: a convolution to depart from."""


def sinusoids(width: int = WIDTH, grid: int = GRID) -> Tensor:
    """Sines and cosines of row and column, ``[grid * grid, width]``."""
    rows, columns = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    frequency = 1 / 100 ** (torch.arange(width // 4) / (width // 4))
    angles = [axis.reshape(-1, 1) * frequency for axis in (rows, columns)]
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], 1)


def make_tower() -> CLIPVisionModel:
    """An untrained tower whose heads start as shifts on the grid; the last block is the identity.

    Patch attention that starts as a shift learns in hundreds of steps what a random start does not in thousands.
    """
    tower = CLIPVisionModel(vision_config())
    # Explicit attention: the fused kernel's bf16 backward is slow on CPUs at these sizes.
    tower.set_attn_implementation("eager")
    with torch.no_grad():
        tower.embeddings.position_embedding.weight[1:] = sinusoids()
        nn.init.normal_(tower.embeddings.patch_embedding.weight, std=588**-0.5)
        for depth, layer in enumerate(tower.encoder.layers):
            attention = layer.self_attn
            for linear in (attention.q_proj, attention.k_proj, attention.v_proj, layer.mlp.fc1):
                nn.init.normal_(linear.weight, std=0.8 * WIDTH**-0.5)
            used = depth < USED_LAYER
            scale = 1 / math.sqrt(2 * USED_LAYER) if used else 0.0
            nn.init.normal_(attention.out_proj.weight, std=scale * WIDTH**-0.5)
            nn.init.normal_(layer.mlp.fc2.weight, std=scale * (4 * WIDTH) ** -0.5)
            if used:
                _shift_heads(attention, NEIGHBOURS[depth])
    return tower


def _shift_heads(attention: Any, offsets: tuple[tuple[int, int], ...]) -> None:
    """Set queries and keys such that head h of a patch attends to the patch at ``offsets[h]``."""
    quarter, head = WIDTH // 4, WIDTH // len(offsets)
    frequency = 1 / 100 ** (torch.arange(quarter) / quarter)
    for h, (dy, dx) in enumerate(offsets):
        query, key = torch.zeros(head, WIDTH), torch.zeros(head, WIDTH)
        for j, f in enumerate(range(0, 16, 2)):
            for axis, step in enumerate((dy, dx)):
                sine, cosine = axis * 2 * quarter + f, axis * 2 * quarter + quarter + f
                row = 4 * j + 2 * axis
                c, s = math.cos(float(frequency[f]) * step), math.sin(float(frequency[f]) * step)
                key[row, sine] = key[row + 1, cosine] = 1
                query[row, sine], query[row, cosine] = c, s
                query[row + 1, cosine], query[row + 1, sine] = c, -s
        rows = slice(h * head, (h + 1) * head)
        for linear, values in ((attention.q_proj, query), (attention.k_proj, key)):
            noise = 0.3 * torch.randn(head, WIDTH) * WIDTH**-0.5
            linear.weight[rows] = 4.5 * values + noise


class PatchHeads(nn.Module):
    """Linear read-outs of every patch property, and of place and time from the class token."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.fields = nn.Linear(WIDTH, sum(f.values for f in FIELDS))
        self.surroundings = nn.Linear(WIDTH, len(PLACES) + len(TIMES))

    def forward(self, states_BND: Tensor) -> tuple[Tensor, ...]:
        """Logits of each field, ``[B, N, values]``."""
        read: Tensor = self.fields(self.norm(states_BND))
        return torch.split(read, [f.values for f in FIELDS], -1)

    def whole(self, state_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of place and time, ``[B, 5]`` and ``[B, 2]``."""
        place, time = self.surroundings(self.norm(state_BD)).split([len(PLACES), len(TIMES)], -1)
        return place, time


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


def choose_patches(kinds_BN: Tensor, count: int) -> Tensor:
    """Indices ``[B, count]``: patches that show something first, then background at random, in grid order."""
    order = torch.rand(kinds_BN.shape) + 2 * (kinds_BN > 0).float()
    return order.topk(count, 1).indices.sort(1).values


def _loss(heads: PatchHeads, hidden: list[Tensor], labels: Tensor, surroundings: Tensor) -> Tensor:
    total = torch.zeros(())
    for layer, weight in ((2, 0.3), (USED_LAYER, 1.0)):
        for index, logits in enumerate(heads(hidden[layer][:, 1:])):
            flat = logits.float().flatten(0, 1)
            balance = None
            if index in (KIND, CENTER):
                balance = torch.ones(flat.shape[-1])
                balance[0] = 0.2
            target = labels[..., index].flatten()
            if bool((target != IGNORE).any()):
                total = total + weight * F.cross_entropy(flat, target, balance, ignore_index=IGNORE)
    for logits, target in zip(heads.whole(hidden[USED_LAYER][:, 0]), surroundings.T, strict=True):
        total = total + 0.3 * F.cross_entropy(logits.float(), target)
    return total


@torch.no_grad()
def patch_accuracy(tower: CLIPVisionModel, heads: PatchHeads, corpus: Corpus, layer: int) -> dict[str, float]:
    """Accuracy of each field over the patches that it applies to (foreground, for kind and centre)."""
    right, count = dict.fromkeys((f.name for f in FIELDS), 0), dict.fromkeys((f.name for f in FIELDS), 0)
    for start in range(0, corpus.size, 24):
        indices = list(range(start, min(start + 24, corpus.size)))
        with torch.autocast("cpu", torch.bfloat16):
            read = heads(encode(tower, corpus.patches(indices))[layer][:, 1:])
        for index, (field, logits) in enumerate(zip(FIELDS, read, strict=True)):
            labels = corpus.labels[indices][..., index]
            where = labels > 0 if index in (KIND, CENTER) else labels != IGNORE
            right[field.name] += int((logits.argmax(-1) == labels)[where].sum())
            count[field.name] += int(where.sum())
    return {name: right[name] / max(count[name], 1) for name in right}


def train_tower(
    tower: CLIPVisionModel,
    heads: PatchHeads,
    corpus: Corpus,
    steps: int,
    seed: int,
    batch: int = 16,
    patches: int = 80,
    rate: float = 2e-3,
) -> Iterator[tuple[int, float]]:
    """Train, yielding (step, loss)."""
    parameters = [*tower.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.95), weight_decay=0.05)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps, rate)
        indices = torch.randperm(corpus.size, generator=generator)[:batch].tolist()
        chosen = choose_patches(corpus.labels[indices][..., KIND], patches)
        labels = corpus.labels[indices].gather(1, chosen[..., None].expand(-1, -1, len(FIELDS)))
        with torch.autocast("cpu", torch.bfloat16):
            hidden = encode(tower, corpus.patches(indices, chosen), chosen)
            loss = _loss(heads, hidden, labels, corpus.surroundings[indices])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        yield step, loss.item()
