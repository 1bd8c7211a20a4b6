"""The sibling's vision tower, trained like the embedded model's to say what every patch shows, on many grids.

What differs: there is no class token; the position code is a table for 24 x 24 that is interpolated to a picture's
grid; and heads start as shifts on the grid through the rotary embedding, by queries and keys that are the same
everywhere.

Shapes: B pictures of one grid, N patches taken of all, D width, H heads, d width of a head.
"""

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen3VLVisionModel
from transformers.models.qwen3_vl.modeling_qwen3_vl import rotate_half
from transformers.vision_utils import get_vision_interpolation_indices_and_weights

from tools.reference.shape import VISION_WIDTH
from tools.reference.supervision import CENTER, FIELDS, IGNORE, KIND, ROLE
from tools.reference.training.corpus import Corpus
from tools.reference.training.optimizer import Adam
from tools.reference.training.stepwise import Steps
from tools.reference.training.tower import (
    BLUR,
    DETAIL,
    GAIN,
    HEAD,
    LOUDNESS,
    NEIGHBOURS,
    NOISE,
    POSITION,
    SPREAD,
    Looked,
    Looks,
    dense_loss,
    position_code,
)
from tools.sibling.shape import DEPTH, HEADS, Grid, vision_config

TURNS = 4
"""Of the rotary frequencies of an axis, so many of the highest make a shift."""
SHARPNESS, BLUR_SHARPNESS = 6.2, 12.6
"""Length of the constant queries and keys in each of the planes that are turned."""


def make_tower() -> Any:
    """An untrained tower whose heads start as shifts on the grid."""
    tower = Qwen3VLVisionModel(vision_config())
    with torch.no_grad():
        tower.pos_embed.weight.zero_()
        tower.pos_embed.weight[:, POSITION] = LOUDNESS * position_code()
        nn.init.normal_(tower.patch_embed.proj.weight, std=588**-0.5)
        tower.patch_embed.proj.bias.zero_()
        scale = 1 / math.sqrt(2 * DEPTH)
        for depth, block in enumerate(tower.blocks):
            for linear in (block.attn.qkv, block.attn.proj, block.mlp.linear_fc1, block.mlp.linear_fc2):
                linear.bias.zero_()
            nn.init.normal_(block.attn.qkv.weight, std=0.8 * VISION_WIDTH**-0.5)
            block.attn.qkv.weight[: 2 * VISION_WIDTH].mul_(0.375)
            nn.init.normal_(block.mlp.linear_fc1.weight, std=0.8 * VISION_WIDTH**-0.5)
            nn.init.normal_(block.attn.proj.weight, std=scale * VISION_WIDTH**-0.5)
            nn.init.normal_(block.mlp.linear_fc2.weight, std=scale * (4 * VISION_WIDTH) ** -0.5)
            _shift_heads(block.attn, NEIGHBOURS[depth], tower.rotary_pos_emb.inv_freq, SHARPNESS)
        _make_blur(tower.blocks[BLUR], tower.rotary_pos_emb.inv_freq)
    constrain(tower)
    return tower


def _shift_heads(attention: Any, offsets: Sequence[Grid], frequencies: Tensor, sharpness: float) -> None:
    """Set the biases of queries and keys such that head h of a patch attends to the patch at ``offsets[h]``."""
    query, key, _ = attention.qkv.bias.view(3, HEADS, HEAD)
    half = HEAD // 2
    for h, step in enumerate(offsets):
        for axis in range(2):
            for turn in range(TURNS):
                plane = axis * half // 2 + turn
                angle = float(frequencies[turn]) * step[axis]
                key[h, plane] = sharpness
                query[h, plane], query[h, half + plane] = sharpness * math.cos(angle), sharpness * math.sin(angle)


def _make_blur(block: Any, frequencies: Tensor) -> None:
    """The embedded tower's frozen block, that erases detail twice and adds noise."""
    attention, mlp = block.attn, block.mlp
    for linear in (attention.qkv, attention.proj, mlp.linear_fc2):
        linear.weight.zero_()
        linear.bias.zero_()
    _shift_heads(attention, NEIGHBOURS[BLUR], frequencies, BLUR_SHARPNESS)
    values = attention.qkv.weight[2 * VISION_WIDTH :]
    values[:HEAD, DETAIL] = torch.eye(HEAD)
    attention.proj.weight[DETAIL, :HEAD] = -SPREAD * torch.eye(HEAD)
    nn.init.normal_(mlp.linear_fc1.weight, std=GAIN * VISION_WIDTH**-0.5)
    mlp.linear_fc1.weight[: 2 * HEAD] = 0
    mlp.linear_fc1.bias.zero_()
    for rows, sign in ((slice(0, HEAD), 1.0), (slice(HEAD, 2 * HEAD), -1.0)):
        mlp.linear_fc1.weight[rows, DETAIL] = sign * torch.eye(HEAD)
        mlp.linear_fc2.weight[DETAIL, rows] = -sign * SPREAD * torch.eye(HEAD)
    noise = mlp.linear_fc2.weight[:, 2 * HEAD :]
    for part, size in ((DETAIL, NOISE["detail"]), (slice(DETAIL.stop, None), NOISE["meaning"])):
        # The standard deviation of gelu(z), z normal with deviation 2, is 1.2.
        nn.init.normal_(noise[part], std=size / (1.2 * noise.shape[1] ** 0.5))
    for parameter in block.parameters():
        parameter.requires_grad_(False)


