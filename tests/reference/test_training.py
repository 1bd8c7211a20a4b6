"""The training code against transformers' own forward, and the script from end to end in three steps a stage."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import LlamaForCausalLM

from clasp_calib.common.errors import InputError
from clasp_calib.reference import export, train
from clasp_calib.reference.model import BLOCKS, DECODER_LAYERS, PROMPT, WORKING, text_config
from clasp_calib.reference.questions import FINE, TALLIED, Question, balanced, questions_about
from clasp_calib.reference.scenes import draw_scene
from clasp_calib.reference.supervision import KIND
from clasp_calib.reference.training import decoder as decoding
from clasp_calib.reference.training import joint
from clasp_calib.reference.training import tower as towers
from clasp_calib.reference.training.corpus import Corpus, make_tokenizer
from clasp_calib.reference.training.optimizer import MasterAdamW
from clasp_calib.reference.training.packing import HINTED, IGNORE, UNGUIDED, Pack, Packer
from clasp_calib.reference.training.schedule import rate_at
from clasp_calib.reference.vocabulary import ACTIONS, COLORS, KINDS, PATCH, PATTERNS, PLACES, PURPOSES, WEATHERS, WORDS
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.loading import load_model

SCORING = (1, 5, 14)
"""Layers whose attention scores the pruning stages."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def packer() -> Packer:
    return Packer(make_tokenizer(300))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory after three steps of every stage."""
    out = tmp_path_factory.mktemp("train")
    train.Training(train.TINY, out / "work").run(out / "model")
    return out


@pytest.fixture(scope="module")
def resumed(trained: Path) -> train.Training:
    """The finished stages, taken up again."""
    return train.Training(train.TINY, trained / "work")


@pytest.fixture(scope="module")
def exported(trained: Path) -> tuple[Any, Any]:
    return load_model(str(trained / "model"))


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
    pack: Pack
    run: decoding.Run
    alone: list[Any]
    """What transformers says of each question by itself."""


@pytest.fixture(scope="module")
def packed(packer: Packer) -> Packed:
    torch.manual_seed(0)
    decoder = decoding.make_decoder(len(packer._tokenizer)).eval()
    plain = plain_decoder(decoder)
    rng = random.Random(0)
    questions = balanced(questions_about(draw_scene(3), rng), 5, rng)
    pack = packer.pack([questions])
    chosen = torch.randperm(576)[:20].sort().values[None]
    visual = torch.randn(1, 20, 128)
    embed, start = plain.model.embed_tokens, len(packer.prefix)
    alone = []
    with torch.no_grad():
        together = decoding.run(decoder, packer, pack, visual, chosen)
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
    return Packed(pack, together, alone)


def test_packed_questions_are_answered_as_if_alone(packed: Packed) -> None:
    for number, (length, states, _) in enumerate(packed.alone):
        assert torch.allclose(packed.run.states_BQTD[0, number, :length], states, atol=3e-5)


@pytest.mark.parametrize("role", ["listen", "score", "read"])
def test_recorded_attention_is_that_of_transformers(packed: Packed, role: str) -> None:
    places = [block.attention for block in BLOCKS if block.role == role]
    watched = {"listen": packed.run.listened, "score": packed.run.scored, "read": packed.run.read}[role]
    assert len(watched) == len(places) > 2
    if role == "score":
        assert tuple(places) == SCORING
    for place, ours in zip(places, watched, strict=True):
        for number, (length, _, attentions) in enumerate(packed.alone):
            before = attentions[place].shape[-1] - length
            theirs = attentions[place][0, :, before:, :before].mean(0)
            assert ours[0, number, :length].shape == theirs.shape
            assert torch.allclose(ours[0, number, :length], theirs, atol=1e-5)
            assert theirs.std() > 1e-4


def drawn_questions(packer: Packer, seed: int, count: int) -> tuple[list[Question], Pack]:
    rng = random.Random(seed)
    questions = balanced(questions_about(draw_scene(seed), rng), count, rng)
    return questions, packer.pack([questions])


def test_targets_are_the_answers(packer: Packer) -> None:
    questions, pack = drawn_questions(packer, 4, 18)
    for number, question in enumerate(questions):
        wanted = pack.targets_BQT[0, number]
        text = packer._tokenizer.decode(wanted[wanted != IGNORE], skip_special_tokens=True)
        assert text.strip() == question.answer
        where = int((wanted != IGNORE).nonzero()[0])
        assert where == pack.asked_BQ[0, number]
        assert pack.prompt_BQT[0, number].tolist() == [place <= where for place in range(len(wanted))]
        before = packer._tokenizer.decode(pack.ids_BQT[0, number, : where + 1])
        assert before == PROMPT.split("<image>")[1].format(question=question.text).lower()
        hints = pack.hints_BQT[0, number]
        assert (hints[where - HINTED : where] == hints[where - 1]).all()
        hinted = packer._tokenizer.decode(hints[where - 1 : where]).strip()
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


def test_chosen_tokens_are_the_evidence_some_background_and_in_grid_order(packer: Packer) -> None:
    scene, (_, pack) = draw_scene(4), drawn_questions(packer, 4, 16)
    labels = Corpus(4, 1).labels
    assert Corpus(4, 1).scenes[0] == scene
    torch.manual_seed(0)
    (chosen,) = decoding.choose_tokens(pack, labels, 160)
    assert len(set(chosen.tolist())) == 160
    assert chosen.tolist() == sorted(chosen.tolist())
    assert set(pack.evidence_BQN[0].any(0).nonzero()[:, 0].tolist()) <= set(chosen.tolist())
    assert (labels[0, chosen, KIND] == 0).sum() >= 8


def looking(pack: Pack, where: Tensor, before: int) -> Tensor:
    """Attention that every token spreads evenly over ``where`` ``[1, Q, A + N]``."""
    shares = where.float() / where.float().sum(-1, keepdim=True).clamp(min=1)
    return shares[:, :, None].expand(-1, -1, pack.ids_BQT.shape[2], -1)


def test_the_attention_loss_asks_for_the_evidence(packer: Packer) -> None:
    _, pack = drawn_questions(packer, 4, 18)
    before, chosen = len(packer.prefix), torch.arange(576)[None]
    nothing = torch.zeros(1, 18, before, dtype=torch.bool)
    found = torch.cat([nothing, pack.evidence_BQN], -1)
    told = torch.cat([nothing, torch.where(pack.tallied_BQ[..., None], pack.counted_BQN, pack.evidence_BQN)], -1)
    told[..., 0] = pack.tallied_BQ
    everywhere = torch.ones_like(found)

    def loss(scored: Tensor, read: Tensor, listened: Tensor) -> float:
        shares = [looking(pack, where, before) for where in (scored, read, listened)]
        run = decoding.Run(torch.empty(0), [shares[2]] * 3, [shares[0]] * 3, [shares[1]] * 5)
        return float(decoding.attention_loss(run, pack, chosen, before))

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


def test_whole_answers_are_single_tokens(packer: Packer) -> None:
    answers = (*KINDS, *PURPOSES.values(), *WORDS, *COLORS, *PATTERNS, *PLACES, *WEATHERS, *ACTIONS)
    assert {word for word in answers if len(packer._ids(" " + word)) != 1} == set()
    assert [len(packer._ids(f" {number}")) for number in (4, 37)] == [2, 3]


def test_the_tower_sees_what_transformers_sees(exported: tuple[Any, Any]) -> None:
    model, processor = exported
    corpus = Corpus(11, 2)
    pixels = processor.image_processor([s.picture() for s in corpus.scenes], return_tensors="pt").pixel_values
    with torch.no_grad():
        theirs = adapter_for(model).capture(model, pixels)
        ours = towers.encode(model.model.vision_tower, corpus.patches([0, 1]))
        some = torch.tensor([[3, 77, 500], [0, 1, 575]])
        first = towers.encode(model.model.vision_tower, corpus.patches([0, 1], some), some)[0]
    assert len(ours) == 8
    for layer, states in enumerate(ours):
        assert torch.allclose(theirs[:, layer], states[:, 1:], atol=1e-3)
    assert torch.allclose(first[:, 1:], ours[0][:, 1:].gather(1, some[..., None].expand(-1, -1, 160)), atol=1e-5)


def test_pixels_reach_the_detail_alone_and_the_position_is_left_as_it_is(exported: tuple[Any, Any]) -> None:
    tower = exported[0].model.vision_tower
    corpus = Corpus(11, 2)
    with torch.no_grad():
        hidden = torch.stack(towers.encode(tower, corpus.patches([0, 1])))
        pixels = tower.embeddings.patch_embedding.weight.flatten(1)
    touched = pixels.abs().sum(1) > 0
    assert touched.nonzero()[:, 0].tolist() == list(range(towers.DETAIL.start, towers.DETAIL.stop))
    positions = hidden[..., towers.POSITION]
    assert torch.equal(positions, positions[:1].expand_as(positions))
    rest = hidden[..., towers.DETAIL.stop :]
    assert all(not torch.equal(rest[layer], rest[layer + 1]) for layer in range(6) if layer != towers.BLUR)
    assert torch.equal(hidden[7], hidden[6])


def test_the_blur_is_frozen_and_the_rest_learns() -> None:
    torch.manual_seed(0)
    tower, heads = towers.make_tower(), towers.make_heads()
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    steps = list(towers.train_tower(tower, heads, Corpus(0, 4), 2, seed=0, batch=2, patches=40))
    assert [step for step, _ in steps] == [0, 1]
    same = {name for name, value in tower.state_dict().items() if torch.equal(value, before[name])}
    blur = {name for name in before if f"layers.{towers.BLUR}." in name}
    assert blur <= same
    assert any(name.endswith("position_embedding.weight") for name in same)
    learning = ("q_proj.weight", "fc1.weight", "out_proj.weight", "fc2.weight", "patch_embedding.weight")
    for name in before:
        if name.endswith(learning) and name not in blur and "layers.6" not in name:
            assert name not in same


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


def test_only_the_working_layers_change_anything(exported: tuple[Any, Any]) -> None:
    states = torch.randn(1, 7, 128)
    language = exported[0].model.language_model
    rotary = language.rotary_emb(states, torch.arange(7)[None])
    changing = []
    with torch.no_grad():
        for index, layer in enumerate(language.layers):
            after = layer(states, attention_mask=None, position_embeddings=rotary)
            if not torch.equal(after, states):
                changing.append(index)
    assert changing == [0, 3, 4, 8, 9, 15, 16, 18, 19, 21, 22, 24, 25, 27, 28]
    assert set(WORKING) == {*changing, *SCORING}
    for index in SCORING:
        attention = language.layers[index].self_attn
        assert min(part.weight.abs().max() for part in (attention.q_proj, attention.k_proj)) > 0.1


def test_the_exported_model_is_the_trained_one(resumed: train.Training, exported: tuple[Any, Any]) -> None:
    """A packed forward of the parts and a plain forward of the export agree on the answer's first token."""
    vision, decoder, projector = resumed.joined
    whole = export.assemble(vision, projector, decoder, len(resumed.tokenizer)).eval()
    model, processor = exported
    for (name, ours), (_, theirs) in zip(whole.state_dict().items(), model.state_dict().items(), strict=True):
        assert torch.allclose(ours.bfloat16().float(), theirs.float()), name
    corpus = Corpus(20, 1)
    question = questions_about(corpus.scenes[0], random.Random(0))[0]
    with torch.no_grad():
        inputs = processor(
            images=corpus.scenes[0].picture(), text=PROMPT.format(question=question.text), return_tensors="pt"
        )
        theirs = whole(**inputs).logits[0, -1]
        hidden = towers.encode(vision, corpus.patches([0]))[towers.USED_LAYER][:, 1:]
        pack = resumed.packer.pack([[question]])
        visual = projector.float()(hidden)
        run = decoding.run(decoder.float(), resumed.packer, pack, visual, torch.arange(576)[None])
        ours = decoder.lm_head(run.states_BQTD[0, 0, pack.asked_BQ[0, 0]])
    assert torch.allclose(theirs, ours, atol=1e-4)


