"""A whole calibration on a tiny model: from samples and a cache to an artifact, resumed, extended, refused."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from speaking_models import load_speaking, speaking_llava_directory, write_picture, write_samples

from clasp_calib.artifacts.artifact import Artifact, read_artifact
from clasp_calib.artifacts.evidence import trials
from clasp_calib.artifacts.files import write_artifact
from clasp_calib.artifacts.fits import check_fits
from clasp_calib.cache.encode import cache_features
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.calib.scoring.evaluator import Evaluator
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.common.errors import ArtifactError, CacheError, InputError, StudyError
from clasp_calib.common.places import Places
from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.common.samples import CLASSES, Sample
from clasp_calib.crew.crew import Crew
from clasp_calib.runtime.schedule import parse_budget
from clasp_calib.search.calibrate import Calibration
from clasp_calib.search.calibration_options import CalibrationOptions
from clasp_calib.search.session import Session
from clasp_calib.search.space import Prototype, SearchSpace, write_space
from clasp_calib.search.strategies.grid import Grid
from clasp_calib.search.strategies.halving import Halving
from clasp_calib.search.strategies.pooled import Pooled
from clasp_calib.search.strategies.race import Race

BUDGET, OTHER = parse_budget("50%"), parse_budget(6)
SPACE = SearchSpace(
    prototypes=(Prototype(name="own", weights={3: 1}), Prototype(name="mixed", weights={1: 0.5, 3: 0.5})),
    rhos=(0.25, 1.0),
)


def slowly(*strategies):
    """Parameters of the slow tests: the default strategy is in the fast ones."""
    return [pytest.param(strategy, marks=pytest.mark.slow) for strategy in strategies]


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


def request_in(root: Path, bench: Bench) -> Request:
    options = CalibrationOptions(strategy=Halving(first=2), space=bench.space, per_class=100, model_name="tiny")
    places = Places(features=bench.cache, study=root / "study", artifact=root / "artifact")
    return Request(bench.samples, options, places)


@pytest.fixture
def request_(bench, tmp_path) -> Request:
    return request_in(tmp_path, bench)


@dataclass(frozen=True)
class Searched:
    """A calibration that is over."""

    request: Request
    artifact: Artifact
    asked: frozenset[tuple[Any, ...]]
    """Everything that the evaluator was asked."""

    @classmethod
    def of(cls, bench: Bench, request: Request) -> "Searched":
        with pytest.MonkeyPatch.context() as patch:
            calls = listened(patch)
            return cls(request, last(calibration(bench, request), BUDGET), frozenset(calls))

    def copied(self, request: Request) -> Request:
        """The request, where this calibration's study is already."""
        shutil.copytree(self.request.study, request.study)
        return request


@pytest.fixture(scope="module")
def searched(bench, tmp_path_factory) -> Searched:
    """What `request_` asks for."""
    return Searched.of(bench, request_in(tmp_path_factory.mktemp("searched"), bench))


@pytest.fixture(scope="module")
def gridded(bench, tmp_path_factory) -> Searched:
    """Everything about one class."""
    root = tmp_path_factory.mktemp("gridded")
    attributes = tuple(sample for sample in bench.samples if sample.label == "attribute")
    return Searched.of(bench, request_in(root, bench).changed(samples=attributes, strategy=Grid()))


