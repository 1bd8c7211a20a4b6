"""Packed questions, and what a batch asks of the decoder, against transformers' own forward and slow references."""

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from same_loss import assert_same_loss, gradients, mean_of
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from clasp_calib.reference.families import HELD_OUT
from clasp_calib.reference.model import PROMPT
from clasp_calib.reference.questions import Question, questions_about
from clasp_calib.reference.scenes import draw_scene
from clasp_calib.reference.vocabulary import ACTIONS, COLORS, KINDS, PATCH, PATTERNS, PLACES, PURPOSES, WEATHERS, WORDS
from tools.reference.shape import BLOCKS, DECODER_LAYERS, text_config
from tools.reference.supervision import KIND
from tools.reference.training import decoder as decoding, joint
from tools.reference.training.batches import (
    ALL,
    OWN,
    QUESTIONS,
    Batch,
    Batches,
    Query,
    Seen,
    choose_tokens,
    make_batch,
)
from tools.reference.training.corpus import Corpus, balanced
from tools.reference.training.optimizer import MasterAdamW
from tools.reference.training.packing import HINTED, IGNORE, ROUND, TALLIED, UNGUIDED, Pack, Packer

pytestmark = pytest.mark.usefixtures("one_thread")


def plain_decoder(decoder: LlamaForCausalLM) -> LlamaForCausalLM:
    """32 ordinary Llama layers with the trained blocks' attention and MLPs where they belong."""
    plain = LlamaForCausalLM(text_config(decoder.config.vocab_size)).eval()
    plain.set_attn_implementation("eager")
    with torch.no_grad():
        for layer in plain.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    plain.model.embed_tokens.load_state_dict(decoder.model.embed_tokens.state_dict())
    plain.model.norm.load_state_dict(decoder.model.norm.state_dict())
    for block, layer in zip(BLOCKS, decoder.model.layers, strict=True):
        parts = {name: value for name, value in layer.state_dict().items() if not name.startswith(("mlp", "post"))}
        if block.role == "score":
            parts["self_attn.o_proj.weight"] = torch.zeros_like(parts["self_attn.o_proj.weight"])
        plain.model.layers[block.attention].load_state_dict(parts, strict=False)
        if block.role != "score":
            rest = {name: value for name, value in layer.state_dict().items() if name.startswith(("mlp", "post"))}
            plain.model.layers[block.mlp].load_state_dict(rest, strict=False)
    return plain


class Packed(NamedTuple):
    run: decoding.Run
    alone: list[Any]
    """What transformers says of each question by itself."""


@pytest.fixture(scope="module")
def packed(packer: Packer, tokenizer: PreTrainedTokenizerFast) -> Packed:
    torch.manual_seed(0)
    decoder = decoding.make_decoder(len(tokenizer)).eval()
    plain = plain_decoder(decoder)
    questions, pack = drawn_questions(packer, 3, 5)
    chosen = torch.randperm(576)[:20].sort().values[None]
    visual = torch.randn(1, 20, 128)
    embed, start = plain.model.embed_tokens, len(packer.prefix)
    alone = []
    with torch.no_grad():
        together = decoding.run(decoder, packer.prefix, pack.ids_BQT, visual, decoding.Placed(chosen, 576))
        for question in questions:
            prompt, answer = packer._encode(question)
            ids = torch.tensor(prompt + answer)
            inputs = torch.cat([embed(torch.tensor(packer.prefix)), visual[0], embed(ids)])[None]
            positions = torch.cat([torch.arange(start), start + chosen[0], start + 576 + torch.arange(len(ids))])[None]
            seen = plain.model(
                inputs_embeds=inputs,
                position_ids=positions,
                attention_mask=torch.ones(inputs.shape[:2]),
                use_cache=False,
                output_attentions=True,
            )
            assert len(seen.attentions) == DECODER_LAYERS
            alone.append((len(ids), seen.last_hidden_state[0, -len(ids) :], seen.attentions))
    return Packed(together, alone)


def drawn_questions(packer: Packer, seed: int, count: int) -> tuple[list[Question], Pack]:
    rng = random.Random(seed)
    questions = balanced(questions_about(draw_scene(seed), rng), count, rng)
    return questions, packer.pack([questions])


def test_packed_questions_are_answered_as_if_alone(packed: Packed) -> None:
    for number, (length, states, _) in enumerate(packed.alone):
        assert torch.allclose(packed.run.states_BQTD[0, number, :length], states, atol=3e-5)


