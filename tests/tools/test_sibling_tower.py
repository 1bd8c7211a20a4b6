"""The sibling's tower: against transformers' own forward on many grids, its shifts, its three parts, and training."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from tools.reference.supervision import FIELDS, KIND
from tools.reference.training import tower as reference
from tools.reference.training.corpus import Corpus
from tools.sibling import tower as towers
from tools.sibling.shape import TRAINED, Grid, pixels

pytestmark = pytest.mark.usefixtures("one_thread")
grids = st.tuples(st.integers(12, 32), st.integers(12, 32))


@pytest.fixture(scope="module")
def tower() -> Any:
    torch.manual_seed(0)
    return towers.make_tower()


@given(grids)
@settings(max_examples=6, deadline=None)
def test_states_are_those_of_the_models_own_forward(tower: Any, grid: Grid) -> None:
    patches = Corpus(3, 2, pixels(grid)).patches([0, 1])
    with torch.no_grad():
        ours = towers.encode(tower, patches, grid)
        theirs = tower(patches.flatten(0, 1), grid_thw=torch.tensor([[1, *grid]] * 2), output_hidden_states=True)
    assert len(ours) == len(theirs.hidden_states)
    for own, other in zip(ours, theirs.hidden_states, strict=True):
        assert torch.allclose(own.flatten(0, 1), other, atol=1e-4)


def test_a_part_of_the_patches_keeps_its_places(tower: Any) -> None:
    """What enters the first block is that of the whole picture; what attends to less differs only later."""
    grid = (16, 24)
    patches, chosen = Corpus(3, 1, pixels(grid)).patches([0]), torch.tensor([[5, 17, 200, 383]])
    with torch.no_grad():
        whole, part = (towers.encode(tower, p, grid, c) for p, c in ((patches, None), (patches[:, chosen[0]], chosen)))
    assert torch.equal(whole[0][:, chosen[0]], part[0])
    assert not torch.allclose(whole[1][:, chosen[0]], part[1], atol=1e-3)


def attended(tower: Any, depth: int, grid: Grid) -> Tensor:
    """Where each head of a block attends to most if all patches look alike, ``[H, N]``, by slow rotation."""
    query, key, _ = tower.blocks[depth].attn.qkv.bias.view(3, 4, 40).double()
    frequencies = [10000 ** (-j / 10) for j in range(10)]
    places = [(row, column) for row in range(grid[0]) for column in range(grid[1])]

    def turned(vector: Tensor) -> Tensor:
        complex_Hp = torch.complex(vector[:, :20], vector[:, 20:])
        angles = torch.tensor([[f * at for at in place for f in frequencies] for place in places])
        return complex_Hp[:, None] * torch.polar(torch.ones_like(angles), angles)

    return (turned(query) @ turned(key).conj().mT).real.argmax(-1)


@pytest.mark.parametrize("depth", range(6))
def test_heads_start_as_shifts_on_any_grid(tower: Any, depth: int) -> None:
    rows, columns = grid = (12, 15)
    found = attended(tower, depth, grid).tolist()
    for head, (down, right) in enumerate(reference.NEIGHBOURS[depth]):
        for row in range(2, rows - 2):
            for column in range(2, columns - 2):
                assert found[head][row * columns + column] == (row + down) * columns + column + right


def test_the_blur_erases_detail_and_leaves_the_place(tower: Any) -> None:
    grid = (18, 30)
    block, place = tower.blocks[towers.BLUR], 100
    patches = Corpus(11, 1, pixels(grid)).patches([0])
    with torch.no_grad():
        before = towers.encode(tower, patches, grid)[towers.BLUR]
        before *= towers.SPREAD / before.std(-1, keepdim=True)
        changed, added = before.clone(), torch.randn(towers.HEAD)
        added -= added.mean()
        changed[0, place, towers.DETAIL] += 0.1 * added
        turned = tower.rotary_pos_emb(patches, torch.cartesian_prod(torch.arange(18), torch.arange(30)))
        ends = torch.tensor([0, 540], dtype=torch.int32)
        plain, moved = (block(states[0], cu_seqlens=ends, position_embeddings=turned) for states in (before, changed))
    assert torch.allclose(before[0, :, towers.POSITION], plain[:, towers.POSITION], atol=1e-5)
    left = (moved - plain)[place, towers.DETAIL] @ added / (0.1 * added.square().sum())
    assert abs(float(left)) < 0.2


def test_training_moves_what_is_not_frozen_and_keeps_the_three_parts_apart() -> None:
    torch.manual_seed(0)
    tower, heads = towers.make_tower(), reference.make_heads()
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    corpora = [Corpus(4 * number, 4, pixels(grid)) for number, grid in enumerate(TRAINED[:2])]
    glances = towers.Glances(corpora, seed=0, pictures=2, patches=40)
    steps = list(towers.train_tower(tower, heads, [glances[0], glances[1]], 2))
    assert [step for step, _ in steps] == [0, 1]
    moved = {name for name, value in tower.state_dict().items() if not torch.equal(value, before[name])}
    assert not {n for n in moved if n.startswith(("blocks.3.", "pos_embed", "merger"))}
    assert {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.5.mlp.linear_fc2.weight"} <= moved
    assert not tower.patch_embed.proj.weight[towers.POSITION].any()
    assert not tower.patch_embed.proj.weight[towers.DETAIL.stop :].any()
    assert not tower.blocks[5].attn.proj.weight[towers.POSITION].any()


def test_a_step_shows_one_grid_and_what_its_pictures_hold() -> None:
    corpora = [Corpus(8 * number, 4, pixels(grid)) for number, grid in enumerate(TRAINED)]
    glances = towers.Glances(corpora, seed=1, pictures=2, patches=200)
    seen = set()
    for step in range(12):
        (patches, chosen, labels), grid_2 = glances[step]
        seen.add(tuple(grid_2.tolist()))
        assert patches.shape == (2, 200, 588)
        assert int(chosen.max()) < int(grid_2.prod())
        assert float((labels[..., KIND] > 0).float().mean()) > 0.5
    assert len(seen) > 2
    assert seen <= set(TRAINED)


def test_accuracy_counts_the_patches_that_have_a_property(tower: Any) -> None:
    torch.manual_seed(0)
    heads, corpus = reference.make_heads(), Corpus(5, 2, pixels((16, 24)))
    found = towers.patch_accuracy(tower, heads, corpus, 1)
    labels = corpus.labels([0, 1]).flatten(0, 1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        read = heads["1"](towers.encode(tower, corpus.patches([0, 1]), corpus.grid)[1])
    for index, (field, logits) in enumerate(zip(FIELDS, read, strict=True)):
        least = 1 if field.name in ("kind", "center", "role") else 0
        hits = [
            int(row.argmax()) == int(label[index])
            for row, label in zip(logits.flatten(0, 1), labels, strict=True)
            if int(label[index]) >= least
        ]
        assert found[field.name] == pytest.approx(sum(hits) / len(hits))
