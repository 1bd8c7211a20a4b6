"""The vision tower: against transformers' own forward, its three parts, the blur, and its losses."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from same_loss import assert_same_loss, gradients
from torch import Tensor
from transformers import CLIPVisionModel, LlavaForConditionalGeneration, PreTrainedTokenizerFast
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from clasp_calib.runtime.adapters import adapter_for
from tools.reference.export import assemble
from tools.reference.shape import llava_config, processor
from tools.reference.supervision import CENTER, FIELDS, FINE, IGNORE, KIND, LETTER, ONES, PATTERN, ROLE, TENS
from tools.reference.training import tower as towers
from tools.reference.training.corpus import Corpus
from tools.reference.training.decoder import make_decoder
from tools.reference.training.schedule import rate_at

pytestmark = pytest.mark.usefixtures("one_thread")


class Taught(NamedTuple):
    tower: CLIPVisionModel
    before: dict[str, Tensor]
    """Its state before two steps of training."""


@pytest.fixture(scope="module")
def taught(one_thread: None) -> Taught:
    torch.manual_seed(0)
    tower, heads = towers.make_tower(), towers.make_heads()
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    looks = towers.Looks(Corpus(0, 4), seed=0, pictures=2, patches=40)
    steps = list(towers.train_tower(tower, heads, [looks[0], looks[1]], 2))
    assert [step for step, _ in steps] == [0, 1]
    return Taught(tower, before)


@pytest.fixture(scope="module")
def model(taught: Taught) -> LlavaForConditionalGeneration:
    vocabulary = 300
    projector = LlavaMultiModalProjector(llava_config(vocabulary))
    return assemble(taught.tower, projector, make_decoder(vocabulary), vocabulary).eval()


def test_the_tower_sees_what_transformers_sees(
    model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast
) -> None:
    corpus = Corpus(11, 2)
    prepare = processor(tokenizer).image_processor
    pixels = prepare([corpus.scene(i).picture() for i in range(2)], return_tensors="pt").pixel_values
    with torch.no_grad():
        theirs = adapter_for(model).capture(model, pixels)
        ours = towers.encode(model.model.vision_tower, corpus.patches([0, 1]))
        some = torch.tensor([[3, 77, 500], [0, 1, 575]])
        first = towers.encode(model.model.vision_tower, corpus.patches([0, 1], some), some)[0]
    assert len(ours) == 8
    for layer, states in enumerate(ours):
        # Sharp attention makes much of the last bits of a float32: behind the blur the thousandths differ.
        assert torch.allclose(theirs[:, layer], states[:, 1:], atol=1e-4 if layer <= towers.BLUR else 5e-3)
    assert torch.allclose(first[:, 1:], ours[0][:, 1:].gather(1, some[..., None].expand(-1, -1, 160)), atol=1e-5)


def test_pixels_reach_the_detail_alone_and_the_position_is_left_as_it_is(taught: Taught) -> None:
    corpus = Corpus(11, 2)
    with torch.no_grad():
        hidden = torch.stack(towers.encode(taught.tower, corpus.patches([0, 1])))
        pixels = taught.tower.embeddings.patch_embedding.weight.flatten(1)
    touched = pixels.abs().sum(1) > 0
    assert touched.nonzero()[:, 0].tolist() == list(range(towers.DETAIL.start, towers.DETAIL.stop))
    positions = hidden[..., towers.POSITION]
    assert torch.equal(positions, positions[:1].expand_as(positions))
    rest = hidden[..., towers.DETAIL.stop :]
    assert all(not torch.equal(rest[layer], rest[layer + 1]) for layer in range(6) if layer != towers.BLUR)
    assert torch.equal(hidden[7], hidden[6])


def test_the_blur_is_frozen_and_the_rest_learns(taught: Taught) -> None:
    before = taught.before
    same = {name for name, value in taught.tower.state_dict().items() if torch.equal(value, before[name])}
    blur = {name for name in before if f"layers.{towers.BLUR}." in name}
    assert blur <= same
    assert any(name.endswith("position_embedding.weight") for name in same)
    learning = ("q_proj.weight", "fc1.weight", "out_proj.weight", "fc2.weight", "patch_embedding.weight")
    for name in before:
        if name.endswith(learning) and name not in blur and "layers.6" not in name:
            assert name not in same


def test_the_first_step_is_as_long_as_its_rate() -> None:
    """Adam's first is, whatever the gradient."""
    torch.manual_seed(0)
    tower, heads = towers.make_tower(), towers.make_heads()
    bias = tower.encoder.layers[0].mlp.fc1.bias
    before = bias.detach().clone()
    ((step, _),) = towers.train_tower(tower, heads, [towers.Looks(Corpus(0, 2), 0, 2, 40)[0]], 1000, rate=0.1)
    assert step == 0
    assert float((bias - before).detach().abs().median()) == pytest.approx(rate_at(0, 1000, 0.1), rel=1e-2)


