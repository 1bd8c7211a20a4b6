"""The script from end to end in three steps a stage, and what it exports against transformers' own forward."""

import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clasp_calib.common.errors import InputError
from clasp_calib.common.hashing import sha256_file
from clasp_calib.reference.model import PROMPT
from clasp_calib.reference.questions import questions_about
from clasp_calib.runtime.loading import load_model
from tools.reference import export, train
from tools.reference.shape import DEFAULT, LARGE, WORKING, Size, size_of
from tools.reference.training import decoder as decoding, joint, tower as towers
from tools.reference.training.batches import ALL, LAYERS, OWN, Seen
from tools.reference.training.corpus import Corpus
from tools.reference.training.packing import Packer
from tools.reference.training.recipe import RECIPES, Recipe
from tools.reference.training.stages import TOKENIZER, TOWER_FILES, Training

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

SCORING = (1, 5, 14)
"""Layers whose attention scores the pruning stages."""
TINY = RECIPES["tiny"]


@pytest.fixture(scope="module")
def trained(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory after three steps of every stage."""
    out = tmp_path_factory.mktemp("train")
    Training(TINY, out / "work").run(out / "model")
    return out


@pytest.fixture(scope="module")
def resumed(trained: Path) -> Training:
    """The finished stages, taken up again."""
    return Training(TINY, trained / "work")


@pytest.fixture(scope="module")
def exported(trained: Path) -> tuple[Any, Any]:
    return load_model(str(trained / "model"))


Script = Callable[..., None]


def run_script(monkeypatch: pytest.MonkeyPatch, *options: str | Path) -> None:
    """In this process with the tiny recipe; leaves nothing of it in the environment."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr("sys.argv", ["train", "--recipe", "tiny", *map(str, options)])
    train.main()


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    return partial(run_script, monkeypatch)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """Recipes of the trainings that were begun; none is run."""
    recipes: list[Recipe] = []
    monkeypatch.setattr(Training, "run", lambda self, out: recipes.append(self.recipe))
    return recipes


STARTED_FROM = ("joint.pt", "tower.pt", TOKENIZER, "log.jsonl", "recipe.json")
"""What there must be to go on from."""


@pytest.fixture(scope="module")
def finished(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished work directory, with parts and a tokenizer that no training of three steps a stage arrives at."""
    out = tmp_path_factory.mktemp("finished") / "work"
    shutil.copytree(trained / "work", out)
    for path in out.iterdir():
        if path.name not in STARTED_FROM:
            path.unlink()
    saved = torch.load(out / "joint.pt", weights_only=True)
    for part in ("decoder", "projector"):
        saved[part] = {name: value * 1.25 for name, value in saved[part].items()}
    torch.save(saved, out / "joint.pt")
    with (out / TOKENIZER).open("a", encoding="utf-8") as file:
        file.write("\n")
    return out


@pytest.fixture(scope="module")
def gone_on(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory after three more steps of the joint stage."""
    out = tmp_path_factory.mktemp("late")
    options = ("--start-from", finished, "--work", out / "work", "--out", out / "model")
    with pytest.MonkeyPatch.context() as monkeypatch:
        run_script(monkeypatch, *options)
    return out


def same_model(first: Path, second: Path) -> bool:
    names = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
    return all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


def events(work: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (work / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def watched(logged: list[dict[str, Any]]) -> list[tuple[str, int, tuple[float, ...]]]:
    """Stage, visual tokens and mixture of each validation."""
    found = [event for event in logged if "visual_tokens" in event]
    return [(event["stage"], event["visual_tokens"], tuple(event["mixture"])) for event in found]


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


def test_the_exported_model_is_the_trained_one(resumed: Training, exported: tuple[Any, Any]) -> None:
    """A packed forward of the parts and a plain forward of the export agree on the answer's first token."""
    vision, decoder, projector = resumed.joined
    whole = export.assemble(vision, projector, decoder, len(resumed.tokenizer)).eval()
    model, processor = exported
    for (name, ours), (_, theirs) in zip(whole.state_dict().items(), model.state_dict().items(), strict=True):
        assert torch.allclose(ours.bfloat16().float(), theirs.float()), name
    assert_answers_in_packs(whole, processor, projector.float(), decoder.float())


def assert_answers_in_packs(model: Any, processor: Any, projector: Any, decoder: Any) -> None:
    """Model and parts say the same at the answer's first token."""
    scene, packer = Corpus(20, 1).scene(0), Packer(processor.tokenizer)
    question = questions_about(scene, random.Random(0))[0]
    inputs = processor(images=scene.picture(), text=PROMPT.format(question=question.text), return_tensors="pt")
    pack = packer.pack([[question]])
    with torch.no_grad():
        hidden = towers.encode(model.model.vision_tower, Corpus(20, 1).patches([0]))[towers.USED_LAYER][:, 1:]
        placed = decoding.Placed(torch.arange(ALL)[None], ALL)
        run = decoding.run(decoder, packer.prefix, pack.ids_BQT, projector(hidden), placed)
        ours = decoder.lm_head(run.states_BQTD[0, 0, pack.asked_BQ[0, 0]])
        assert torch.allclose(model(**inputs).logits[0, -1], ours, atol=1e-4)


def assert_comes_apart(model: Any, processor: Any, size: Size) -> None:
    """And goes together again, and answers in packs as it does whole."""
    projector, decoder = export.take_apart(model)
    assert size_of(decoder.config) == size
    again = export.assemble(model.model.vision_tower, projector, decoder, decoder.config.vocab_size).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
    assert_answers_in_packs(model, processor, projector, decoder)


def test_a_model_taken_apart_answers_in_packs(exported: tuple[Any, Any]) -> None:
    assert_comes_apart(*exported, DEFAULT)


def test_a_large_model_is_trained_exported_and_loaded(trained: Path, tmp_path: Path, script: Script) -> None:
    """With the same tower as any other."""
    work, out = tmp_path / "work", tmp_path / "model"
    script("--size", "large", "--tower-of", trained / "work", "--work", work, "--out", out)
    model, processor = load_model(str(out))
    language = model.model.language_model
    assert language.embed_tokens.weight.shape[1] == model.model.multi_modal_projector.linear_2.out_features == 256
    assert language.layers[0].self_attn.q_proj.weight.shape == (256, 256)
    assert language.layers[0].mlp.up_proj.weight.shape == (704, 256)
    assert len(language.layers) == 32
    assert_comes_apart(model, processor, LARGE)


def test_a_large_model_takes_nobodys_place(tmp_path: Path, script: Script) -> None:
    with pytest.raises(InputError, match="the embedded model has the default size; give --out"):
        script("--size", "large", "--work", tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_stages_are_kept_and_logged(trained: Path) -> None:
    work = trained / "work"
    logged = events(work)
    assert list(dict.fromkeys(event["stage"] for event in logged)) == ["tower", "oracle", "projector", "joint"]
    assert {event["layer"] for event in logged if "layer" in event} == {1, 3, 6}
    ways = [("oracle", OWN), ("joint", OWN), ("joint", joint.MIXTURES[1])]
    assert watched(logged) == [(stage, count, mixture) for stage, mixture in ways for count in (576, 96)]
    assert {event["device"] for event in logged} == {"CPU"}
    assert Image.open(work / "curves.png").width > 300
    kept = {path: path.read_bytes() for path in work.iterdir() if path.suffix in (".pt", ".npy")}
    assert len(kept) == 5
    Training(TINY, work).run(trained / "again")
    assert [event for event in events(work) if "step" in event] == [event for event in logged if "step" in event]
    assert all(path.read_bytes() == before for path, before in kept.items())
    assert same_model(trained / "again", trained / "model")


def test_finished_stages_keep_no_optimizer(trained: Path) -> None:
    for stage, other in (("oracle", "oracle"), ("joint", "projector")):
        saved = torch.load(trained / "work" / f"{stage}.pt", weights_only=True)
        assert set(saved) == {"decoder", other, "step"}
        assert saved["step"] == 3


def test_a_finished_model_is_exported_without_what_it_was_made_of(trained: Path, tmp_path: Path) -> None:
    work, kept = tmp_path / "work", ("recipe.json", "tower.pt", "joint.pt", "log.jsonl")
    work.mkdir()
    for name in kept:
        shutil.copy(trained / "work" / name, work)
    Training(TINY, work).run(tmp_path / "model")
    assert same_model(tmp_path / "model", trained / "model")
    assert {path.name for path in work.iterdir()} == {*kept, TOKENIZER, "curves.png"}


def test_a_training_in_sittings_with_workers_gives_the_same_model(
    trained: Path, tmp_path: Path, script: Script
) -> None:
    work, made = tmp_path / "work", []
    for stage in ("tower", "features", "oracle"):
        script("--work", work, "--workers", "2", "--until", stage)
        made.append({path.name for path in work.iterdir()} - {"recipe.json", "log.jsonl"})
    assert made[0] == {"tower.pt"}
    assert made[1] == set(TOWER_FILES)
    assert made[2] == {*TOWER_FILES, TOKENIZER, "oracle.pt"}
    script("--work", work, "--workers", "2", "--out", tmp_path / "model")
    assert same_model(tmp_path / "model", trained / "model")


class KilledError(Exception):
    pass


def dies_after_checkpoints(monkeypatch: pytest.MonkeyPatch) -> list[range]:
    """Let every decoder stage that begins at its first step end a step after its checkpoint; all stages' steps."""
    whole, ranges = decoding.train_decoder, []

    def dying(*arguments: Any) -> Iterator[tuple[int, decoding.Losses]]:
        steps = arguments[-1]
        ranges.append(steps)
        for step, losses in whole(*arguments):
            if step == 2 and steps.start == 0:
                raise KilledError
            yield step, losses

    monkeypatch.setattr(decoding, "train_decoder", dying)
    return ranges


def assert_checkpoint(path: Path) -> None:
    saved = torch.load(path, weights_only=True)
    assert saved["step"] == 2
    assert "optimizer" in saved


def test_an_interrupted_decoder_ends_as_an_uninterrupted_one(
    trained: Path, tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in each decoder stage, a step after its checkpoint; with the tower of another directory."""
    options = ("--tower-of", trained / "work", "--work", tmp_path / "work", "--out", tmp_path / "model")
    ranges = dies_after_checkpoints(monkeypatch)
    for stage in ("oracle", "joint"):
        with pytest.raises(KilledError):
            script(*options)
        assert_checkpoint(tmp_path / "work" / f"{stage}.pt")
    script(*options)
    assert [r for r in ranges if r] == [range(3), range(2, 3), range(3), range(2, 3)]
    assert same_model(tmp_path / "model", trained / "model")


def test_the_tower_of_another_directory_is_kept(
    trained: Path, tmp_path: Path, script: Script, begun: list[Recipe]
) -> None:
    options = ("--seed", "2", "--work", tmp_path / "work", "--out", tmp_path / "model")
    script(*options, "--tower-of", trained / "work")
    assert (begun[0].seed, begun[0].tower_seed) == (2, 0)
    for name in TOWER_FILES:
        assert (tmp_path / "work" / name).read_bytes() == (trained / "work" / name).read_bytes()
    with pytest.raises(InputError, match=r"has no tower.pt; train there first"):
        script(*options, "--tower-of", tmp_path)
    with pytest.raises(InputError, match="was trained with 64 scenes, not 30000; give another"):
        script(*options, "--tower-of", trained / "work", "--recipe", "short")


def test_a_finished_training_is_gone_on_with(finished: Path, gone_on: Path) -> None:
    """From its parts, with its tower, tokenizer and log."""
    ours = gone_on / "work"
    for name in ("tower.pt", TOKENIZER):
        assert (ours / name).read_bytes() == (finished / name).read_bytes()
    joined, late = (torch.load(path, weights_only=True) for path in (finished / "joint.pt", ours / "late.pt"))
    assert set(late) == {"decoder", "projector", "step"}
    assert late["step"] == 3
    for part in ("decoder", "projector"):
        changes = [(late[part][name] - value).abs().max().item() for name, value in joined[part].items()]
        assert 0 < max(changes) < 0.01
    before, after = events(finished), events(ours)
    assert after[: len(before)] == before
    assert {event["stage"] for event in before} == {"tower", "oracle", "projector", "joint"}
    new = after[len(before) :]
    assert [(event["stage"], event["step"]) for event in new if "step" in event] == [("late", 0), ("late", 2)]
    mixtures = (OWN, joint.MIXTURES[1])
    assert watched(new) == [("late", count, mixture) for mixture in mixtures for count in (576, 96)]
    assert {event["stage"] for event in new} == {"late"}


def test_going_on_in_two_sittings_ends_as_in_one(
    finished: Path, gone_on: Path, tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed a step after the checkpoint; what is finished is not trained again."""
    options = ("--start-from", finished, "--work", tmp_path / "work", "--out", tmp_path / "model")
    ranges = dies_after_checkpoints(monkeypatch)
    with pytest.raises(KilledError):
        script(*options)
    assert_checkpoint(tmp_path / "work" / "late.pt")
    script(*options)
    assert [r for r in ranges if r] == [range(3), range(2, 3)]
    assert same_model(tmp_path / "model", gone_on / "model")
    logged = events(tmp_path / "work")
    script(*options)
    assert events(tmp_path / "work") == logged
    assert [r for r in ranges if r] == [range(3), range(2, 3)]
    assert same_model(tmp_path / "model", gone_on / "model")


def test_going_on_keeps_the_recipe_of_the_tower(
    finished: Path, tmp_path: Path, script: Script, begun: list[Recipe]
) -> None:
    options = ("--work", tmp_path / "work", "--out", tmp_path / "model", "--recipe", "late", "--seed", "2")
    script(*options, "--start-from", finished)
    start = sha256_file(finished / "joint.pt")[:12]
    assert begun == [replace(RECIPES["late"], seed=2, tower_seed=0, tower_steps=3, start=start)]
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    torch.save({"step": 3}, other / "joint.pt")
    with pytest.raises(InputError, match="holds the stages of another recipe"):
        script(*options, "--start-from", other)
    torch.save({"step": 2}, other / "joint.pt")
    with pytest.raises(InputError, match="has 2 of 3 joint steps; let it end first"):
        script(*options, "--start-from", other)


@pytest.mark.parametrize("missing", STARTED_FROM)
def test_only_a_finished_training_is_gone_on_with(missing: str, tmp_path: Path, script: Script) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in {*STARTED_FROM} - {missing}:
        (other / name).touch()
    with pytest.raises(InputError, match=rf"other has no {missing}; train there first"):
        script("--start-from", other, "--work", tmp_path / "work", "--out", tmp_path / "model")
    assert not (tmp_path / "work").exists()


def test_the_help_has_an_example_and_explains_the_recipes(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        script("--help")
    said = capsys.readouterr().out
    (example,) = re.findall(r"^    (python -m \S+\.train .+)$", said, re.MULTILINE)
    page = Path(__file__).parents[2] / "docs" / "design" / "embedded-model.md"
    assert f"$ {example}\n" in page.read_text(encoding="utf-8")
    assert re.findall(r"^  (\w+) +\w", said.split("\nrecipes:\n")[1], re.MULTILINE) == list(RECIPES)


def test_damaged_stages_are_named(finished: Path, tmp_path: Path, script: Script) -> None:
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    options = ("--start-from", other, "--work", tmp_path / "work", "--out", tmp_path / "model")
    (other / "joint.pt").write_bytes(b"half a file")
    with pytest.raises(InputError, match=r"joint.pt is damaged"):
        script(*options)
    (other / "recipe.json").write_text('{"seed": 0, "steps": 3}', encoding="utf-8")
    with pytest.raises(InputError, match=r"recipe.json is not this version's"):
        script(*options)
    (other / "late.pt").touch()
    with pytest.raises(InputError, match="went on with another training itself"):
        script(*options)


def test_options_that_contradict_the_start_are_refused(finished: Path, tmp_path: Path, script: Script) -> None:
    options = ("--start-from", finished, "--work", tmp_path / "work", "--out", tmp_path / "model")
    with pytest.raises(InputError, match="holds a decoder of size default; leave out --size large"):
        script(*options, "--size", "large")
    with pytest.raises(InputError, match="has no stage oracle; leave out --until oracle"):
        script(*options, "--until", "oracle")
    with pytest.raises(InputError, match="cannot start -1 workers"):
        script("--work", tmp_path / "work", "--workers", "-1")
    assert not (tmp_path / "work").exists()


def test_the_late_recipe_wants_a_start(tmp_path: Path, script: Script) -> None:
    with pytest.raises(InputError, match="give its work directory as --start-from"):
        script("--recipe", "late", "--work", tmp_path / "work", "--out", tmp_path / "model")
    assert not (tmp_path / "work").exists()


def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="torch sees no GPU for --device cuda"):
        script("--device", "cuda", "--work", tmp_path / "work", "--out", tmp_path / "model")
    assert not (tmp_path / "work").exists()


def test_stages_of_another_recipe_are_not_taken_up(trained: Path) -> None:
    with pytest.raises(InputError, match="holds the stages of another recipe; give another --work"):
        Training(Recipe(), trained / "work")


def test_training_is_deterministic(trained: Path, tmp_path: Path, script: Script) -> None:
    script("--work", tmp_path / "work", "--out", tmp_path / "model")
    assert same_model(tmp_path / "model", trained / "model")
    script("--seed", "1", "--work", tmp_path / "work1", "--out", tmp_path / "model1")
    assert not same_model(tmp_path / "model1", trained / "model")


def test_mixed_features_are_the_weighted_sums_of_the_layers(resumed: Training) -> None:
    features, corpus = resumed.features("train", resumed.drawn), resumed.drawn
    assert features.shape == (corpus.size, len(LAYERS), 576, 160)
    assert features.dtype == torch.float16
    with torch.no_grad():
        hidden = torch.stack(towers.encode(resumed.tower, corpus.patches([5])))[:, 0, 1:]
    for stored, exact in zip(features[5].float().numpy(), hidden[list(LAYERS)].numpy(), strict=True):
        # Encoded in bfloat16, which is off by a few percent where attention is sharp.
        assert np.corrcoef(stored.ravel(), exact.ravel())[0, 1] > 0.99
        assert np.abs(stored - exact).mean() < 0.05 * exact.std()
    chosen, weights = torch.tensor([[3, 200, 575], [0, 3, 4]]), torch.tensor([OWN, (0.25, 0.5, 0.25)])
    mixed = joint.gather(
        features, Seen(torch.tensor([5, 9]), chosen, torch.empty(0), weights, torch.tensor(corpus.grid))
    )
    for index, row, places, shares in zip((5, 9), mixed, chosen, weights, strict=True):
        wanted = torch.einsum("l,lnd->nd", shares, features[index][:, places].float())
        assert torch.allclose(row.float(), wanted, rtol=8e-3, atol=1e-5)
    assert LAYERS[-1] == towers.USED_LAYER
