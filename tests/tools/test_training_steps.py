"""The steps of training: each drawn from a seed of its own, by whoever prepares it; and what they are drawn from."""

import itertools
import random
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from clasp_calib.reference.scenes import draw_scene
from tools.reference.shape import llava_config
from tools.reference.supervision import IGNORE, KIND, LETTER, ONES, TENS
from tools.reference.training import decoder as decoding, joint
from tools.reference.training.batches import LAYERS, OWN, QUESTIONS, Batches
from tools.reference.training.capture import launched_at_once
from tools.reference.training.corpus import Corpus
from tools.reference.training.optimizer import Adam, MasterAdamW, to_bfloat16
from tools.reference.training.packing import Packer
from tools.reference.training.schedule import rate_at
from tools.reference.training.stepwise import Steps, draws, to_device
from tools.reference.training.tower import Looks

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
FINE = ("pattern_of_kind", "word", "number")
"""Families about details that the model's own vision layer is not made to keep."""


def make_steps(kind: str, seed: int, packer: Packer) -> Steps[Any]:
    """Of a corpus that nobody has looked at yet."""
    corpus = Corpus(30, 30)
    if kind == "looks":
        return Looks(corpus, seed)
    if kind == "shows":
        return joint.Shows(corpus, seed)
    if kind == "oracle batches":
        return Batches(corpus, packer, joint.oracle_counts, decoding.ask, seed, many=2)
    return Batches(corpus, packer, joint.joint_counts, joint.ask, seed)


KINDS = pytest.mark.parametrize("kind", ["looks", "shows", "oracle batches", "joint batches"])


def tensors(prepared: tuple[Any, ...]) -> list[torch.Tensor]:
    return [t for part in prepared for t in ([part] if isinstance(part, torch.Tensor) else tensors(part))]


