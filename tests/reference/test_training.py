"""The training code against transformers' own forward, and the script from end to end in three steps a stage."""

import json
import random
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import LlamaForCausalLM

from clasp_calib.common.errors import InputError
from clasp_calib.reference import export, train
from clasp_calib.reference.model import PROMPT, TRAINED_BLOCKS
from clasp_calib.reference.questions import balanced, questions_about
from clasp_calib.reference.scenes import draw_scene
from clasp_calib.reference.training import decoder as decoding
from clasp_calib.reference.training import tower as towers
from clasp_calib.reference.training.corpus import Corpus, make_tokenizer
from clasp_calib.reference.training.joint import oracle_vision
from clasp_calib.reference.training.packing import IGNORE, Packer
from clasp_calib.reference.training.schedule import rate_at
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.loading import load_model


@pytest.fixture(scope="module")
def packer() -> Packer:
    return Packer(make_tokenizer(300))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory after three steps of every stage."""
    out = tmp_path_factory.mktemp("train")
    train.Training(train.TINY, out / "work").run(out / "model")
    return out


def test_packed_questions_are_answered_as_if_alone(packer: Packer) -> None:
    torch.manual_seed(0)
    decoder = decoding.make_decoder(700)
    plain = LlamaForCausalLM(decoder.config)
    plain.load_state_dict(decoder.state_dict())
    plain.set_attn_implementation("sdpa")
    rng = random.Random(0)
    questions = balanced(questions_about(draw_scene(3), rng), 5, rng)
    pack = packer.pack([questions])
    chosen = torch.randperm(576)[:20].sort().values[None]
    visual = torch.randn(1, 20, 128)
    packed = decoding.run(decoder, packer, pack, visual, chosen)
    embed = plain.model.embed_tokens
    for number, question in enumerate(questions):
        prompt, answer = packer._encode(question)
        ids = torch.tensor(prompt + answer)
        inputs = torch.cat([embed(torch.tensor(packer.prefix)), visual[0], embed(ids)])[None]
        start = len(packer.prefix)
        positions = torch.cat([torch.arange(start), start + chosen[0], start + 576 + torch.arange(len(ids))])[None]
        alone = plain.model(inputs_embeds=inputs, position_ids=positions, use_cache=False).last_hidden_state
        assert torch.allclose(packed[0, number, : len(ids)], alone[0, -len(ids) :], atol=2e-5)


def test_targets_are_the_answers(packer: Packer) -> None:
    rng = random.Random(1)
    questions = balanced(questions_about(draw_scene(4), rng), 6, rng)
    pack = packer.pack([questions])
    for number, question in enumerate(questions):
        wanted = pack.targets_BQT[0, number]
        text = packer._tokenizer.decode(wanted[wanted != IGNORE], skip_special_tokens=True)
        assert text.strip() == question.answer
        where = int((wanted != IGNORE).nonzero()[0])
        before = packer._tokenizer.decode(pack.ids_BQT[0, number, : where + 1])
        assert before == PROMPT.split("<image>")[1].format(question=question.text).lower()


def test_the_tower_sees_what_transformers_sees(trained: Path) -> None:
    model, processor = load_model(str(trained / "model"))
    corpus = Corpus(11, 2)
    pixels = processor.image_processor([s.picture() for s in corpus.scenes], return_tensors="pt").pixel_values
    with torch.no_grad():
        theirs = adapter_for(model).capture(model, pixels)
        ours = towers.encode(model.model.vision_tower, corpus.patches([0, 1]))
    for layer, states in enumerate(ours):
        assert torch.allclose(theirs[:, layer], states[:, 1:], atol=1e-4)


def test_only_the_trained_blocks_change_anything(trained: Path) -> None:
    model, _ = load_model(str(trained / "model"))
    states = torch.randn(1, 7, 128)
    language = model.model.language_model
    rotary = language.rotary_emb(states, torch.arange(7)[None])
    for index, layer in enumerate(language.layers):
        after = layer(states, attention_mask=None, position_embeddings=rotary)
        assert torch.equal(after, states) == (index not in TRAINED_BLOCKS)


def test_the_exported_model_is_the_trained_one(trained: Path) -> None:
    """A packed forward of the parts and a plain forward of the export agree on the answer's first token."""
    training = train.Training(train.TINY, trained / "work")
    vision, decoder, projector = training.joined
    whole = export.assemble(vision, projector, decoder, len(training.tokenizer)).eval()
    _, processor = load_model(str(trained / "model"))
    corpus = Corpus(20, 1)
    question = questions_about(corpus.scenes[0], random.Random(0))[0]
    with torch.no_grad():
        inputs = processor(
            images=corpus.scenes[0].picture(), text=PROMPT.format(question=question.text), return_tensors="pt"
        )
        theirs = whole(**inputs).logits[0, -1]
        hidden = towers.encode(vision, corpus.patches([0]))[towers.USED_LAYER][:, 1:]
        pack = training.packer.pack([[question]])
        visual = projector.float()(hidden)
        states = decoding.run(decoder.float(), training.packer, pack, visual, torch.arange(576)[None])
        place = int((pack.targets_BQT[0, 0] != IGNORE).nonzero()[0])
        ours = decoder.lm_head(states[0, 0, place])
    assert torch.allclose(theirs, ours, atol=1e-4)


