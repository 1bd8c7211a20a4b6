"""Questions about several pictures, from the table to the answer."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from PIL import Image
from speaking_architectures import speaking_directory, speaking_processor
from speaking_models import ANSWERS, write_picture
from transformers import LlavaOnevisionForConditionalGeneration

import clasp_calib as cc
from clasp_calib.cache.store import FeatureStore
from clasp_calib.calib.scoring.prompting import Prompter

SPLITS = {"calibration": 4, "selection": 2, "test": 3}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Pairs of the pictures of a split, before the text or at their places in it."""
    root, rows = tmp_path_factory.mktemp("pairs"), []
    for split, count in SPLITS.items():
        names = [write_picture(root / f"{split}-{n}.png", hash_of(split) + n).name for n in range(count + 1)]
        for number, pair in enumerate(pairwise(names)):
            places = "In <image> or in <image>" if number % 2 else "In which"
            rows.append(
                {
                    "id": f"{split}-{number}",
                    "images": pair,
                    "question": f"{places} is the cup?",
                    "answers": ANSWERS[:2],
                    "split": split,
                    "class": "object",
                }
            )
    rows.append({**rows[0], "id": "one", "images": rows[0]["images"][:1], "question": "What is it?"})
    path = root / "samples.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def hash_of(split):
    return 100 * list(SPLITS).index(split)


def test_a_calibration_on_pairs_answers_as_it_was_scored(bench, options, table, tmp_path):
    samples = cc.load_samples(table)
    given = (bench.model, bench.processor)
    artifact = cc.calibrate(*given, samples, ["50%"], run=tmp_path, options=options)
    entry = artifact.entry("50%")
    assert entry.mean_tokens == pytest.approx(8, abs=0.5), "of a picture, as the counts are"
    with FeatureStore.open(tmp_path / "cache") as store:
        pictures = {picture for sample in samples for picture in sample.media}
        assert len(store.pictures()) == len(pictures), "each picture once"
    report = cc.evaluate(*given, artifact, samples, run=tmp_path, options=cc.EvaluationOptions(timed=1))
    scored = {row.sample: row.score for row in report.evaluation.at("50%").answers if row.setting == "calibrated"}
    prompter = Prompter(bench.processor, bench.model)
    for sample in (one for one in samples if one.split == "test"):
        said = cc.generate(*given, sample.image, sample.question, artifact=artifact, options=AS_SCORED)
        assert scored[sample.id] == float(said.text in sample.answers)
        # transformers' own way to the same answer.
        pictures = [Image.open(path) for path in sample.media]
        inputs = bench.processor(images=pictures, text=prompter.text(sample.question, 2), return_tensors="pt")
        with torch.inference_mode(), cc.clasp(bench.model, artifact, budget="50%", classes="object"):
            output = bench.model.generate(**inputs, max_new_tokens=16, do_sample=False)
        (text,) = prompter.decode(output[:, inputs["input_ids"].shape[1] :])
        assert text == said.text


AS_SCORED = cc.GenerationOptions(class_="object", max_new_tokens=16)


def test_the_same_without_a_cache(bench, options, table, tmp_path):
    samples = cc.load_samples(table)
    cached = cc.calibrate(bench.model, bench.processor, samples, ["50%"], run=tmp_path, options=options)
    live = cc.calibrate(bench.model, bench.processor, samples, ["50%"], options=options)
    assert cached.entry("50%").choices == live.entry("50%").choices


def test_pairs_are_compared_with_other_methods(bench, options, table, tmp_path):
    samples = cc.load_samples(table)
    artifact = cc.calibrate(bench.model, bench.processor, samples, ["50%"], options=options)
    report = cc.compare(
        bench.model,
        bench.processor,
        artifact,
        samples,
        ["random"],
        options=cc.ComparisonOptions(timed=1),
    )
    assert {row["method"] for row in report.table()} >= {"unpruned", "calibrated"}


def test_a_model_that_sees_pictures_otherwise_together_is_asked_about_one(table, tmp_path):
    place, processor = speaking_directory(tmp_path, "llava_onevision"), speaking_processor("llava_onevision")
    given = (LlavaOnevisionForConditionalGeneration.from_pretrained(place).eval(), processor)
    pairs = cc.load_samples(table)
    ones = [replace(sample, image=sample.media[0], question="Which?") for sample in pairs]
    pruning = cc.PruningOptions(starts=(1, 2, 4))
    options = cc.CalibrationOptions(strategy=cc.Halving(first=2), pruning=pruning, anyway=True)
    artifact = cc.calibrate(*given, ones, ["60%"], options=options)
    several = r"of two pictures in one prompt, and .*; ask about one at a time"
    with pytest.raises(cc.errors.ModelError, match=several):
        cc.generate(*given, pairs[0].image, pairs[0].question, artifact=artifact)
    with pytest.raises(cc.errors.ModelError, match=several):
        cc.compare(*given, artifact, pairs, ["random"])
    assert cc.generate(*given, pairs[0].image[:1], "Which?", artifact=artifact).text