def same(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    pairs = zip(tensors(first), tensors(second), strict=True)
    return type(first) is type(second) and all(torch.equal(one, other) for one, other in pairs)


@KINDS
def test_steps_are_the_same_whoever_prepares_them_and_in_any_order(kind: str, packer: Packer) -> None:
    wanted = list(make_steps(kind, 5, packer).over(range(6), CPU, 0))
    backwards = make_steps(kind, 5, packer)
    assert all(same(backwards[step], wanted[step]) for step in reversed(range(6)))
    later = list(make_steps(kind, 5, packer).over(range(2, 6), CPU, 2))
    assert len(later) == 4
    assert all(same(one, other) for one, other in zip(later, wanted[2:], strict=True))


@KINDS
def test_no_two_steps_or_seeds_are_alike(kind: str, packer: Packer) -> None:
    steps = make_steps(kind, 5, packer)
    three = (steps[0], steps[1], make_steps(kind, 6, packer)[0])
    drawn = [tuple(tensors(step)[0].flatten().tolist()) for step in three]
    assert len(set(drawn)) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_preparing_steps_leaves_everybody_elses_random_numbers_alone(workers: int, packer: Packer) -> None:
    torch.manual_seed(0)
    random.seed(0)
    ours, pythons = torch.get_rng_state(), random.getstate()
    assert len(list(make_steps("joint batches", 5, packer).over(range(2), CPU, workers))) == 2
    assert torch.equal(torch.get_rng_state(), ours)
    assert random.getstate() == pythons


def test_a_step_keeps_its_shape_on_its_way_to_a_device(packer: Packer) -> None:
    batch = make_steps("joint batches", 5, packer)[0]
    moved = to_device(batch, torch.device("meta"))
    assert (type(moved), type(moved.seen)) == (type(batch), type(batch.seen))
    assert all(t.is_meta for t in tensors(moved))
    assert [t.shape for t in tensors(moved)] == [t.shape for t in tensors(batch)]


def test_python_and_torch_draw_alike_again() -> None:
    def first(seed: int, step: int) -> tuple[float, float]:
        rng, generator = draws(seed, step)
        return rng.random(), float(torch.rand((), generator=generator))

    assert first(0, 1) == first(0, 1)
    for index in range(2):
        assert len({first(*at)[index] for at in ((0, 1), (1, 0), (0, 2), (1, 1), (0, 11))}) == 5


def test_an_album_shows_every_picture_once_and_in_order() -> None:
    corpus = Corpus(0, 19)
    pages = list(joint.Album(corpus).over(joint.Album(corpus).steps, CPU, 0))
    assert [len(page.patches_BNP) for page in pages] == [8, 8, 3]
    assert torch.equal(torch.cat([page.patches_BNP for page in pages]), corpus.patches(range(19)))


def test_looks_and_shows_are_of_all_that_is_there_and_some_background() -> None:
    one = Corpus(3, 1)
    look, show = Looks(one, 0, pictures=1, patches=300)[0], joint.Shows(one, 0, pictures=1, patches=300)[0]
    assert torch.equal(look.patches_BNP, one.patches([0], look.chosen_BN))
    labels = one.labels([0])[0]
    for step in (look, show):
        (chosen,) = step.chosen_BN.tolist()
        assert chosen == sorted({*chosen})
        assert len(chosen) == 300
        assert {*(labels[:, KIND] > 0).nonzero()[:, 0].tolist()} < {*chosen}
        assert torch.equal(step.labels_BNF[0], labels[chosen])


def test_a_show_mixes_the_layers_anew_for_every_picture() -> None:
    shown = joint.Shows(Corpus(0, 30), 0)[0]
    assert len({*shown.pictures_B.tolist()}) == len(shown.mixture_BL) == 24
    mixtures = torch.tensor([OWN, *joint.MIXTURES])
    drawn = [(mixtures == mixture).all(-1).nonzero().item() for mixture in shown.mixture_BL]
    assert len({*drawn}) > 3


def test_many_pictures_are_so_many_times_those_of_a_batch(packer: Packer) -> None:
    for many, pictures in ((1, 2), (3, 6)):
        batch = Batches(Corpus(0, 20), packer, lambda rng: (2, 60), decoding.ask, 0, many)[0]
        assert len({*batch.seen.pictures_B.tolist()}) == pictures
        assert batch.seen.chosen_BN.shape == (pictures, 60)
        assert batch.ids_BQT.shape[:2] == (pictures, QUESTIONS)


def test_half_of_the_pictures_are_seen_through_a_mixture_and_all_are_asked_alike() -> None:
    scenes, rng = [draw_scene(seed) for seed in range(20)], random.Random(0)
    asked: dict[bool, list[bool]] = {True: [], False: []}
    for scene in scenes * 15:
        questions, mixture = joint.ask(scene, rng)
        assert mixture in (OWN, *joint.MIXTURES)
        asked[mixture == OWN] += [question.family in FINE for question in questions]
        assert len(questions) == QUESTIONS
    assert len(asked[True]) / sum(map(len, asked.values())) == pytest.approx(1 - joint.MIXED, abs=0.1)
    fine = {own: np.mean(found) for own, found in asked.items()}
    assert fine[True] == pytest.approx(fine[False], rel=0.15)
    assert all(sum(mixture) == pytest.approx(1) for mixture in (OWN, *joint.MIXTURES))
    assert {len(mixture) for mixture in (OWN, *joint.MIXTURES)} == {len(LAYERS)}


def test_a_third_of_the_batches_show_all_tokens() -> None:
    rng = random.Random(0)
    drawn = [joint.joint_counts(rng) for _ in range(3000)]
    assert np.mean([count == 576 for _, count in drawn]) == pytest.approx(0.35, abs=0.03)
    assert {count for _, count in drawn} == {64, 96, 128, 160, 192, 256, 320, 576}


def test_the_projector_is_told_the_oracles_tokens_and_above_all_of_what_is_written() -> None:
    torch.manual_seed(0)
    corpus = Corpus(2, 3)
    projector, oracle = LlavaMultiModalProjector(llava_config(300)), decoding.Oracle()
    projector, oracle = to_bfloat16(projector), to_bfloat16(oracle)
    features, show = torch.randn(3, len(LAYERS), 576, 160).half(), joint.Shows(corpus, 0, 2, 300)[0]
    bias = projector.linear_2.bias
    before = bias.detach().float()
    with torch.no_grad():
        ours = projector(joint.gather(features, show)).float()
        wanted = oracle(show.labels_BNF, show.chosen_BN).float()
    vision, errors, weights = joint.tower_vision(projector, features), [], []
    for place in itertools.product(range(2), range(300)):
        written = any(int(show.labels_BNF[place][field]) != IGNORE for field in (LETTER, TENS, ONES))
        weights.append(joint.WRITTEN if written else 1.0)
        errors.append(float((ours[place] - wanted[place]).square().mean()))
    assert len({*weights}) == 2
    ((step, error),) = joint.train_projector(projector, vision, joint.oracle_vision(oracle), [show], 1000, rate=0.1)
    assert step == 0
    assert float(error) == pytest.approx(np.average(errors, weights=weights) / float(wanted.var()), rel=1e-4)
    assert float((bias.detach().float() - before).abs().median()) == pytest.approx(rate_at(0, 1000, 0.1), rel=0.05)


def test_masters_move_as_torch_moves_them() -> None:
    """At the rates of the steps, with clipped gradients, and without decay of vectors."""
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(2))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    optimizer = MasterAdamW(ours, 1e-2, 20, decay=0.5)
    groups = [{"params": theirs[:1], "weight_decay": 0.5}, {"params": theirs[1:], "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    for step in range(20):
        for p, q in zip(ours[:2], theirs[:2], strict=True):  # The last has no gradient.
            p.grad = 3 * torch.randn(p.shape)
            q.grad = p.grad.clone()
        optimizer.begin(step)
        optimizer.step()
        nn.utils.clip_grad_norm_(theirs, 1.0)
        for group in adam.param_groups:
            group["lr"] = rate_at(step, 20, 1e-2)
        adam.step()
    assert all(torch.allclose(p, q, atol=1e-6) for p, q in zip(ours, theirs, strict=True))
    assert all(p.grad is None for p in ours)


def test_the_rate_warms_up_stays_and_decays() -> None:
    rates = [rate_at(step, 1000, 1.0) for step in range(1000)]
    assert rates[0] < 0.05
    assert rates[100] == rates[499] == 1.0
    assert rates[-1] == pytest.approx(0.01)
    assert rates[500:] == sorted(rates[500:], reverse=True)


class Given(NamedTuple):
    inputs: Tensor
    targets: Tensor


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a recording needs a GPU")
def test_recorded_steps_are_those_that_are_written() -> None:
    """Over shapes in turn, so that each is run as written, recorded and replayed."""
    device, generator = torch.device("cuda"), torch.Generator().manual_seed(0)
    start = torch.randn(6, 3, generator=generator)
    shown = [
        Given(
            torch.randn(rows, 6, generator=generator).to(device), torch.randn(rows, 3, generator=generator).to(device)
        )
        for rows in (4, 7, 4, 4, 7, 7, 4, 7, 4)
    ]
    ended = []
    for as_it_is in (True, False):
        weights = start.to(device).requires_grad_()
        optimizer = Adam([{"params": [weights], "weight_decay": 0.1}], 0.05, len(shown))

        def update(given: Given, weights: Tensor = weights, optimizer: Adam = optimizer) -> Tensor:
            loss = (given.inputs @ weights - given.targets).square().mean()
            torch.autograd.backward(loss)
            optimizer.step()
            return loss.detach()

        step = update if as_it_is else launched_at_once(update, device)
        losses = []
        for number, given in enumerate(shown):
            optimizer.begin(number)
            losses.append(step(given).item())
        ended.append((losses, weights.tolist()))
    assert ended[0] == ended[1]
    assert ended[0][0][-1] < ended[0][0][0]
