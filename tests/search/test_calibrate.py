"""A whole calibration on a tiny model: from samples and a cache to an artifact, resumed, extended, refused."""

import json
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from speaking_models import load_speaking, speaking_llava_directory, write_picture, write_samples

from clasp_calib.artifacts.artifact import read_artifact
from clasp_calib.artifacts.evidence import trials
from clasp_calib.artifacts.files import write_artifact
from clasp_calib.artifacts.fits import check_fits
from clasp_calib.cache.encode import cache_features
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.calib.scoring.evaluator import Evaluator
from clasp_calib.common.errors import ArtifactError, CacheError, InputError, StudyError
from clasp_calib.common.places import Places
from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.common.samples import CLASSES, Sample
from clasp_calib.runtime.schedule import parse_budget
from clasp_calib.search.calibrate import Calibration
from clasp_calib.search.calibration_options import CalibrationOptions
from clasp_calib.search.crew import Crew
from clasp_calib.search.space import Prototype, SearchSpace, write_space
from clasp_calib.search.strategies.grid import Grid
from clasp_calib.search.strategies.halving import Halving

BUDGET, OTHER = parse_budget("50%"), parse_budget(6)
SPACE = SearchSpace(
    prototypes=(Prototype(name="own", weights={3: 1}), Prototype(name="mixed", weights={1: 0.5, 3: 0.5})),
    rhos=(0.25, 1.0),
)


@dataclass(frozen=True)
class Bench:
    model: Any
    processor: Any
    samples: tuple[Sample, ...]
    cache: Path
    space: Path


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    root = tmp_path_factory.mktemp("calibrate")
    model, processor = load_speaking(speaking_llava_directory(root / "model", decoder_layers=17))
    rows = [json.loads(line) for line in write_samples(root, {"calibration": 5, "selection": 3}).open()]
    samples = tuple(
        Sample(
            row["id"],
            row["question"],
            root / row["image"],
            tuple(row["answers"]),
            split=row["split"],
            label=row["gold_class"],
        )
        for row in rows
        if (row["split"], row["gold_class"]) != ("selection", "spatial")
    )
    cache_features(model, processor, samples, root / "cache", FeatureOptions(layers=(1, 2, 3)))
    write_space(SPACE, root / "space.yaml")
    return Bench(model, processor, samples, root / "cache", root / "space.yaml")


@dataclass(frozen=True)
class Request:
    """Everything that a calibration is asked for, but the budgets."""

    samples: tuple[Sample, ...]
    options: CalibrationOptions
    places: Places
    crew: Crew = field(default_factory=Crew)

    @property
    def study(self) -> Path:
        return self.places.study

    @property
    def artifact(self) -> Path:
        return self.places.artifact

    def changed(self, **changes) -> "Request":
        """With some fields of itself, of its options or of its places changed."""
        parts = {"options": self.options, "places": self.places}
        for name, part in parts.items():
            parts[name] = replace(part, **{n: changes.pop(n) for n in list(changes) if hasattr(part, n)})
        return replace(self, **parts, **changes)


@pytest.fixture
def request_(bench, tmp_path) -> Request:
    options = CalibrationOptions(
        strategy=Halving(first=2), space=bench.space, per_class=100, one_for_all=False, model_name="tiny"
    )
    places = Places(features=bench.cache, study=tmp_path / "study", artifact=tmp_path / "artifact")
    return Request(bench.samples, options, places)


@pytest.fixture
def asked(monkeypatch):
    """Everything that the evaluator is asked while the test runs."""
    calls, plain = [], Evaluator.scores

    def scores(self, sample, candidates, pruning, generate=False):
        calls.extend((sample.id, c.name, pruning.schedule.counts, generate) for c in candidates)
        return plain(self, sample, candidates, pruning, generate)

    monkeypatch.setattr(Evaluator, "scores", scores)
    return calls


def calibration(bench, request, **changes):
    asked = request.changed(**changes)
    return Calibration(bench.model, bench.processor, asked.samples, "1" * 64, asked.options, asked.places, asked.crew)


def last(calibration, *budgets):
    """The artifact after the last of the budgets."""
    *_, found = calibration.run(budgets)
    return found


