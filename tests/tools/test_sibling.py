"""The sibling's parts against transformers' own forward, how it starts from the embedded model, and its training."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionPatchMerger

from clasp_calib.reference.model import PROMPT
from clasp_calib.reference.questions import questions_about
from tools.reference.idle_blocks import leave_out_idle_blocks
from tools.reference.training import decoder as decoding, joint
from tools.reference.training.batches import OWN, Query, Seen, make_batch
from tools.reference.training.corpus import Corpus, balanced
from tools.reference.training.packing import Packer
from tools.reference.training.stepwise import Steps, draws
from tools.sibling import decoder as decoders, model as models, stages, train
from tools.sibling.recipe import RECIPES
from tools.sibling.shape import MARKS, TRAINED, UNSEEN, pixels, tokenizer, vision_config
from tools.sibling.tower import encode, make_tower

pytestmark = pytest.mark.usefixtures("one_thread")
GRID = (18, 30)


def rounded(module: Any) -> Any:
    """With weights that bfloat16 holds exactly, as files do."""
    for parameter in module.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return module


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, decoders.Decoder]:
    torch.manual_seed(0)
    merger, decoder = Qwen3VLVisionPatchMerger(vision_config()), decoders.Decoder(len(tokenizer()))
    for layer in decoder.model.layers:
        torch.nn.init.uniform_(layer.self_attn.q_norm.weight, 0.5, 2.0)
        torch.nn.init.uniform_(layer.self_attn.k_norm.weight, 0.5, 2.0)
        for linear in (layer.self_attn.q_proj, layer.self_attn.o_proj, layer.mlp.down_proj):
            torch.nn.init.normal_(linear.weight, std=0.1)
    return rounded(make_tower()), rounded(merger), rounded(decoder)


@pytest.fixture(scope="module")
def whole(parts: tuple[Any, Any, decoders.Decoder], tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    path = tmp_path_factory.mktemp("sibling") / "weights.safetensors"
    models.keep(*parts, path)
    return models.load(path)


def test_the_whole_model_is_the_trained_parts(parts: tuple[Any, Any, decoders.Decoder], whole: tuple[Any, Any]) -> None:
    """A packed forward of the parts and a plain forward of the model agree on the answer's first token."""
    (tower, merger, decoder), (model, processor) = parts, whole
    corpus, packer = Corpus(7, 1, pixels(GRID)), Packer(processor.tokenizer)
    asked = questions_about(corpus.scene(0), random.Random(0))[:2]
    batch = make_batch(corpus, [0], packer, [Query(asked, OWN)], 10_000, draws(0, 0)[1])
    with torch.no_grad():
        states = encode(tower, corpus.patches([0]), GRID)[-1]
        visual = merger(states).view(1, 540, -1)
        run = decoding.run(decoder, packer.prefix, batch.ids_BQT, visual, decoders.on_grid(batch.seen))
        ours = decoder.lm_head(run.states_BQTD[0])
        for number, question in enumerate(asked):
            prompt = PROMPT.format(question=question.text)
            inputs = processor(text=[prompt], images=[corpus.scene(0).picture()], return_tensors="pt")
            theirs = model(**inputs).logits[0, -1]
            place = len(packer._encode(question)[0]) - 1
            assert theirs.std() > 0.1
            assert torch.allclose(ours[number, place], theirs, atol=1e-3)


@pytest.mark.parametrize("grid", [(16, 24), (30, 18), *UNSEEN])
def test_positions_are_those_of_the_model(whole: tuple[Any, Any], grid: tuple[int, int]) -> None:
    model, processor = whole
    picture = Corpus(3, 1, pixels(grid)).scene(0).picture()
    inputs = processor(text=["USER: <image>\nWhat is it?"], images=[picture], return_tensors="pt")
    positions, _ = model.model.get_rope_index(
        inputs["input_ids"], inputs["mm_token_type_ids"], image_grid_thw=inputs["image_grid_thw"]
    )
    shown = inputs["input_ids"][0] == model.config.image_token_id
    first, chosen = int(shown.nonzero()[0]), torch.tensor([[0, 5, 200, grid[0] * grid[1] - 1]])
    seen = Seen(torch.tensor([0]), chosen, torch.empty(0), torch.empty(0), torch.tensor(grid))
    placed = decoders.on_grid(seen)
    assert torch.equal(placed.picture + first, positions[:, :, shown][:, :, chosen[0]])
    assert bool((positions[:, 0, int(shown.nonzero()[-1]) + 1] == first + placed.after).all())