def test_stages_are_kept_and_logged(trained: Path) -> None:
    events = [json.loads(line) for line in (trained / "work" / "log.jsonl").read_text().splitlines()]
    stages = list(dict.fromkeys(event["stage"] for event in events))
    assert stages == ["tower", "oracle", "projector", "joint"]
    assert Image.open(trained / "work" / "curves.png").width > 300
    before = len(events)
    train.Training(train.TINY, trained / "work").run(trained / "again")
    assert len((trained / "work" / "log.jsonl").read_text().splitlines()) == before
    assert (trained / "again" / "model.safetensors").read_bytes() == (
        trained / "model" / "model.safetensors"
    ).read_bytes()


def test_stages_of_another_recipe_are_not_taken_up(trained: Path) -> None:
    with pytest.raises(InputError, match="holds the stages of another recipe; give another --work"):
        train.Training(train.Recipe(), trained / "work")


@pytest.mark.slow
def test_training_is_deterministic(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["train", "--tiny", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "model")]
    threads = torch.get_num_threads()
    monkeypatch.setattr("sys.argv", arguments)
    try:
        train.main()
        torch.set_num_threads(1)
        train.Training(train.TINY, tmp_path / "work2").run(tmp_path / "model2")
    finally:
        torch.set_num_threads(threads)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == (
        tmp_path / "model2" / "model.safetensors"
    ).read_bytes()


def test_a_decoder_learns_from_oracle_tokens(packer: Packer) -> None:
    torch.manual_seed(0)
    decoder, oracle = decoding.make_decoder(len(packer._tokenizer)), decoding.Oracle()
    oracle.speak(decoder, packer._tokenizer)
    corpus = Corpus(0, 8)
    steps = decoding.train_decoder(
        decoder,
        packer,
        oracle_vision(oracle, corpus),
        [*decoder.parameters(), *oracle.parameters()],
        corpus,
        lambda rng, progress: (4, 60),
        steps=12,
        rate=2e-3,
        seed=0,
    )
    losses = [loss for _, loss in steps]
    assert losses[-1] < 0.8 * losses[0]


def test_the_rate_warms_up_stays_and_decays() -> None:
    rates = [rate_at(step, 1000, 1.0) for step in range(1000)]
    assert rates[0] < 0.05
    assert rates[100] == rates[499] == 1.0
    assert rates[-1] == pytest.approx(0.01)
    assert rates[500:] == sorted(rates[500:], reverse=True)