@pytest.mark.parametrize("role", ["listen", "score", "read"])
def test_recorded_attention_is_that_of_transformers(packed: Packed, role: str) -> None:
    places = [block.attention for block in BLOCKS if block.role == role]
    watched = {"listen": packed.run.listened, "score": packed.run.scored, "read": packed.run.read}[role]
    assert len(watched) == len(places) > 2
    if role == "score":
        assert places == [1, 5, 14]
    for place, ours in zip(places, watched, strict=True):
        for number, (length, _, attentions) in enumerate(packed.alone):
            before = attentions[place].shape[-1] - length
            theirs = attentions[place][0, :, before:, :before].mean(0)
            assert ours[0, number, :length].shape == theirs.shape
            assert torch.allclose(ours[0, number, :length], theirs, atol=1e-5)
            assert theirs.std() > 1e-4


def test_targets_are_the_answers(packer: Packer, tokenizer: PreTrainedTokenizerFast) -> None:
    questions, pack = drawn_questions(packer, 4, 18)
    for number, question in enumerate(questions):
        wanted = pack.targets_BQT[0, number]
        text = tokenizer.decode(wanted[wanted != IGNORE], skip_special_tokens=True)
        assert text.strip() == question.answer
        where = int((wanted != IGNORE).nonzero()[0])
        assert where == pack.asked_BQ[0, number]
        assert pack.prompt_BQT[0, number].tolist() == [place <= where for place in range(len(wanted))]
        before = tokenizer.decode(pack.ids_BQT[0, number, : where + 1])
        assert before == PROMPT.split("<image>")[1].format(question=question.text).lower()
        hints = pack.hints_BQT[0, number]
        assert (hints[where - HINTED : where] == hints[where - 1]).all()
        hinted = tokenizer.decode(hints[where - 1 : where]).strip()
        assert hinted
        assert question.answer.startswith(hinted)
        assert hints[: where - HINTED].eq(IGNORE).all()
        assert hints[where:].eq(IGNORE).all()


