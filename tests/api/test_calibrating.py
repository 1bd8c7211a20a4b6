"""`calibrate`: in memory and in a run directory, interrupted and called again, and what it leaves as it was."""

import dataclasses
import random

import numpy as np
import pytest
import torch

import clasp_calib as cc
from clasp_calib.artifacts.artifact import read_artifact
from clasp_calib.artifacts.evidence import trials
from clasp_calib.cache.precision import PIXELS
from clasp_calib.cache.store import FeatureStore
from clasp_calib.cache.writer import FeatureWriter
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator
from clasp_calib.common.errors import InputError
from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.search.space import Prototype, default_space


def numbers(artifact):
    return artifact.budgets, artifact.alphas.tolist(), artifact.rhos.tolist()


@pytest.fixture
def asked(monkeypatch):
    """Samples that the evaluator is asked about while the test runs."""
    calls, plain = [], Evaluator.scores

    def scores(self, sample, *rest, **words):
        calls.append(sample.id)
        return plain(self, sample, *rest, **words)

    monkeypatch.setattr(Evaluator, "scores", scores)
    return calls


def test_without_a_run_nothing_is_written(artifact, untouched):
    assert artifact.budgets == ("6", "50%")
    assert list(untouched.iterdir()) == []


def test_with_a_run_everything_is_kept_and_measured_once(bench, options, artifact, tmp_path, asked):
    call = (bench.model, bench.processor, bench.samples, [6, "50%"])
    found = cc.calibrate(*call, run=tmp_path, options=options)
    assert numbers(found) == numbers(artifact)
    assert read_artifact(tmp_path / "artifact").manifest == found.manifest
    assert (tmp_path / "study" / "scores.jsonl").is_file()
    assert (tmp_path / "cache").is_dir()
    asked.clear()
    again = cc.calibrate(*call, run=tmp_path, options=options)
    assert again.manifest == found.manifest
    assert asked == []


def test_what_k_means_starts_from_is_searched_and_recorded(bench, options, tmp_path):
    own = Prototype(name="own", weights={3: 1.0})
    space = cc.SearchSpace(prototypes=(own,), rhos=(0.0, 0.5), seedings=("farthest", "k-center"))
    searched = dataclasses.replace(options, space=space, strategy=cc.Grid())
    found = cc.calibrate(bench.model, bench.processor, bench.samples, 6, options=searched).save(tmp_path / "a")
    trials_ = {(t.label, t.candidate): t.calibration for t in trials(found)}
    assert {name for _, name in trials_} == {
        "own/rho=1",
        *(f"own/rho={rho}/{seeding}" for rho in ("0", "0.5") for seeding in ("farthest", "k-center")),
    }
    back = read_artifact(tmp_path / "a")
    for label in back.classes:
        choice = back.entry("6").choices[label]
        name = Candidate("own", back.alpha("6", label), back.rho("6", label), back.seeding("6", label)).name
        if choice.evaluations:
            assert trials_[label, name] == choice.calibration
            assert choice.seeding in (("redundancy",) if back.rho("6", label) == 1 else space.seedings)
    assert {back.seeding("6", label) for label in back.classes} <= {"redundancy", *space.seedings}


def test_the_objective_kl_is_for_want_of_answers(bench, options, capsys):
    likeness = dataclasses.replace(options, objective="kl")
    with pytest.raises(InputError, match="samples have accepted answers; search by them with --objective metric"):
        cc.plan_calibration(bench.model, bench.processor, bench.samples, 6, options=likeness)
    bare = [dataclasses.replace(sample, answers=()) for sample in bench.samples]
    assert cc.plan_calibration(bench.model, bench.processor, bare, 6, options=likeness).budgets
    assert "the objective kl cannot see" in capsys.readouterr().err


def test_the_shell_and_python_find_the_same(bench, options, artifact, tmp_path, command):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"id": s.id, "question": s.question, "image": str(s.image), "answers": list(s.answers)}
        | {"split": s.split, "class": s.label}
        for s in bench.samples
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "labels.parquet")
    cc.plan_calibration(bench.model, bench.processor, bench.samples, [6], options=options).write_space(
        tmp_path / "space.yaml"
    )
    words = ["--run", tmp_path, "--model", bench.directory]
    assert command("cache-features", *words).code == 0
    search = ["--space", tmp_path / "space.yaml", "--strategy", "halving", "--first", 2, "--budget", 6]
    ended = command("search", *words, *search, "--budget", "50%")
    assert ended.code == 0, ended.err
    assert numbers(read_artifact(tmp_path / "artifact")) == numbers(artifact)