def test_a_model_taken_apart_answers_in_packs(exported: tuple[Any, Any]) -> None:
    model, processor = exported
    projector, decoder = export.take_apart(model)
    again = export.assemble(model.model.vision_tower, projector, decoder, decoder.config.vocab_size).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
    corpus, packer = Corpus(20, 1), Packer(processor.tokenizer)
    question = questions_about(corpus.scenes[0], random.Random(0))[0]
    inputs = processor(
        images=corpus.scenes[0].picture(), text=PROMPT.format(question=question.text), return_tensors="pt"
    )
    pack = packer.pack([[question]])
    with torch.no_grad():
        visual = projector(towers.encode(model.model.vision_tower, corpus.patches([0]))[towers.USED_LAYER][:, 1:])
        run = decoding.run(decoder, packer, pack, visual, torch.arange(576)[None])
        ours = decoder.lm_head(run.states_BQTD[0, 0, pack.asked_BQ[0, 0]])
        assert torch.allclose(model(**inputs).logits[0, -1], ours, atol=1e-4)


def test_stages_are_kept_and_logged(trained: Path) -> None:
    def events() -> list[dict[str, Any]]:
        return [json.loads(line) for line in (trained / "work" / "log.jsonl").read_text().splitlines()]

    stages = list(dict.fromkeys(event["stage"] for event in events()))
    assert stages == ["tower", "oracle", "projector", "joint"]
    assert {event["layer"] for event in events() if "layer" in event} == {1, 3, 6}
    assert {event["visual_tokens"] for event in events() if "visual_tokens" in event} == {576, 96}
    assert Image.open(trained / "work" / "curves.png").width > 300
    steps = [event for event in events() if "step" in event]
    kept = {path: path.read_bytes() for path in (trained / "work").iterdir() if path.suffix in (".pt", ".npy")}
    assert len(kept) == 5
    train.Training(train.TINY, trained / "work").run(trained / "again")
    assert [event for event in events() if "step" in event] == steps
    assert all(path.read_bytes() == before for path, before in kept.items())
    assert same_model(trained / "again", trained / "model")