def test_the_artifact_says_what_was_found(bench, request_, asked):
    plan = calibration(bench, request_).plan(BUDGET)
    asked.clear()
    artifact = last(calibration(bench, request_), BUDGET)
    assert check_fits(artifact, bench.model, strict=True) == "same"
    assert plan["candidates a class"] == 4
    assert (plan["calibration samples"], plan["selection samples"], plan["classes"]) == (15, 6, 3)
    assert len(asked) == len(set(asked)) <= plan["evaluations at most"]
    entry = artifact.entry("50%")
    assert (entry.counts, entry.mean_tokens) == ((10, 6, 5), pytest.approx(8, abs=0.5))
    assert list(entry.choices) == list(CLASSES)
    for label, choice in entry.choices.items():
        searched = label in ("attribute", "counting", "spatial")
        assert choice.candidates == (4 if searched else 1)
        assert (choice.calibration is not None) == searched
        assert (choice.selection is not None) == (label in ("attribute", "counting"))
        expected = (0, 0.5, 0, 0.5, 0) if choice.prototype == "mixed" else (0, 0, 0, 1, 0)
        assert artifact.alpha("50%", label) == expected
        assert artifact.rho("50%", label) in ((0.25, 1.0) if searched else (1.0,))
        if choice.selection is not None:
            # Two or three pictures cannot show that a gain is more than luck.
            assert choice.confirmation is None or choice.confirmation.chance > 0.05
            assert (choice.prototype, artifact.rho("50%", label)) == ("own", 1)
            assert choice.selection == choice.selection_default
    assert {generate for *_, generate in asked} == {True, False}
    assert all(generate == sample.startswith("selection") for sample, *_, generate in asked)
    assert sum(choice.evaluations for choice in entry.choices.values()) == len(asked)
    rows = trials(artifact)
    assert {(row.label, row.candidate) for row in rows if row.state == "chosen"} == {
        (label, f"{c.prototype}/rho={artifact.rho('50%', label):g}")
        for label, c in entry.choices.items()
        if c.evaluations
    }
    assert len(rows) == 4 * 3
    assert sum(row.calibration_samples for row in rows) <= len(asked)
    assert all((row.selection is None) == (row.state == "rejected") for row in rows if row.label != "spatial")
    provenance = artifact.manifest.provenance["50%"]
    assert (provenance.samples, provenance.space, provenance.metric) == ("1" * 64, SPACE.digest, "exact")


def test_a_plan_says_what_the_samples_cannot_decide(bench, request_):
    plan = calibration(bench, request_).plan(BUDGET)
    assert plan["samples"] == {
        "attribute": {"calibration": 5, "selection": 3, "test": 0},
        "spatial": {"calibration": 5, "selection": 0, "test": 0},
        "counting": {"calibration": 5, "selection": 3, "test": 0},
    }
    missing, *rest = plan["cannot be decided"]
    assert missing.startswith("object, text, scene, ")
    assert [told.split(":")[0] for told in rest[:3]] == ["attribute", "spatial", "counting"]
    assert ["in 12% of cases" in told for told in rest[:3]] == [True, False, True]
    assert rest[3:] == ["no test samples, so nothing can be evaluated"]


def test_answers_that_never_come_stop_the_search_before_it_is_recorded(bench, request_, asked):
    often = tuple(
        replace(sample, id=f"{sample.id} {time}", answers=("Not this!",), label="object")
        for sample in bench.samples
        for time in range(3)
    )
    with pytest.raises(InputError, match=r"class 'object': .* none of the first 24 questions .*; .* with --anyway"):
        last(calibration(bench, request_, samples=often), BUDGET)
    assert not asked
    few = calibration(bench, request_, samples=often, per_class=4)
    assert last(few, BUDGET).entry("50%").choices["object"].calibration == 0
    assert asked
    anyway = calibration(bench, request_, samples=often, anyway=True)
    assert last(anyway, BUDGET).entry("50%").choices["object"].calibration == 0


def test_as_many_tokens_are_recorded_as_the_longest_accepted_answer_needs(bench, request_):
    one, *others = bench.samples
    samples = (replace(one, answers=("no, or only if you ask twice",)), *others)
    found = last(calibration(bench, request_, samples=samples), BUDGET)
    assert found.manifest.decoding.max_new_tokens == 28
    assert last(calibration(bench, request_), BUDGET).manifest.decoding.max_new_tokens == 16


def test_a_search_that_is_given_again_measures_nothing_and_finds_the_same(bench, request_, asked, tmp_path):
    first = write_artifact(last(calibration(bench, request_), BUDGET), tmp_path / "a")
    count = len(asked)
    second = write_artifact(last(calibration(bench, request_), BUDGET), tmp_path / "b")
    assert count == len(asked) > 0
    assert first.manifest.id == second.manifest.id
    elsewhere = last(calibration(bench, request_, study=tmp_path / "elsewhere"), BUDGET)
    assert len(asked) == 2 * count
    assert write_artifact(elsewhere, tmp_path / "c").manifest.id == first.manifest.id