def test_a_prompt_is_the_embedded_models_and_a_picture_keeps_its_size(whole: tuple[Any, Any]) -> None:
    _, processor = whole
    content = [{"type": "image"}, {"type": "text", "text": "Is it raining?"}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    assert prompt == PROMPT.format(question="Is it raining?")
    for grid in (*TRAINED, *UNSEEN):
        picture = Corpus(5, 1, pixels(grid)).scene(0).picture()
        inputs = processor(text=[prompt], images=[picture], return_tensors="pt")
        assert inputs["image_grid_thw"].tolist() == [[1, *grid]]
        wanted = Corpus(5, 1, pixels(grid)).patches([0])[0]
        assert torch.allclose(inputs["pixel_values"], wanted, atol=1e-5)


def test_norms_get_the_sizes_that_queries_and_keys_had() -> None:
    torch.manual_seed(0)
    words = tokenizer()
    embedded = decoding.make_decoder(len(words) - len(MARKS))
    with torch.no_grad():
        embedded.model.layers[3].self_attn.q_proj.weight.mul_(5)
    decoder, corpus, packer = decoders.Decoder(len(words)), Corpus(0, 2), Packer(words)
    queries = [joint.ask(corpus.scene(i), random.Random(i)) for i in range(2)]
    shown = make_batch(corpus, [0, 1], packer, queries, 60, torch.Generator().manual_seed(0))
    visual = torch.randn(2, 60, 128)
    inputs: list[Tensor] = []
    block = embedded.model.layers[2].self_attn
    handle = block.q_proj.register_forward_hook(lambda _, given, __: inputs.append(given[0]))
    decoders.begin_with(decoder, embedded, lambda seen: visual, packer.prefix, shown)
    handle.remove()
    own = decoder.model.layers[2].self_attn
    query = block.q_proj(inputs[0])
    assert own.q_norm.weight.unique().numel() == 1
    assert own.q_norm.weight[0].item() == pytest.approx(float(query.detach().square().mean().sqrt()), rel=1e-4)
    ratio = decoder.model.layers[3].self_attn.q_norm.weight[0] / own.q_norm.weight[0]
    assert 3 < ratio.item() < 8
    assert torch.equal(decoder.model.embed_tokens.weight[: -len(MARKS)], embedded.model.embed_tokens.weight)
    assert torch.equal(decoder.model.layers[7].mlp.up_proj.weight, embedded.model.layers[7].mlp.up_proj.weight)
    with torch.no_grad():
        heads = (part.view(2, -1, 4, 32) for part in (query, own.q_proj(inputs[0])))
        theirs, ours = next(heads), own.q_norm(next(heads))
    assert torch.allclose(torch.cosine_similarity(theirs, ours, dim=-1), torch.ones(1), atol=1e-4)


def test_all_pictures_of_a_step_come_from_one_corpus() -> None:
    class Named(Steps[tuple[int, int]]):
        def __init__(self, name: int):
            self.name = name

        def __getitem__(self, step: int) -> tuple[int, int]:
            return self.name, step

    turns = stages.InTurn([Named(n) for n in range(3)], seed=4)
    drawn = [turns[step] for step in range(60)]
    assert drawn == [turns[step] for step in range(60)]
    assert [step for _, step in drawn] == list(range(60))
    assert all(10 < sum(name == n for name, _ in drawn) < 35 for n in range(3))


@pytest.mark.slow
def test_the_weights_that_are_kept_answer_questions() -> None:
    """About pictures of many sizes, far better than guessing could."""
    model, processor = models.load()
    leave_out_idle_blocks(model)
    right = []
    for number, grid in enumerate((*TRAINED[:3], *UNSEEN)):
        scene, rng = Corpus(9_000_000 + number, 1, pixels(grid)).scene(0), random.Random(number)
        asked = [q for q in balanced(questions_about(scene, rng), 8, rng) if q.label not in ("text", "counting")]
        prompts = [PROMPT.format(question=question.text) for question in asked]
        inputs = processor(text=prompts, images=[scene.picture()] * len(asked), return_tensors="pt", padding=True)
        said = model.generate(**inputs, do_sample=False, max_new_tokens=3)[:, inputs["input_ids"].shape[1] :]
        answers = processor.batch_decode(said, skip_special_tokens=True)
        right += [answer.strip() == question.answer for answer, question in zip(answers, asked, strict=True)]
    assert len(right) > 20
    assert sum(right) > 0.8 * len(right)


@pytest.mark.slow
def test_a_killed_training_ends_as_an_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(work: str) -> dict[str, Tensor]:
        out = tmp_path / f"{work}.safetensors"
        options = ("--recipe", "tiny", "--work", str(tmp_path / work), "--out", str(out))
        monkeypatch.setattr("sys.argv", ["train", *options])
        train.main()
        return load_file(out)

    whole = trained("whole")
    once, steps = decoding.train_decoder, RECIPES["tiny"].joint_steps

    def dying(*arguments: Any) -> Any:
        for step, losses in once(*arguments):
            if step == steps - 1:
                raise KeyboardInterrupt
            yield step, losses

    monkeypatch.setattr(decoding, "train_decoder", dying)
    with pytest.raises(KeyboardInterrupt):
        trained("killed")
    monkeypatch.setattr(decoding, "train_decoder", once)
    killed = trained("killed")
    assert whole.keys() == killed.keys()
    assert all(torch.equal(value, killed[name]) for name, value in whole.items())
    models.load(tmp_path / "killed.safetensors")