def listened(patch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Everything that the evaluator is asked from now on."""
    calls, plain = [], Evaluator.scores

    def scores(self, sample, candidates, pruning):
        calls.extend((sample.id, c.name, pruning.schedule.counts) for c in candidates)
        return plain(self, sample, candidates, pruning)

    patch.setattr(Evaluator, "scores", scores)
    return calls


@pytest.fixture
def asked(monkeypatch):
    """Everything that the evaluator is asked while the test runs."""
    return listened(monkeypatch)


def calibration(bench, request, **changes):
    asked = request.changed(**changes)
    return Calibration(bench.model, bench.processor, asked.samples, "1" * 64, asked.options, asked.places, asked.crew)


def last(calibration, *budgets):
    """The artifact after the last of the budgets."""
    *_, found = calibration.run(budgets)
    return found


def test_the_artifact_says_what_was_found(bench, request_, asked):
    (plan,) = calibration(bench, request_).plans([BUDGET])
    asked.clear()
    artifact = last(calibration(bench, request_), BUDGET)
    assert check_fits(artifact, bench.model, strict=True) == "same"
    assert (plan["candidates a class"], plan["classes"]) == (4, 3)
    assert plan["evaluations at most"] == sum(Halving(first=2).most(4, n) for n in (8, 5, 8))
    assert plan["of exhaustive"] == f"{plan['evaluations at most'] / (4 * 21):.0%}"
    assert len(asked) == len(set(asked)) <= plan["evaluations at most"]
    entry = artifact.entry("50%")
    assert (entry.counts, entry.mean_tokens) == ((10, 6, 5), pytest.approx(8, abs=0.5))
    assert list(entry.choices) == list(CLASSES)
    for label, choice in entry.choices.items():
        searched = label in ("attribute", "counting", "spatial")
        assert choice.candidates == (4 if searched else 1)
        assert (choice.calibration is not None) == searched
        expected = (0, 0.5, 0, 0.5, 0) if choice.prototype == "mixed" else (0, 0, 0, 1, 0)
        assert artifact.alpha("50%", label) == expected
        assert artifact.rho("50%", label) in ((0.25, 1.0) if searched else (1.0,))
    assert {sample.split(" ")[0].split("-")[0] for sample, *_ in asked} == {"calibration", "selection"}
    assert sum(choice.evaluations for choice in entry.choices.values()) == len(asked)
    rows = trials(artifact)
    assert {(row.label, row.candidate) for row in rows if row.state == "chosen"} == {
        (label, f"{c.prototype}/rho={artifact.rho('50%', label):g}")
        for label, c in entry.choices.items()
        if c.evaluations
    }
    assert len(rows) == 4 * 3
    assert sum(row.calibration_samples for row in rows) <= len(asked)
    provenance = artifact.manifest.provenance["50%"]
    assert (provenance.samples, provenance.space, provenance.metric) == ("1" * 64, SPACE.digest, "exact")


def test_a_plan_says_what_the_samples_cannot_decide(bench, request_):
    (plan,) = calibration(bench, request_).plans([BUDGET])
    assert plan["samples"] == {
        "attribute": {"search": 8, "test": 0},
        "spatial": {"search": 5, "test": 0},
        "counting": {"search": 8, "test": 0},
    }
    missing, few, nothing = plan["cannot be decided"]
    assert missing.startswith("object, text, scene, ")
    assert few.startswith("fewer than 8 pictures: spatial (5); what is chosen there")
    assert nothing == "no test samples, so nothing can be evaluated"


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


def test_as_many_tokens_are_recorded_as_the_longest_accepted_answer_needs(bench, request_, searched):
    one, *others = bench.samples
    samples = (replace(one, answers=("no, or only if you ask twice",)), *others)
    found = last(calibration(bench, request_, samples=samples), BUDGET)
    assert found.manifest.decoding.max_new_tokens == 28
    assert searched.artifact.manifest.decoding.max_new_tokens == 16


def test_a_length_of_answers_is_recorded_and_part_of_the_settings(bench, request_):
    said = tuple(replace(sample, metric="anls") for sample in bench.samples)
    asked = {"samples": said, "max_new_tokens": 1, "anyway": True}
    short = last(calibration(bench, request_, **asked), BUDGET)
    needed = short.manifest.decoding.max_new_tokens
    assert 1 < needed < 16, "as long as the longest accepted answer"
    with pytest.raises(StudyError, match="max_new_tokens was 1, is now None"):
        last(calibration(bench, request_, samples=said, anyway=True), BUDGET)
    write_artifact(short, request_.artifact)
    elsewhere = request_.changed(study=None)
    with pytest.raises(ArtifactError, match=r"made with other settings \(decoding\)"):
        last(calibration(bench, elsewhere, **{**asked, "max_new_tokens": 24}), parse_budget("60%"))


@pytest.mark.slow
def test_later_budgets_are_answered_as_long_as_the_artifact_says(bench, request_, asked, monkeypatch, capsys):
    write_artifact(last(calibration(bench, request_, max_new_tokens=24), BUDGET), request_.artifact)
    made = calibration(bench, request_)
    assert "answers of up to 24 new tokens, as in the artifact" in capsys.readouterr().err
    lengths, plain = set(), Prompter.limit
    monkeypatch.setattr(Prompter, "limit", lambda *of: lengths.add(of[2]) or plain(*of))
    artifact = last(made, OTHER)
    assert (lengths, artifact.manifest.decoding.max_new_tokens) == ({24}, 24)
    asked.clear()
    last(calibration(bench, request_, max_new_tokens=24), OTHER)
    assert not asked, "the recorded scores are of that length"


def test_what_the_answers_of_the_samples_need_is_no_setting(bench, request_, asked):
    one, *others = bench.samples
    long = request_.changed(samples=(replace(one, answers=("no, or only if you ask twice",)), *others))
    write_artifact(last(calibration(bench, long), BUDGET), request_.artifact)
    asked.clear()
    assert last(calibration(bench, long), BUDGET).manifest.decoding.max_new_tokens == 28
    assert not asked


def test_a_search_that_is_given_again_measures_nothing_and_finds_the_same(bench, request_, searched, asked, tmp_path):
    first = write_artifact(last(calibration(bench, request_), BUDGET), tmp_path / "a")
    count = len(asked)
    second = write_artifact(last(calibration(bench, request_), BUDGET), tmp_path / "b")
    assert count == len(asked) > 0
    assert first.manifest.id == second.manifest.id
    elsewhere = write_artifact(searched.artifact, tmp_path / "c")
    assert elsewhere.manifest.id == first.manifest.id


@pytest.mark.parametrize(
    "strategy",
    [Pooled(0.5), *slowly(Halving(first=2), Race(first=2))],
)
def test_a_search_that_was_interrupted_again_and_again_goes_on(bench, request_, asked, tmp_path, monkeypatch, strategy):
    request_ = request_.changed(strategy=strategy)
    first = write_artifact(last(calibration(bench, request_, study=tmp_path / "undisturbed"), BUDGET), tmp_path / "a")
    whole = list(asked)
    asked.clear()
    plain, left = Evaluator.scores, [0]

    def scores(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return plain(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "scores", scores)
        for number in range(5):
            left[0] = number % 3
            with pytest.raises(KeyboardInterrupt):
                last(calibration(bench, request_), BUDGET)
    assert 0 < len(asked) < len(whole)
    second = write_artifact(last(calibration(bench, request_), BUDGET), tmp_path / "b")
    assert asked == whole
    assert second.manifest.id == first.manifest.id


def test_a_search_in_memory_finds_the_same_and_needs_no_optuna(bench, request_, searched, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "clasp_calib.search.optuna_study", raising=False)
    assert last(calibration(bench, request_, study=None), BUDGET).manifest == searched.artifact.manifest


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [Pooled(0.3), Halving(first=2)])
def test_budgets_together_are_those_one_after_the_other(bench, request_, strategy):
    request_ = request_.changed(strategy=strategy)
    first = write_artifact(last(calibration(bench, request_), OTHER), request_.artifact)
    both = write_artifact(last(calibration(bench, request_), BUDGET), request_.artifact)
    assert both.budgets == ("6", "50%")
    assert both.entry("6") == first.entry("6")
    assert np.array_equal(both.alphas[0], first.alphas[0])
    assert both.counts("6") == (7, 4, 3)
    for study in (request_.study, request_.study / "fresh"):
        wanted = request_.changed(artifact=request_.study / "none", study=study)
        assert last(calibration(bench, wanted), BUDGET, OTHER).manifest == both.manifest.model_copy(
            update={"id": None, "files": {}}
        )


@pytest.mark.slow
def test_fewer_tokens_are_evidence_for_more_and_not_the_other_way(bench, request_, monkeypatch):
    fed, plain = [], Session.search

    def search(self, workers, others, begun):
        fed.append((self.desk.budget, [other.budget for other in others]))
        return plain(self, workers, others, begun)

    monkeypatch.setattr(Session, "search", search)
    write_artifact(last(calibration(bench, request_), BUDGET), request_.artifact)
    write_artifact(last(calibration(bench, request_), OTHER), request_.artifact)
    again = last(calibration(bench, request_), OTHER)
    write_artifact(last(calibration(bench, request_), BUDGET), request_.artifact)
    assert fed == [("50%", []), ("6", []), ("6", []), ("50%", ["6"])]
    assert again.manifest.budgets == read_artifact(request_.artifact).manifest.budgets or len(again.budgets) == 2
    # Where nothing of it is known, there is no evidence.
    last(calibration(bench, request_, study=request_.study / "fresh"), BUDGET)
    assert fed[-1] == ("50%", [])


def test_an_artifact_of_other_settings_is_refused_before_anything_is_measured(bench, request_, searched, asked):
    write_artifact(searched.artifact, request_.artifact)
    for change, name in (({"prompt": "<image> {question}:"}, "prompt"), ({"model_name": "other"}, "model")):
        with pytest.raises(ArtifactError, match=rf"made with other settings \({name}\); give another place"):
            last(calibration(bench, request_, study=request_.study / "fresh", **change), OTHER)
    assert asked == []


def test_an_artifact_of_another_model_or_a_damaged_one_is_refused(bench, request_, searched, tmp_path):
    artifact = write_artifact(searched.artifact, request_.artifact)
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
def test_a_score_that_is_still_valid_is_not_measured_again(bench, request_, gridded, asked, tmp_path, change):
    # One class is enough, and the first sample of it is changed.
    first, *others = gridded.request.samples
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
    few = gridded.copied(request_.changed(samples=(first, *others), artifact=tmp_path / "other", strategy=Grid()))
    found = last(calibration(bench, few, **changed), BUDGET)
    again = set(asked)
    assert len(again) == len(asked)
    if change in ("fewer samples", "id", "split", "race", "seed"):
        assert not asked
    elif change == "space":
        assert {name for _, name, _ in asked} == {"own/rho=0.5", "x/rho=0.5"}
        assert not gridded.asked & again
    else:
        assert {sample for sample, *_ in asked} == {"new" if change == "more samples" else first.id}
    asked.clear()
    fresh = last(calibration(bench, few, study=tmp_path / "fresh", **changed), BUDGET)
    assert choices_of(found) == choices_of(fresh), "evaluations count from wherever they are answered"
    assert again <= set(asked)


def test_a_search_grows_and_strategies_share(bench, request_, asked, tmp_path):
    for per_class, strategy in ((2, Halving(first=1)), (3, Pooled()), (100, Halving(first=1)), (100, Grid())):
        found = last(calibration(bench, request_, per_class=per_class, strategy=strategy), BUDGET)
    assert len(asked) == len(set(asked))
    fresh = last(calibration(bench, request_, strategy=Grid(), study=tmp_path / "fresh"), BUDGET)
    assert choices_of(found) == choices_of(fresh)
    assert found.entry("50%").alternatives == fresh.entry("50%").alternatives


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"crew": Crew(threads=2)}, "threads was 1, is now 2"),
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
def test_another_setting_is_named(bench, request_, searched, asked, tmp_path, change, told):
    searched.copied(request_)
    other = bench
    if not change:
        model, processor = load_speaking(Path(bench.model.config._name_or_path))
        tuned(model)
        other = replace(bench, model=model, processor=processor)
    changed = request_.changed(artifact=tmp_path / "other", **change)
    with pytest.raises(StudyError, match=rf"budget '50%' in .*scores\.jsonl were recorded .*settings: {told}.*--run"):
        last(calibration(other, changed), BUDGET)
    assert not asked
    last(calibration(other, changed, study=tmp_path / "fresh", per_class=2), BUDGET)
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
    before = list(asked)
    last(calibration(bench, request_, strategy=Grid(), objective="nll"), BUDGET)
    assert asked == before * 2


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
    with pytest.raises(StudyError, match=r"other weights than the process that began has; .*save_pretrained"):
        last(calibration(replace(bench, model=model, processor=processor), request_, crew=Crew(workers=2)), BUDGET)


def test_the_unpruned_budget_can_be_searched(bench, request_, tmp_path):
    artifact = last(calibration(bench, request_), parse_budget("100%"))
    assert artifact.counts("100%") == (16, 16, 16)
    write_artifact(artifact, tmp_path / "a")
    assert read_artifact(tmp_path / "a").budgets == ("100%",)


def test_one_setting_for_all_classes_and_the_exhaustive_choice_are_kept_to_compare_with(bench, request_, searched):
    entry = searched.artifact.entry("50%")
    searched.copied(request_)
    assert list(entry.alternatives) == ["global"]
    assert set(entry.alternatives["global"]) == set(CLASSES)
    assert len(set(entry.alternatives["global"].values())) == 1
    grid = last(calibration(bench, request_, strategy=Grid(), artifact=request_.study / "grid"), BUDGET)
    assert list(grid.entry("50%").alternatives) == ["global"]
    exhaustive = last(calibration(bench, request_), BUDGET)
    assert list(exhaustive.entry("50%").alternatives) == ["global", "exhaustive"]
    found = exhaustive.entry("50%").alternatives["exhaustive"]
    for label in CLASSES:
        one = found[label]
        dense = [0.0] * 5
        for layer, weight in zip(one.layers, one.weights, strict=True):
            dense[layer] = weight
        assert (tuple(dense), one.rho) == (grid.alpha("50%", label), grid.rho("50%", label))


def test_a_plan_says_how_long_it_takes(bench, request_):
    (few,) = calibration(bench, request_).plans([BUDGET])
    (more,) = calibration(bench, request_, refine=True).plans([BUDGET])
    assert more["evaluations at most"] > few["evaluations at most"]
    assert few["minutes at most"] >= 0
    assert few["strategy"] == "halving, first 2, eta 2"
    (usual,) = calibration(bench, request_, strategy=None).plans([BUDGET])
    assert usual["strategy"] == "pooled, spend 0.15"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"cautious": 0.0}, "cautious is 0; expected a probability above 0 and up to 1, such as 0.3"),
        ({"cautious": 1.5}, "cautious is 1.5"),
        ({"strategy": "race"}, r"strategy is 'race'; expected one of Pooled\(\), Race"),
    ],
)
def test_options_that_cannot_be_used_are_refused(given, told):
    with pytest.raises(InputError, match=told):
        CalibrationOptions(**given)


@pytest.mark.parametrize("given", [{"spend": 0.0}, {"spend": 1.2}, {"until": 0.0}, {"until": -1}])
def test_there_must_be_something_to_spend(given):
    with pytest.raises(InputError, match=f"{next(iter(given))} is .*; expected a .*such as 0"):
        Pooled(**given)


@pytest.mark.parametrize("objective", ["nll", pytest.param("kl", marks=pytest.mark.slow)])
def test_likelihoods_may_be_maximised(bench, request_, objective):
    artifact = last(calibration(bench, request_, objective=objective), BUDGET)
    assert artifact.manifest.provenance["50%"].metric == f"{objective}, exact"
    assert all(artifact.entry("50%").choices[label].calibration < 0 for label in ("attribute", "counting"))


@pytest.mark.slow
def test_a_calibration_is_imported_without_optuna_and_its_storages():
    code = "import sys, clasp_calib.search.calibrate; assert not {'optuna', 'sqlalchemy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