def test_a_search_that_was_interrupted_goes_on(bench, request_, asked, tmp_path, monkeypatch):
    expected = last(calibration(bench, request_, study=tmp_path / "undisturbed"), BUDGET)
    whole = list(asked)
    asked.clear()
    plain = Evaluator.scores

    def scores(*arguments, **more):
        if len(asked) > 9:
            raise KeyboardInterrupt
        return plain(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "scores", scores)
        with pytest.raises(KeyboardInterrupt):
            last(calibration(bench, request_), BUDGET)
    assert 0 < len(asked) < len(whole)
    assert last(calibration(bench, request_), BUDGET).manifest == expected.manifest
    assert asked == whole


def test_a_search_in_memory_finds_the_same_and_needs_no_optuna(bench, request_, monkeypatch):
    expected = last(calibration(bench, request_), BUDGET)
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "clasp_calib.search.optuna_study", raising=False)
    assert last(calibration(bench, request_, study=None), BUDGET).manifest == expected.manifest


def test_a_budget_is_added_to_an_artifact_that_is_there(bench, request_):
    first = write_artifact(last(calibration(bench, request_), BUDGET), request_.artifact)
    both = write_artifact(last(calibration(bench, request_), OTHER), request_.artifact)
    assert both.budgets == ("50%", "6")
    assert both.entry("50%") == first.entry("50%")
    assert np.array_equal(both.alphas[0], first.alphas[0])
    assert both.counts("6") == (7, 4, 3)
    together = last(calibration(bench, request_, artifact=request_.study / "none"), BUDGET, OTHER)
    assert together.manifest == both.manifest.model_copy(update={"id": None, "files": {}})


def test_an_artifact_of_other_settings_is_refused_before_anything_is_measured(bench, request_, asked):
    write_artifact(last(calibration(bench, request_), BUDGET), request_.artifact)
    asked.clear()
    for change, name in (({"prompt": "<image> {question}:"}, "prompt"), ({"model_name": "other"}, "model")):
        with pytest.raises(ArtifactError, match=rf"made with other settings \({name}\); give another place"):
            last(calibration(bench, request_, study=request_.study / "fresh", **change), OTHER)
    assert asked == []