@torch.no_grad()
def constrain(tower: Any) -> None:
    """Pixels reach the detail alone, and no layer writes over the position code."""
    for pixels in (tower.patch_embed.proj.weight, tower.patch_embed.proj.bias):
        pixels[: DETAIL.start].zero_()
        pixels[DETAIL.stop :].zero_()
    for block in (*tower.blocks[:BLUR], *tower.blocks[BLUR + 1 :]):
        for linear in (block.attn.proj, block.mlp.linear_fc2):
            linear.weight[POSITION].zero_()
            linear.bias[POSITION].zero_()


def encode(tower: Any, patches_BNP: Tensor, grid: Grid, chosen_BN: Tensor | None = None) -> list[Tensor]:
    """All hidden states ``[B, N, D]`` of the given patches, as the model's own forward has them.

    Args:
        tower: the tower.
        patches_BNP: pixels of the patches, as `Corpus.patches` gives them.
        grid: of the pictures.
        chosen_BN: where on the grid each patch lies; all in order if ``None``.
    """
    every = torch.arange(grid[0] * grid[1])
    place_BN = (every if chosen_BN is None else chosen_BN).expand(len(patches_BNP), -1)
    index, weight = get_vision_interpolation_indices_and_weights(
        torch.tensor([[1, *grid]]), num_grid_per_side=tower.num_grid_per_side, align_corners=True
    )
    table = (tower.pos_embed.weight[index] * weight[..., None]).sum(1)
    turned = tower.rotary_pos_emb(patches_BNP, torch.stack([every // grid[1], every % grid[1]], -1))
    cosine, sine = (part[place_BN][:, None] for part in turned)
    states = F.linear(patches_BNP, tower.patch_embed.proj.weight.flatten(1), tower.patch_embed.proj.bias)
    states = states.float() + table[place_BN]
    hidden = [states]
    for block in tower.blocks:
        query, key, value = block.attn.qkv(block.norm1(states)).unflatten(-1, (3, HEADS, HEAD)).permute(2, 0, 3, 1, 4)
        query, key = ((part * cosine + rotate_half(part) * sine).to(value.dtype) for part in (query, key))
        mixed = (query @ key.mT * block.attn.scaling).softmax(-1).to(value.dtype) @ value
        states = states + block.attn.proj(mixed.transpose(1, 2).flatten(2))
        states = states + block.mlp(block.norm2(states))
        hidden.append(states)
    return hidden


class Glance(NamedTuple):
    """What a step of the tower sees, and the grid ``[2]`` of its pictures."""

    looked: Looked
    grid_2: Tensor


class Glances(Steps[Glance]):
    """Pictures of several corpora in part, all of a step of one corpus."""

    def __init__(self, corpora: Sequence[Corpus], seed: int, pictures: int = 10, patches: int = 256):
        self._corpora, self._seed = corpora, seed
        self._looks = [Looks(corpus, seed, pictures, patches) for corpus in corpora]

    def __getitem__(self, step: int) -> Glance:
        """Some pictures of one grid, and in them all that shows something."""
        drawn = random.Random(f"grid-{self._seed}-{step}").randrange(len(self._looks))
        return Glance(self._looks[drawn][step], torch.tensor(self._corpora[drawn].grid))


def train_tower(
    tower: Any, heads: nn.ModuleDict, glances: Iterable[Glance], steps: int, rate: float = 2e-3
) -> Iterator[tuple[int, Tensor]]:
    """Train on what ``steps`` glances show, yielding (step, loss)."""
    frozen = {*tower.blocks[BLUR].parameters(), tower.pos_embed.weight, *tower.merger.parameters()}
    parameters = [p for p in (*tower.parameters(), *heads.parameters()) if p not in frozen]
    optimizer = Adam([{"params": parameters, "weight_decay": 0.05}], rate, steps)
    for step, (looked, grid_2) in enumerate(glances):
        optimizer.begin(step)
        rows, columns = grid_2.tolist()
        with torch.autocast("cpu", torch.bfloat16):
            hidden = encode(tower, looked.patches_BNP, (rows, columns), looked.chosen_BN)
            loss = dense_loss(heads, hidden, looked.labels_BNF)
        torch.autograd.backward(loss)
        optimizer.step()
        constrain(tower)
        yield step, loss.detach()


@torch.no_grad()
def patch_accuracy(tower: Any, heads: nn.ModuleDict, corpus: Corpus, layer: int) -> dict[str, float]:
    """Accuracy of each field over the patches that it applies to (foreground for kind and centre, ones with a role)."""
    labels, shown = corpus.labels(range(corpus.size)), corpus.patches(range(corpus.size))
    with torch.autocast("cpu", torch.bfloat16):
        read = heads[str(layer)](encode(tower, shown, corpus.grid)[layer])
    found = {}
    for index, (field, logits) in enumerate(zip(FIELDS, read, strict=True)):
        wanted = labels[..., index]
        where = wanted > 0 if index in (KIND, CENTER, ROLE) else wanted != IGNORE
        found[field.name] = float((logits.argmax(-1) == wanted)[where].float().mean())
    return found
