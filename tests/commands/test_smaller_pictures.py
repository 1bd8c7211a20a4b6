"""Smaller pictures by the commands: the cache of a run has pictures in their own size, and commands add the others."""

import json

import pytest
import yaml
from speaking_architectures import own_processors, speaking_directory, write_questions  # noqa: F401

import clasp_calib as cc
from clasp_calib.artifacts.artifact import read_artifact
from clasp_calib.artifacts.files import write_artifact
from clasp_calib.baselines.downsampling import PictureSizes
from clasp_calib.cache.store import FeatureStore
from clasp_calib.runtime.pictures import load_picture

BUDGET = "40%"


@pytest.fixture(params=["qwen2_5_vl", pytest.param("idefics3", marks=pytest.mark.slow)])
def words(tmp_path, own_processors, request):  # noqa: F811
    model, run = speaking_directory(tmp_path / "model", request.param), tmp_path / "run"
    samples = write_questions(tmp_path / "data", request.param, {"calibration": 3, "test": 3})
    rows = [line for line in samples.read_text().splitlines() if "image" in json.loads(line)]
    samples.write_text("\n".join(rows))
    return ["--run", str(run), "--model", str(model), "--samples", str(samples)]


def stored(run):
    return len(FeatureStore.open(run / "cache").pictures())


def with_smaller(artifact, label):
    """The artifact, with pictures of a third of their tokens for one class."""
    entries = []
    for entry in artifact.manifest.budgets:
        choice = entry.choices[label].model_copy(update={"downsample": 0.34})
        entries.append(entry.model_copy(update={"choices": {**entry.choices, label: choice}}))
    return artifact.with_manifest(artifact.manifest.model_copy(update={"budgets": tuple(entries)}))


def test_commands_encode_the_smaller_pictures(tmp_path, words, command, monkeypatch):
    run, space = tmp_path / "run", tmp_path / "space.yaml"
    assert command("cache-features", *words).code == 0
    cached = stored(run)
    own = FeatureStore.open(run / "cache").layers[-1]
    half = {"name": "half", "weights": {own: 1.0}, "downsample": 0.5}
    space.write_text(yaml.safe_dump({"prototypes": [half], "rhos": [0.5, 1.0]}))
    ended = command("search", *words, "--starts", "1,2,4", "--budget", BUDGET, "--space", space, "--workers", 1)
    assert ended.code == 0, ended.err
    searched = stored(run)
    assert searched == 2 * cached

    write_artifact(with_smaller(read_artifact(run / "artifact"), "attribute"), run / "artifact")
    for asked in (["ablate", "parts"], ["evaluate", "--timed", "0", "--json"]):
        ended = command(*asked, *words, "--workers", 1)
        assert ended.code == 0, ended.err
    (measured,) = ended.json["budgets"]
    assert measured["calibrated_tokens"]["mean"] < measured["tokens"]["mean"]
    model, processor = cc.load_model(words[3])
    idefics = model.config.model_type == "idefics3"  # whose pictures have one tile for a half and for a third
    assert (stored(run) == searched) == idefics
    ended = command("artifact", "verify", run / "artifact", *words[2:], "--recheck", "4", "--cache", run / "cache")
    assert ended.code == 0, ended.err

    rows = [json.loads(line) for line in (tmp_path / "data/samples.jsonl").read_text().splitlines()]
    row = next(row for row in rows if row["class"] == "attribute" and row["split"] == "test")
    asked = ["--image", tmp_path / "data" / row["image"], "--prompt", row["question"], "--class", "attribute"]
    assert command("generate", *words[:4], *asked).code == 0

    notes, artifact = [], read_artifact(run / "artifact")
    monkeypatch.setattr("clasp_calib.common.progress.note_once", notes.append)
    path, sizes = tmp_path / "data" / row["image"], PictureSizes(model, processor)
    (picture,) = cc.resized(model, processor, path, artifact, budget=BUDGET, class_="attribute")
    assert ["give do_resize=False to the Idefics3Processor" in note for note in notes] == [True] * idefics
    assert 0 < sizes.tokens(picture.size, resized=True) <= 0.34 * sizes.tokens(load_picture(path).size)