def test_an_artifact_of_another_model_or_a_damaged_one_is_refused(bench, request_, tmp_path):
    artifact = write_artifact(last(calibration(bench, request_), BUDGET), request_.artifact)
    shape = artifact.manifest.shape.model_copy(update={"text_layers": 32})
    foreign = artifact.manifest.model_copy(update={"shape": shape, "fingerprint": shape.fingerprint})
    write_artifact(artifact.with_manifest(foreign), tmp_path / "foreign")
    with pytest.raises(ArtifactError, match=r"this model differs \(text_layers: 32, 17\)"):
        calibration(bench, request_, artifact=tmp_path / "foreign")
    (request_.artifact / "weights.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"weights\.safetensors is missing"):
        calibration(bench, request_)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty and holds no artifact"):
        calibration(bench, request_, artifact=tmp_path / "notes")


def tuned(model):
    with torch.no_grad():
        model.model.language_model.layers[16].mlp.down_proj.weight.mul_(1.01)


def choices_of(artifact):
    entry = artifact.entry("50%")
    return {**entry.choices, **{label: (artifact.alpha("50%", label), artifact.rho("50%", label)) for label in CLASSES}}


@pytest.mark.parametrize(
    "change", ["more samples", "fewer samples", "answers", "split", "metric", "picture", "id", "race", "seed", "space"]
)
def test_a_score_that_is_still_valid_is_not_measured_again(bench, request_, asked, tmp_path, change):
    # One class is enough, and the first sample of it is changed.
    first, *others = [s for s in bench.samples if s.label == "attribute"]
    wider = tmp_path / "wider.yaml"
    own, mixed = SPACE.prototypes
    write_space(SearchSpace(prototypes=(own, mixed.model_copy(update={"name": "x"})), rhos=(0.25, 0.5, 1)), wider)
    one_more = replace(first, id="new", question="Is it?")
    changed = {
        "more samples": {"samples": (one_more, first, *others)},
        "fewer samples": {"samples": tuple(others)},
        "answers": {"samples": (replace(first, answers=("no",)), *others)},
        "split": {"samples": (replace(first, split="selection"), *others)},
        "metric": {"samples": (replace(first, metric="exact_match"), *others)},
        "picture": {"samples": (replace(first, image=others[0].image), *others)},
        "id": {"samples": (replace(first, id="new"), *others)},
        "race": {"strategy": Grid()},
        "seed": {"seed": 1},
        "space": {"space": wider},
    }[change]
    few = request_.changed(samples=(first, *others), artifact=tmp_path / "other", strategy=Grid())
    last(calibration(bench, few), BUDGET)
    before = set(asked)
    asked.clear()
    found = last(calibration(bench, few, **changed), BUDGET)
    again = set(asked)
    assert len(again) == len(asked)
    if change in ("fewer samples", "id", "race", "seed"):
        assert not asked
    elif change == "space":
        assert {name for _, name, _, generate in asked if not generate} == {"own/rho=0.5", "x/rho=0.5"}
        assert not before & again
    else:
        # The sample in question; another one in the final only where other candidates come that far.
        assert {sample for sample, _, _, generate in asked if not generate} <= {first.id, "new"}
        assert {sample for sample, *_ in asked} >= {"new" if change == "more samples" else first.id}
    asked.clear()
    fresh = last(calibration(bench, few, study=tmp_path / "fresh", **changed), BUDGET)
    assert choices_of(found) == choices_of(fresh), "evaluations count from wherever they are answered"
    assert again <= set(asked)


def test_a_search_grows_and_strategies_share(bench, request_, asked, tmp_path):
    for per_class, strategy in ((2, Halving(first=1)), (3, Halving(first=1)), (100, Halving(first=1)), (100, Grid())):
        found = last(calibration(bench, request_, per_class=per_class, strategy=strategy, one_for_all=True), BUDGET)
    fresh = last(calibration(bench, request_, strategy=Grid(), study=tmp_path / "fresh", one_for_all=True), BUDGET)
    assert choices_of(found) == choices_of(fresh)
    assert found.entry("50%").alternatives == fresh.entry("50%").alternatives
    # Twice at most: for the class, for all classes together; and as often in the fresh study.
    assert max(asked.count(one) for one in asked) <= 4


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"prompt": "<image> {question}:"},
            r"prompt was 'USER: <image>\\n{question} ASSISTANT:', is now '<image> {ques",
        ),
        (
            {"pruning": PruningOptions(starts=(2, 6, 14))},
            r"schedule\.counts was \[.*\], is now \[.*\]; schedule\.starts was \[2, 6, 15\], is now",
        ),
        ({}, "weights was [0-9a-f]{12}, is now [0-9a-f]{12}"),
    ],
)
def test_another_setting_is_named(bench, request_, asked, tmp_path, change, told):
    last(calibration(bench, request_), BUDGET)
    asked.clear()
    other = bench
    if not change:
        model, processor = load_speaking(Path(bench.model.config._name_or_path))
        tuned(model)
        other = replace(bench, model=model, processor=processor)
    changed = request_.changed(artifact=tmp_path / "other", **change)
    with pytest.raises(StudyError, match=rf"budget '50%' in .*scores\.jsonl were recorded .*settings: {told}.*--run"):
        last(calibration(other, changed), BUDGET)
    assert not asked
    last(calibration(other, changed, study=tmp_path / "fresh"), BUDGET)
    last(calibration(bench, request_), BUDGET)


def test_scores_of_another_generation_config_are_not_taken_for_these(bench, request_):
    model, processor = load_speaking(Path(bench.model.config._name_or_path))
    other = replace(bench, model=model, processor=processor)
    last(calibration(other, request_), BUDGET)
    model.generation_config.update(do_sample=True, temperature=0.2, num_beams=3, max_new_tokens=4)
    last(calibration(other, request_), BUDGET)
    model.generation_config.eos_token_id = [2, 7]
    with pytest.raises(StudyError, match=r"generation\.eos_token_id was '2', is now '\[2, 7\]'"):
        last(calibration(other, request_), BUDGET)


def test_another_objective_is_measured_beside_the_first(bench, request_, asked):
    last(calibration(bench, request_, strategy=Grid()), BUDGET)
    before = set(asked)
    asked.clear()
    last(calibration(bench, request_, strategy=Grid(), objective="nll"), BUDGET)
    assert {one for one in asked if not one[-1]} == {one for one in before if not one[-1]}
    assert not {one for one in asked if one[-1]} & before, "the final is by the metric whatever is maximised"