def same_model(first: Path, second: Path) -> bool:
    return (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


class KilledError(Exception):
    pass


def test_an_interrupted_decoder_ends_as_an_uninterrupted_one(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in each decoder stage, a step after its checkpoint; with the tower of another directory."""
    options = ["--tiny", "--tower-of", str(trained / "work"), "--work", str(tmp_path / "work")]
    monkeypatch.setattr("sys.argv", ["train", *options, "--out", str(tmp_path / "model")])
    whole, ranges = decoding.train_decoder, []

    def dying(*arguments: Any) -> Iterator[tuple[int, decoding.Losses]]:
        steps = arguments[-2]
        ranges.append(steps)
        for step, losses in whole(*arguments):
            if step == 2 and steps.start == 0:
                raise KilledError
            yield step, losses

    monkeypatch.setattr(decoding, "train_decoder", dying)
    for stage in ("oracle", "joint"):
        with pytest.raises(KilledError):
            train.main()
        saved = torch.load(tmp_path / "work" / f"{stage}.pt", weights_only=True)
        assert saved["step"] == 2
    train.main()
    assert [r for r in ranges if r] == [range(3), range(2, 3), range(3), range(2, 3)]
    assert same_model(tmp_path / "model", trained / "model")


def test_the_tower_of_another_directory_is_kept(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[train.Recipe] = []
    monkeypatch.setattr(train.Training, "run", lambda self, out: begun.append(self.recipe))
    options = ["--tiny", "--seed", "2", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "model")]
    monkeypatch.setattr("sys.argv", ["train", *options, "--tower-of", str(trained / "work")])
    train.main()
    assert (begun[0].seed, begun[0].tower_seed) == (2, 0)
    for name in train.TOWER_FILES:
        assert (tmp_path / "work" / name).read_bytes() == (trained / "work" / name).read_bytes()
    monkeypatch.setattr("sys.argv", ["train", *options, "--tower-of", str(tmp_path)])
    with pytest.raises(InputError, match=r"has no tower.pt; train there first"):
        train.main()
    monkeypatch.setattr("sys.argv", ["train", *options[1:], "--tower-of", str(trained / "work")])
    with pytest.raises(InputError, match="was trained with 64 scenes, not 30000; give another"):
        train.main()


def test_stages_of_another_recipe_are_not_taken_up(trained: Path) -> None:
    with pytest.raises(InputError, match="holds the stages of another recipe; give another --work"):
        train.Training(train.Recipe(), trained / "work")


@pytest.mark.slow
def test_training_is_deterministic(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["train", "--tiny", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "model")]
    monkeypatch.setattr("sys.argv", arguments)
    train.main()
    assert same_model(tmp_path / "model", trained / "model")
    arguments = [*arguments[:2], "--seed", "1", "--work", str(tmp_path / "work1"), "--out", str(tmp_path / "model1")]
    monkeypatch.setattr("sys.argv", arguments)
    train.main()
    assert not same_model(tmp_path / "model1", trained / "model")


def test_a_decoder_learns_from_oracle_tokens(packer: Packer) -> None:
    torch.manual_seed(0)
    decoder, oracle = decoding.make_decoder(len(packer._tokenizer)), decoding.Oracle()
    oracle.speak(decoder, packer._tokenizer)
    corpus = Corpus(0, 8)
    optimizer = MasterAdamW([*decoder.parameters(), *oracle.parameters()], 2e-3, 12)
    steps = decoding.train_decoder(
        decoder,
        packer,
        joint.oracle_vision(oracle, corpus),
        optimizer,
        corpus,
        lambda rng: (2, 60),
        lambda index, rng: decoding.ask(corpus, index, rng),
        range(12),
        0,
    )
    losses = [loss for _, loss in steps]
    assert losses[-1].answer < 0.8 * losses[0].answer
    assert losses[-1].attention < losses[0].attention


def test_mixed_features_are_the_weighted_sums_of_the_layers(resumed: train.Training) -> None:
    features = np.load(resumed.work / "features-train.npy", mmap_mode="r")
    corpus = resumed.drawn
    assert features.shape == (corpus.size, len(joint.LAYERS), 576, 160)
    with torch.no_grad():
        hidden = torch.stack(towers.encode(resumed.tower, corpus.patches([5])))[:, 0, 1:]
    for stored, exact in zip(features[5], hidden[list(joint.LAYERS)].numpy(), strict=True):
        # Encoded in bfloat16, which is off by a few percent where attention is sharp.
        assert np.corrcoef(stored.ravel().astype(float), exact.ravel())[0, 1] > 0.99
        assert np.abs(stored - exact).mean() < 0.05 * exact.std()
    chosen = torch.tensor([[3, 200, 575]] * 2)
    weights = torch.tensor([joint.OWN, (0.25, 0.5, 0.25)])
    mixed = joint.gather(features, [5, 9], chosen, weights)
    for index, row, shares in zip((5, 9), mixed, weights.numpy(), strict=True):
        wanted = np.einsum("l,lnd->nd", shares, features[index][:, [3, 200, 575]].astype(np.float32))
        assert np.allclose(row.float(), wanted, rtol=8e-3, atol=1e-5)
    assert joint.LAYERS[-1] == towers.USED_LAYER


def test_pictures_seen_through_their_own_layer_are_seldom_asked_about_fine_detail() -> None:
    mixing, rng = joint.Mixing(Corpus(0, 20)), random.Random(0)
    asked: dict[bool, list[bool]] = {True: [], False: []}
    for index in [*range(20)] * 10:
        questions = mixing.ask(index, rng)
        own = tuple(mixing.weights([index])[0].tolist()) == joint.OWN
        asked[own] += [question.family in FINE for question in questions]
        assert len(questions) == decoding.QUESTIONS
    assert len(asked[True]) / sum(map(len, asked.values())) == pytest.approx(1 - joint.MIXED, abs=0.1)
    fine = {own: np.mean(found) for own, found in asked.items()}
    assert 0 < fine[True] < 0.5 * fine[False]
    assert all(sum(mixture) == pytest.approx(1) for mixture in joint.MIXTURES)


def test_a_third_of_the_batches_show_all_tokens() -> None:
    rng = random.Random(0)
    drawn = [joint.joint_counts(rng) for _ in range(3000)]
    assert np.mean([count == 576 for _, count in drawn]) == pytest.approx(0.35, abs=0.03)
    assert {count for _, count in drawn} == {64, 96, 128, 160, 192, 256, 320, 576}


def test_the_rate_warms_up_stays_and_decays() -> None:
    rates = [rate_at(step, 1000, 1.0) for step in range(1000)]
    assert rates[0] < 0.05
    assert rates[100] == rates[499] == 1.0
    assert rates[-1] == pytest.approx(0.01)
    assert rates[500:] == sorted(rates[500:], reverse=True)