def test_the_blur_erases_detail() -> None:
    """Of what is added to the detail of a patch, next to nothing is left behind the blur."""
    torch.manual_seed(0)
    tower = towers.make_tower()
    block = tower.encoder.layers[towers.BLUR]
    with torch.no_grad():
        before = towers.encode(tower, Corpus(11, 1).patches([0]))[towers.BLUR]
        before *= towers.SPREAD / before.std(-1, keepdim=True)
        plain = block(before, None)
        assert torch.allclose(before[..., towers.POSITION], plain[..., towers.POSITION], atol=1e-5)
        left = []
        for place in range(30, 560, 25):
            added = torch.randn(towers.HEAD)
            added -= added.mean()
            changed = before.clone()
            changed[0, place, towers.DETAIL] += 0.1 * added
            moved = (block(changed, None) - plain)[0, place, towers.DETAIL]
            left.append(float(moved @ added / (0.1 * added.square().sum())))
    assert abs(np.mean(left)) < 0.2


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.mark.parametrize("count", [0, 1, 2, 17])
def test_the_variance_is_that_of_the_states_where_it_is_so(count: int) -> None:
    states, where = drawn(2, 20, 5), torch.zeros(40, dtype=torch.bool)
    where[torch.randperm(40, generator=torch.Generator().manual_seed(1))[:count]] = True
    where = where.view(2, 20)
    slow = states[where].var(0).sum() if count > 1 else torch.zeros(())
    ours = towers._variance(states, where)
    assert_same_loss(ours, slow, [states])
    assert torch.equal(gradients(ours, [states])[0].any(-1), where & (count > 1))


def shown_labels(case: str) -> Tensor:
    """Labels of some patches of two pictures, ``[2, 120, fields]``."""
    corpus = Corpus(2, 2)
    labels = corpus.labels([0, 1])
    labels = towers.at(labels, towers.choose_patches(labels[..., KIND], 120, torch.Generator().manual_seed(0)))
    if case != "everything":
        labels[..., [LETTER, TENS, ONES]] = IGNORE
    if case == "one letter":
        labels[0, 5, LETTER] = 3
    if case == "two patterns":
        labels[labels[..., PATTERN] == 2, PATTERN] = 1
    if case == "no property":
        labels[...] = IGNORE
    return labels


CASES = pytest.mark.parametrize("case", ["everything", "nothing written", "one letter", "two patterns", "no property"])


@CASES
def test_the_leak_is_the_variance_that_letters_digits_and_patterns_explain(case: str) -> None:
    states, labels = drawn(2, 120, 24), shown_labels(case)
    whole, slow = towers.SPREAD**2 * 24, torch.zeros(())
    for where in (labels[..., LETTER] >= 0, (labels[..., TENS] >= 0) | (labels[..., ONES] >= 0)):
        assert bool(where.any()) == (case == "everything" or (case == "one letter" and bool(where[0, 5])))
        if where.sum() > 1:
            slow = slow + states[where].var(0).sum() / whole
    patterned = [states[labels[..., PATTERN] == value] for value in range(3)]
    assert all(map(len, patterned)) == (case not in ("two patterns", "no property"))
    if all(map(len, patterned)):
        slow = slow + 3 * torch.stack([states.mean(0) for states in patterned]).var(0).sum() / whole
    assert_same_loss(towers._leak(states, labels), slow, [states])


@CASES
def test_every_property_is_asked_of_the_patches_that_have_it(case: str) -> None:
    """Something that is there weighs five times as much as nothing, and a role ten times."""
    torch.manual_seed(0)
    heads, labels = towers.make_heads(), shown_labels(case)
    hidden = [drawn(2, 120, 160) for _ in range(8)]
    slow = towers._discretion(hidden, labels)
    for layer, fields, weight in towers.SUPERVISED:
        logits = heads[str(layer)](hidden[layer])
        asked = [i for i in range(len(FIELDS)) if i not in FINE] if fields is None else fields
        for index in asked:
            target = labels[..., index]
            balance = torch.ones(FIELDS[index].values)
            balance[0] = {KIND: 0.2, CENTER: 0.2, ROLE: 0.1}.get(index, 1.0)
            if (target != IGNORE).any():
                loss = F.cross_entropy(logits[index].mT, target, balance, ignore_index=IGNORE)
                slow = slow + weight * towers.WEIGHTS.get(index, 1.0) * loss
    assert_same_loss(towers.dense_loss(heads, hidden, labels), slow, [*hidden, *heads.parameters()])