def test_what_is_lacking_is_found_before_anything_is_measured(bench, request_, asked, tmp_path):
    with pytest.raises(CacheError, match="no feature cache at"):
        calibration(bench, request_, features=tmp_path / "none")
    stranger = replace(bench.samples[0], image=write_picture(tmp_path / "new.png", 99))
    with pytest.raises(CacheError, match=r"1 of \d+ pictures are not cached \(first: .*new\.png\)"):
        calibration(bench, request_, samples=(stranger, *bench.samples[1:]))
    with pytest.raises(InputError, match="no sample is of the split 'calibration'"):
        calibration(bench, request_, samples=tuple(s for s in bench.samples if s.split == "selection"))
    write_space(SearchSpace(prototypes=(Prototype(name="a", weights={0: 1.0}),), rhos=(1.0,)), tmp_path / "s.yaml")
    with pytest.raises(
        CacheError, match=r"the cache holds the layers \(1, 2, 3\), not \[0\]; add them: .*--layers 0,3"
    ):
        calibration(bench, request_, space=tmp_path / "s.yaml")
    with pytest.raises(InputError, match="must hold <image> and"):
        calibration(bench, request_, prompt="{question}")
    assert asked == []


def test_a_model_that_other_processes_cannot_load_is_refused_before_anything_is_measured(bench, request_, monkeypatch):
    monkeypatch.setattr(bench.model.config, "_name_or_path", "")
    with pytest.raises(InputError, match="save it with save_pretrained"):
        calibration(bench, request_, crew=Crew(workers=2))
    calibration(bench, request_)


@pytest.mark.slow
def test_workers_with_other_weights_than_those_in_memory_are_refused(bench, request_):
    model, processor = load_speaking(Path(bench.model.config._name_or_path))
    tuned(model)
    with pytest.raises(StudyError, match=r"other weights than the search began with; .*save_pretrained"):
        last(calibration(replace(bench, model=model, processor=processor), request_, crew=Crew(workers=2)), BUDGET)


def test_without_selection_samples_the_race_decides(bench, request_):
    samples = tuple(s for s in bench.samples if s.split == "calibration")
    artifact = last(calibration(bench, request_, samples=samples), BUDGET)
    assert all(choice.selection is None for choice in artifact.entry("50%").choices.values())


def test_the_unpruned_budget_can_be_searched(bench, request_, tmp_path):
    artifact = last(calibration(bench, request_), parse_budget("100%"))
    assert artifact.counts("100%") == (16, 16, 16)
    write_artifact(artifact, tmp_path / "a")
    assert read_artifact(tmp_path / "a").budgets == ("100%",)


def test_one_setting_for_all_classes_and_the_exhaustive_choice_are_kept_to_compare_with(bench, request_, asked):
    alone = last(calibration(bench, request_, study=request_.study / "alone"), BUDGET).entry("50%")
    assert alone.alternatives == {}
    asked.clear()
    both = calibration(bench, request_, one_for_all=True)
    entry = last(both, BUDGET).entry("50%")
    assert entry.choices == alone.choices
    assert list(entry.alternatives) == ["global"]
    assert set(entry.alternatives["global"]) == set(CLASSES)
    (everywhere,) = set(entry.alternatives["global"].values())
    grid = last(calibration(bench, request_, strategy=Grid(), artifact=request_.study / "grid"), BUDGET)
    exhaustive = last(calibration(bench, request_, one_for_all=True), BUDGET)
    assert list(exhaustive.entry("50%").alternatives) == ["global", "exhaustive"]
    found = exhaustive.entry("50%").alternatives["exhaustive"]
    for label in CLASSES:
        one = found[label]
        dense = [0.0] * 5
        for layer, weight in zip(one.layers, one.weights, strict=True):
            dense[layer] = weight
        assert (tuple(dense), one.rho) == (grid.alpha("50%", label), grid.rho("50%", label))
    assert everywhere.prototype in ("own", "mixed")


def test_a_plan_says_how_long_it_takes(bench, request_):
    few = calibration(bench, request_).plan(BUDGET)
    more = calibration(bench, request_, one_for_all=True).plan(BUDGET)
    assert more["evaluations at most"] > few["evaluations at most"]
    assert few["minutes at most"] >= 0
    assert few["strategy"] == "halving, first 2, eta 2"


@pytest.mark.parametrize("objective", ["nll", "kl"])
def test_likelihoods_may_be_maximised(bench, request_, objective):
    artifact = last(calibration(bench, request_, objective=objective), BUDGET)
    assert artifact.manifest.provenance["50%"].metric == f"{objective}, exact"
    for label in ("attribute", "counting"):
        choice = artifact.entry("50%").choices[label]
        assert choice.calibration < 0 <= choice.selection


def test_a_calibration_is_imported_without_optuna_and_its_storages():
    code = "import sys, clasp_calib.search.calibrate; assert not {'optuna', 'sqlalchemy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