def test_packs_know_where_the_evidence_is(packer: Packer) -> None:
    questions, pack = drawn_questions(packer, 4, 36)
    assert {q.family for q in questions} & set(TALLIED)
    for number, question in enumerate(questions):
        evidence, counted = pack.evidence_BQN[0, number].view(24, 24), pack.counted_BQN[0, number].view(24, 24)
        wanted = torch.zeros(24, 24, dtype=torch.bool)
        for x, y, width, height in question.evidence:
            area = (slice(y // PATCH, (y + height) // PATCH), slice(x // PATCH, (x + width) // PATCH))
            assert not wanted[area].any()
            wanted[area] = True
            assert counted[area].sum() == 1
        assert torch.equal(evidence, wanted)
        assert counted.sum() == len(question.evidence)
        assert pack.tallied_BQ[0, number] == (question.family in TALLIED)
        assert pack.guided_BQ[0, number] == (question.label not in UNGUIDED and len(question.evidence) > 0)


def test_whole_answers_are_single_tokens(packer: Packer) -> None:
    answers = (*KINDS, *PURPOSES.values(), *WORDS, *COLORS, *PATTERNS, *PLACES, *WEATHERS, *ACTIONS)
    assert {word for word in answers if len(packer._ids(" " + word)) != 1} == set()
    assert [len(packer._ids(f" {number}")) for number in (4, 37)] == [2, 3]


def test_chosen_tokens_are_the_evidence_some_background_and_in_grid_order(packer: Packer) -> None:
    _, pack = drawn_questions(packer, 4, 16)
    assert Corpus(4, 1).scene(0) == draw_scene(4)
    labels = Corpus(4, 1).labels([0])
    (chosen,) = choose_tokens(pack, labels, 160, torch.Generator().manual_seed(0))
    assert len(set(chosen.tolist())) == 160
    assert chosen.tolist() == sorted(chosen.tolist())
    assert set(pack.evidence_BQN[0].any(0).nonzero()[:, 0].tolist()) <= set(chosen.tolist())
    assert (labels[0, chosen, KIND] == 0).sum() >= 8


class Made(NamedTuple):
    batch: Batch
    pack: Pack
    """Of the same questions."""


def made_batch(
    packer: Packer, count: int, indices: Sequence[int] = (2, 0, 3), keep: Sequence[str] | None = None
) -> Made:
    """Questions about three pictures, with ``count`` visual tokens; of the families ``keep`` only."""
    corpus, rng = Corpus(4, 4), random.Random(0)
    pool = [[q for q in questions_about(corpus.scene(i), rng) if keep is None or q.family in keep] for i in indices]
    asked = [balanced(questions, QUESTIONS, rng) for questions in pool]
    mixtures = (OWN, *joint.MIXTURES)
    queries = [Query(questions, mixture) for questions, mixture in zip(asked, mixtures, strict=False)]
    generator = torch.Generator().manual_seed(0)
    return Made(make_batch(corpus, indices, packer, queries, count, generator), packer.pack(asked))


COUNTS = pytest.mark.parametrize("count", [12, 96, ALL])
"""Twelve leave some questions without evidence."""


@COUNTS
def test_batches_show_patches_of_their_pictures(packer: Packer, count: int) -> None:
    seen, corpus = made_batch(packer, count).batch.seen, Corpus(4, 4)
    assert seen.pictures_B.tolist() == [2, 0, 3]
    assert torch.equal(seen.mixture_BL, torch.tensor([OWN, *joint.MIXTURES[:2]]))
    assert seen.chosen_BN.shape == (3, count)
    for index, chosen, labels in zip((2, 0, 3), seen.chosen_BN, seen.labels_BNF, strict=True):
        assert torch.equal(labels, corpus.labels([index])[0, chosen])


@COUNTS
def test_flat_positions_are_those_of_answers_and_hints(packer: Packer, count: int) -> None:
    batch, pack = made_batch(packer, count)
    assert torch.equal(batch.ids_BQT, pack.ids_BQT)
    for positions, values, wanted in (
        (batch.answered_K, batch.answers_K, pack.targets_BQT),
        (batch.hinted_H, batch.hints_H, pack.hints_BQT),
    ):
        asked = values != IGNORE
        scattered = torch.full((wanted.numel(),), IGNORE)
        scattered[positions[asked]] = values[asked]
        assert torch.equal(scattered.view_as(wanted), wanted)
        assert asked.sum() == (wanted != IGNORE).sum()


def test_few_shapes_occur(packer: Packer) -> None:
    """Of batches whose pictures and tokens are as many, that is."""
    shapes = set()
    for seed in range(12):
        batch = Batches(Corpus(4, 40), packer, lambda rng: (4, 60), joint.ask, seed)[0]
        assert batch.ids_BQT.shape[2] % ROUND == 0
        asked = 4 * QUESTIONS
        sizes = (len(batch.answered_K), len(batch.hinted_H), len(batch.found_E))
        assert (sizes[0] % (asked // 2), sizes[1] % asked, sizes[2]) == (0, 0, asked)
        assert sizes[:2] == (len(batch.answers_K), len(batch.hints_H))
        assert (sizes[2], sizes[0]) == (len(batch.evidence_EN), len(batch.target_KS))
        shapes.add(sizes)
    assert len(shapes) < 5


def test_about_half_of_the_words_are_heard_and_always_the_last(packer: Packer) -> None:
    batch, pack = made_batch(packer, 96)
    assert torch.equal(batch.prompt_BQT, pack.prompt_BQT)
    assert not (batch.heard_BQT & ~pack.prompt_BQT).any()
    assert batch.heard_BQT.gather(2, pack.asked_BQ[..., None]).all()
    assert batch.heard_BQT.sum() / pack.prompt_BQT.sum() == pytest.approx(0.55, abs=0.06)


def drawn_attention(batch: Batch, before: int, blocks: int = 5) -> list[Tensor]:
    """Some attention, ``[B, Q, T, A + N]``, which passes gradients on."""
    shape = (*batch.ids_BQT.shape, before + batch.seen.chosen_BN.shape[1])
    generator = torch.Generator().manual_seed(1)
    drawn = [(2 * torch.randn(shape, generator=generator)).softmax(-1) for _ in range(blocks)]
    return [attention.requires_grad_() for attention in drawn]


def slow_attention_loss(run: decoding.Run, made: Made, before: int) -> Tensor:
    """Question by question, and token by token, from what the pack says of all 576 patches."""
    (batch, pack), total = made, torch.zeros(())
    pairs = [(b, q) for b in range(len(batch.ids_BQT)) for q in range(QUESTIONS)]
    shown = batch.seen.chosen_BN

    def toward(share_N: Tensor, wanted_N: Tensor) -> Tensor:
        return -(share_N[wanted_N] + 1e-6).log().mean()

    for attended in run.scored:
        losses = []
        for b, q in pairs:
            evidence = pack.evidence_BQN[b, q][shown[b]]
            if pack.guided_BQ[b, q] and evidence.any():
                heard = attended[b, q][batch.heard_BQT[b, q]].mean(0)
                losses.append(toward(heard[before:], evidence))
        total = total + decoding.SCORING * mean_of(losses)
    for attended in run.read[: decoding.GUIDED]:
        losses = []
        for b, q in pairs:
            tallied = bool(pack.tallied_BQ[b, q])
            first = torch.zeros(before, dtype=torch.bool)
            first[0] = tallied
            where = torch.cat([first, (pack.counted_BQN if tallied else pack.evidence_BQN)[b, q][shown[b]]])
            if where.any():
                answering = attended[b, q][pack.targets_BQT[b, q] != IGNORE]
                losses += [toward(share, where) for share in answering]
        total = total + decoding.READING * mean_of(losses)
    for attended in run.listened:
        heeded = [attended[b, q][pack.prompt_BQT[b, q], before:].sum(-1) for b, q in pairs]
        total = total + decoding.LISTENING * torch.cat(heeded).mean()
    return total


@pytest.mark.parametrize(
    ("count", "families"),
    [(12, None), (96, None), (ALL, None), (12, ("place", "time")), (96, ("place", "count_kind"))],
)
def test_the_attention_loss_is_that_of_every_question_by_itself(
    packer: Packer, count: int, families: tuple[str, ...] | None
) -> None:
    """Also where some questions, or all, have no evidence among the patches that are shown."""
    made, before = made_batch(packer, count, keep=families), len(packer.prefix)
    batch, pack = made
    places = batch.seen.chosen_BN[:, None].expand(-1, QUESTIONS, -1)
    lost = pack.guided_BQ & ~pack.evidence_BQN.gather(2, places).any(-1)
    assert lost.any() == (count == 12 and families is None)
    shown = batch.evidence_EN.any(-1)
    assert shown.sum() == (pack.guided_BQ & ~lost).sum()
    assert shown.any() == (families is None)
    assert batch.target_KS.any() == (families != ("place", "time"))
    attention = drawn_attention(batch, before)
    run = decoding.Run(torch.empty(0), attention[:1], attention[1:3], attention[2:5])
    ours, slow = decoding.attention_loss(run, batch, before), slow_attention_loss(run, made, before)
    assert_same_loss(ours, slow, attention)


@pytest.mark.parametrize("told", [0, 1, 6])
def test_the_cross_entropy_is_a_mean_over_the_rows_that_have_a_target(told: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 9, generator=generator, requires_grad=True)
    shares, target = logits.softmax(-1), torch.rand(6, 9, generator=generator) < 0.4
    rows = torch.zeros(6, dtype=torch.bool)
    rows[torch.randperm(6, generator=generator)[:told]] = True
    target[~rows] = False
    assert target[rows].any(-1).all()
    ours = decoding._cross_entropy(shares, target)
    slow = mean_of([-(shares[row][target[row]] + 1e-6).log().mean() for row in range(6) if rows[row]])
    assert_same_loss(ours, slow, [logits])
    assert torch.equal(gradients(ours, [logits])[0].any(-1), rows)


def looking(batch: Batch, where: Tensor) -> Tensor:
    """Attention that every token spreads evenly over ``where`` ``[1, Q, A + N]``."""
    shares = where.float() / where.float().sum(-1, keepdim=True).clamp(min=1)
    return shares[:, :, None].expand(-1, -1, batch.ids_BQT.shape[2], -1)


def test_the_attention_loss_asks_for_the_evidence(packer: Packer) -> None:
    before = len(packer.prefix)
    batch, pack = made_batch(packer, ALL, [0])
    nothing = torch.zeros(1, QUESTIONS, before, dtype=torch.bool)
    found = torch.cat([nothing, pack.evidence_BQN], -1)
    told = torch.cat([nothing, torch.where(pack.tallied_BQ[..., None], pack.counted_BQN, pack.evidence_BQN)], -1)
    told[..., 0] = pack.tallied_BQ
    everywhere = torch.ones_like(found)

    def loss(scored: Tensor, read: Tensor, listened: Tensor) -> float:
        shares = [looking(batch, where) for where in (scored, read, listened)]
        run = decoding.Run(torch.empty(0), [shares[2]] * 3, [shares[0]] * 3, [shares[1]] * 5)
        return float(decoding.attention_loss(run, batch, before))

    blind = everywhere & (torch.arange(before + 576) < before)
    best = loss(found, told, blind)
    # Every token before one of an answer is told, so longer answers count for more.
    tokens = (pack.targets_BQT != IGNORE).sum(-1) * told.any(-1)
    sizes = (told.sum(-1).clamp(min=1).log() * tokens).sum() / tokens.sum() * decoding.READING * decoding.GUIDED
    guided = found[pack.guided_BQ].float().sum(-1).log().mean() * decoding.SCORING * 3
    assert best == pytest.approx(float(sizes + guided), abs=1e-2)
    for worse in (
        loss(everywhere, told, blind),
        loss(~found, told, blind),
        loss(found, everywhere, blind),
        loss(found, ~told, blind),
    ):
        assert worse > best + 0.1
    assert loss(found, told, everywhere) == pytest.approx(
        best + 3 * decoding.LISTENING * 576 / (576 + before), abs=1e-3
    )


class Watching:
    """Keeps gradients, and moves nothing."""

    def __init__(self, decoder: LlamaForCausalLM):
        self._decoder, self.begun = decoder, list[int]()
        self.found: list[Tensor] = []

    def begin(self, step: int) -> None:
        self.begun.append(step)

    def step(self) -> None:
        self.found = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self._decoder.parameters()]


def test_a_step_is_told_answers_hints_and_where_to_look(packer: Packer, tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    decoder, (batch, pack) = decoding.make_decoder(len(tokenizer)), made_batch(packer, 60)
    visual = torch.randn(3, 60, 128)
    run = decoding.run(decoder, packer.prefix, pack.ids_BQT, visual, decoding.raster(batch.seen))
    logits = decoder.lm_head(run.states_BQTD).flatten(0, 2)
    answer, hint = (F.cross_entropy(logits, wanted.flatten()) for wanted in (pack.targets_BQT, pack.hints_BQT))
    attention = decoding.attention_loss(run, batch, len(packer.prefix))
    wanted = gradients(answer + hint + attention, list(decoder.parameters()))
    optimizer: Any = Watching(decoder)
    training = decoding.train_decoder(decoder, packer.prefix, lambda seen: visual, optimizer, [batch], range(7, 8))
    ((step, losses),) = training
    assert (step, optimizer.begun) == (7, [7])
    assert torch.allclose(torch.stack(losses), torch.stack([answer, attention]).detach(), rtol=1e-5)
    for ours, theirs in zip(optimizer.found, wanted, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_a_decoder_learns_from_oracle_tokens(packer: Packer, tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    decoder, oracle = decoding.make_decoder(len(tokenizer)), decoding.Oracle()
    oracle.speak(decoder, tokenizer)
    optimizer = MasterAdamW([*decoder.parameters(), *oracle.parameters()], 2e-3, 12)
    batches = Batches(Corpus(0, 8), packer, lambda rng: (2, 60), decoding.ask, 0)
    steps = decoding.train_decoder(
        decoder, packer.prefix, joint.oracle_vision(oracle), optimizer, map(batches.__getitem__, range(12)), range(12)
    )
    losses = [loss for _, loss in steps]
    assert losses[-1].answer < 0.8 * losses[0].answer
    assert losses[-1].attention < losses[0].attention


def test_an_answer_is_right_if_its_last_token_is(
    packer: Packer, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a decoder that peeks, but can say no *1*."""
    size, one = len(tokenizer), packer._ids(" 1")[-1]
    decoder = decoding.make_decoder(size)
    decoder.lm_head = torch.nn.Identity()

    def peek(_decoder: Any, prefix: Any, ids_BQT: Tensor, *_: Tensor) -> decoding.Run:
        states = F.one_hot(ids_BQT.roll(-1, 2), size).float()
        states[..., one] = 0
        return decoding.Run(states, [], [], [])

    def vision(seen: Seen) -> Tensor:
        assert torch.equal(seen.mixture_BL, torch.tensor([OWN]).expand(len(seen.pictures_B), -1))
        return torch.empty(0)

    monkeypatch.setattr(decoding, "run", peek)
    corpus, rng = Corpus(0, 30), random.Random(6)
    drawn = [balanced(questions_about(corpus.scene(i), rng, HELD_OUT), QUESTIONS, rng) for i in range(30)]
    asked = [question for questions in drawn for question in questions]
    scores = decoding.accuracy(decoder, packer, vision, corpus, count=96, seed=6)
    labels = {question.label for question in asked}
    for name in labels | {question.family for question in asked}:
        right = ["1" not in q.answer for q in asked if name in (q.label, q.family)]
        assert scores[name] == pytest.approx(sum(right) / len(right))
    assert 0 < scores["count_kind"] < 1
    assert 0 < scores["number"] < 1
    assert scores["macro"] == pytest.approx(sum(scores[label] for label in labels) / len(labels))