def state(model):
    return (
        [module.training for module in model.modules()],
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.random.get_rng_state().tolist(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
    )


@pytest.mark.parametrize("ends", [None, KeyboardInterrupt, ZeroDivisionError])
def test_model_and_random_state_are_as_before(bench, options, tmp_path, monkeypatch, ends):
    if ends is not None:

        def broken(*_, **__):
            torch.rand(1), random.random(), np.random.rand()
            raise ends

        monkeypatch.setattr(Evaluator, "scores", broken)
    model = bench.model
    model.train()
    next(model.modules()).training = False
    parameter = next(model.parameters())
    parameter.grad = torch.ones_like(parameter)
    try:
        before = state(model)
        call = (model, bench.processor, bench.samples, [6])
        if ends is None:
            cc.calibrate(*call, options=options)
        else:
            with pytest.raises(ends):
                cc.calibrate(*call, run=tmp_path, options=options)
        assert state(model) == before
        assert bool((parameter.grad == 1).all())
        assert parameter.requires_grad
    finally:
        parameter.grad = None
        model.eval()


def test_one_budget_may_be_given_by_itself(bench, options):
    call = (bench.model, bench.processor, bench.samples)
    for one in (12, "12"):
        (planned,) = cc.plan_calibration(*call, one, options=options).budgets
        assert planned["budget"] == "12"


def test_a_model_in_memory_has_no_second_worker(bench, options):
    from speaking_models import load_speaking

    model, processor = load_speaking(bench.directory)
    model.config._name_or_path = ""
    with pytest.raises(cc.errors.InputError, match="save_pretrained"):
        cc.calibrate(model, processor, bench.samples, [6], options=options, crew=cc.Crew(workers=2))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"objective": "luck"}, "unknown objective 'luck'"),
        ({"per_class": 1}, "per_class is 1; expected at least 2"),
        ({"lattice": 0}, "lattice is 0; expected at least 1"),
        ({"seed": -1}, "seed is -1; expected at least 0"),
        ({"strategy": "race"}, r"strategy is 'race'; expected one of Pooled\(\), Race\(\), Grid\(\)"),
        ({"space": "no-such-space.yaml"}, "no search space at no-such-space.yaml"),
        ({"space": {"rhos": [1]}}, "space is a dict; expected a SearchSpace, or a YAML file"),
        (
            {"space": default_space((1, 3), 3), "pruning": PruningOptions(seeding="k-center")},
            r"by 'k-center', which the space does not try \(it tries redundancy\); add it to the space's seedings",
        ),
        ({"taxonomy": "no-such-taxonomy.yaml"}, "no-such-taxonomy.yaml"),
    ],
)
def test_options_check_themselves(change, said):
    with pytest.raises(cc.errors.InputError, match=said):
        cc.CalibrationOptions(**change)


def test_no_budgets_and_no_labels_are_refused(bench, options):
    with pytest.raises(cc.errors.InputError, match="there are no budgets"):
        cc.calibrate(bench.model, bench.processor, bench.samples, [], options=options)
    bare = [cc.Sample(s.id, s.question, s.image, s.answers) for s in bench.samples]
    with pytest.raises(cc.errors.InputError, match="no 'class'"):
        cc.calibrate(bench.model, bench.processor, bare, [6], options=options)


@pytest.mark.parametrize("kept", [{"layers": (1, 3), "precision": "bfloat16"}, {"pixels": True}])
def test_a_cache_that_is_there_stays_what_it_is(bench, options, tmp_path, kept):
    some = bench.samples[: len(bench.samples) // 2]
    cc.cache_features(bench.model, bench.processor, some, run=tmp_path, options=cc.FeatureOptions(**kept))
    found = cc.calibrate(bench.model, bench.processor, bench.samples, [6], run=tmp_path, options=options)
    assert found.budgets == ("6",)
    with FeatureStore.open(tmp_path / "cache") as store:
        assert store.precision.name == kept.get("precision", PIXELS.name)
        assert kept.get("pixels") or store.layers == (1, 3)


def test_layers_that_a_space_or_an_artifact_mixes_are_cached(bench, tmp_path):
    mixed = cc.Prototype(name="mixed", weights={0: 0.5, 3: 0.5})
    space = cc.SearchSpace(prototypes=(mixed,), rhos=(0.5,))
    options = cc.CalibrationOptions(strategy=cc.Halving(first=2), space=space)
    call = (bench.model, bench.processor)
    found = cc.calibrate(*call, bench.samples, [6], run=tmp_path / "run", options=options)
    alphas = found.alphas.copy()
    alphas[...] = 0
    alphas[..., 4] = 1
    changed = dataclasses.replace(found, alphas=alphas)
    cc.ablate("parts", *call, changed, bench.samples, run=tmp_path / "run", options=cc.StudyOptions(per_class=1))
    with FeatureStore.open(tmp_path / "run" / "cache") as store:
        assert store.layers == (0, 1, 2, 3, 4)


def test_places_may_be_texts_and_the_report_s_is_made(bench, artifact, tmp_path):
    places = cc.Places(report=str(tmp_path / "made" / "report"), study=str(tmp_path / "study"))
    assert places.study == tmp_path / "study"
    options = cc.EvaluationOptions(per_class=1, timed=0)
    call = (bench.model, bench.processor, artifact, bench.samples)
    report = cc.evaluate(*call, run=places, options=options)
    assert all(path.is_file() for path in report.files)
    (tmp_path / "file").touch()
    with pytest.raises(cc.errors.InputError, match="give the report another place"):
        cc.ablate("parts", *call, run=cc.Places(report=tmp_path / "file"))


def test_a_cache_that_was_interrupted_before_its_first_picture_is_filled(bench, options, tmp_path, monkeypatch):
    call = (bench.model, bench.processor, bench.samples, [6])

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FeatureWriter, "put", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cc.calibrate(*call, run=tmp_path, options=options)
    assert any((tmp_path / "cache").iterdir())
    assert cc.calibrate(*call, run=tmp_path, options=options).budgets == ("6",)
    with FeatureStore.open(tmp_path / "cache") as store:
        assert store.layers == (1, 2, 3)
