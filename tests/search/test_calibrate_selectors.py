"""A calibration in which other methods may choose tokens: what was planted is found and served as it scored."""

import json
from dataclasses import replace

import pytest
import torch
from speaking_models import load_speaking, speaking_llava_directory, write_samples

import clasp_calib as cc
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.feature_sources import open_source
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.studies.evaluation import _a_layer, calibrated_setting
from clasp_calib.cli import run as command
from clasp_calib.common.errors import ArtifactError, BudgetError, InputError, ModelError
from clasp_calib.common.samples import Sample
from clasp_calib.common.selector_choice import SelectorChoice
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.schedule import parse_budget
from clasp_calib.search.solved_selectors import solved_for, solved_where_met
from clasp_calib.search.space import Prototype, SearchSpace, SpaceSelector, read_space, write_space
from clasp_calib.search.strategies.grid import Grid

BUDGET = "9"
STARTS = (1, 2, 3)
OPTIONS = cc.PruningOptions(starts=STARTS)
SPACE = SearchSpace(
    prototypes=(Prototype(name="own", weights={3: 1}), Prototype(name="mixed", weights={1: 0.5, 3: 0.5})),
    rhos=(0.5,),
    selectors=("clasp", {"name": "fastv", "knobs": {"layer": [1, 2]}}, "divprune"),
)
FASTV, DIVPRUNE = SelectorChoice.of("fastv", {"layer": 2}), SelectorChoice("divprune")
PLANTED = {
    "attribute": Candidate("mixed", (0, 0.5, 0, 0.5, 0), 1.0, selector=FASTV),
    "counting": Candidate("mixed", (0, 0.5, 0, 0.5, 0), 1.0, selector=DIVPRUNE),
    "spatial": Candidate("mixed", (0, 0.5, 0, 0.5, 0), 0.5),
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Model, processor, and samples whose accepted answers are those of the class's planted setting."""
    root = tmp_path_factory.mktemp("selectors")
    directory = speaking_llava_directory(root / "model", decoder_layers=5)
    model, processor = load_speaking(directory)
    evaluator = Evaluator(model, Prompter(processor, model), open_source(None, model, processor).at((1, 3)))
    pruning = Pruning(schedule_for(model, BUDGET, OPTIONS), OPTIONS)
    samples = []
    for row in map(json.loads, write_samples(root, {"calibration": 12, "test": 3}).open()):
        asked, place = ("?",), {"split": row["split"], "label": row["gold_class"]}
        sample = Sample(row["id"], row["question"], root / row["image"], asked, **place)
        planted = solved_for([PLANTED[sample.label]], model, parse_budget(BUDGET), filmed=False)
        (said,) = evaluator.answers(sample, planted, pruning)
        asked = replace(sample, answers=(said or "?",))
        if said and evaluator.scores(asked, planted, pruning).score == (1.0,):
            samples.append(asked)
    return model, processor, samples, directory


def options(**more):
    return cc.CalibrationOptions(**{"space": SPACE, "pruning": OPTIONS, "strategy": Grid(), "anyway": True, **more})


@pytest.fixture(scope="module")
def found(bench, tmp_path_factory):
    model, processor, samples, _ = bench
    run = tmp_path_factory.mktemp("run")
    return cc.calibrate(model, processor, samples, BUDGET, run=run, options=options()), run


def test_the_planted_selector_is_found_and_recorded(found):
    artifact, run = found
    assert artifact.manifest == cc.Artifact.load(run / "artifact").manifest
    for label, planted in PLANTED.items():
        choice = artifact.selector(BUDGET, label)
        assert (choice and choice.name) == (planted.selector and planted.selector.name)
        assert artifact.alpha(BUDGET, label) == planted.alpha
        assert artifact.entry(BUDGET).choices[label].calibration == 1.0
    # Five layers: one works on all 16 tokens, or two, and what is left is the budget's.
    assert dict(artifact.selector(BUDGET, "attribute").knobs) == {"layer": 2, "ratio": pytest.approx(1 - 13 / 3 / 16)}
    assert dict(artifact.selector(BUDGET, "counting").knobs) == {"keep": "9"}
    told = artifact.manifest.model_dump(mode="json")["budgets"][0]["choices"]
    assert "selector" not in told["spatial"]


def test_it_is_served_as_it_scored(bench, found):
    model, processor, samples, _ = bench
    artifact, run = found
    tested = [sample for sample in samples if sample.split == "test"]
    assert {sample.label for sample in tested} == set(PLANTED)
    for sample in tested:
        asked = cc.GenerationOptions(sample.label, max_new_tokens=16)
        said = cc.generate(model, processor, sample.image, sample.question, artifact=artifact, options=asked)
        assert (said.text,) == sample.answers
        assert sum(said.answer.stats.mean_tokens) == pytest.approx(9, abs=0.5)
    report = cc.evaluate(model, processor, artifact, samples, run=run, options=cc.EvaluationOptions(timed=1))
    assert report.at(BUDGET).scores["calibrated"]["macro"].mean == 1.0
    contest = cc.compare(
        model, processor, artifact, samples, ["fastv"], options=cc.ComparisonOptions(timed=1, per_class=2)
    )
    assert contest.macro(BUDGET).mean == 1.0


def test_tokens_are_told_of_the_selector(bench, found):
    """As many as the budget says, whatever the stages of the dual-stage selection keep."""
    model, processor, samples, _ = bench
    evaluator = Evaluator(model, Prompter(processor, model), open_source(None, model, processor).at((1, 3)))
    other = Pruning(schedule_for(model, "12", OPTIONS), OPTIONS)
    setting = replace(calibrated_setting(model, found[0], BUDGET), pruning=other)
    for label, expected in (("attribute", 9), ("counting", 9), ("spatial", other.schedule.mean_tokens)):
        sample = next(sample for sample in samples if sample.label == label)
        assert _a_layer(setting, evaluator, sample, parse_budget(BUDGET), 16) == expected
        assert _a_layer(setting, evaluator, sample, parse_budget("56.25%"), None) == expected


def test_rows_of_one_selector_or_of_several_are_a_batch(bench, found):
    model, processor, samples, _ = bench
    for labels in (["attribute"], ["counting"], list(PLANTED)):
        of = [sample for label in labels for sample in [s for s in samples if s.label == label][:3]]
        texts = [Prompter(processor, model).text(sample.question) for sample in of]
        pictures = [[cc.resized(model, processor, s.picture, found[0], budget=BUDGET, class_=s.label)[0]] for s in of]
        inputs = processor(images=pictures, text=texts, padding=True, padding_side="left", return_tensors="pt")
        with torch.inference_mode(), cc.clasp(model, found[0], budget=BUDGET, classes=[s.label for s in of]):
            output = model.generate(**inputs, max_new_tokens=16, do_sample=False)
        said = processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert [(one.strip(),) for one in said] == [sample.answers for sample in of]


def test_a_killed_search_goes_on_to_the_same_bytes(bench, found, tmp_path, monkeypatch):
    model, processor, samples, _ = bench
    plain, tasks = Evaluator.scores, 0

    def dies(self, *args, **kwargs):
        nonlocal tasks
        tasks += 1
        if tasks == 6:
            raise KeyboardInterrupt
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(Evaluator, "scores", dies)
    with pytest.raises(KeyboardInterrupt):
        cc.calibrate(model, processor, samples, BUDGET, run=tmp_path, options=options())
    assert not (tmp_path / "artifact").exists()
    again = cc.calibrate(model, processor, samples, BUDGET, run=tmp_path, options=options())
    assert tasks > 6
    written = (tmp_path / "artifact" / "artifact.json").read_bytes()
    repeated = cc.calibrate(model, processor, samples, BUDGET, options=options()).save(tmp_path / "other")
    assert (tmp_path / "other" / "artifact.json").read_bytes() == written
    assert again.manifest.budgets[0].choices == repeated.manifest.budgets[0].choices


def test_a_selector_that_cannot_meet_a_budget_of_before_is_searched_at_others(bench, tmp_path):
    """At 6 two of five layers on all 16 tokens are too many; what others showed at 6 is evidence all the same."""
    model, processor, samples, _ = bench
    words = {"run": tmp_path, "options": options(space=SPACE.of_method("clasp"), per_class=4)}
    cc.calibrate(model, processor, samples, "6", **words)
    artifact = cc.calibrate(model, processor, samples, BUDGET, **words | {"options": options(per_class=4)})
    assert artifact.budgets == ("6", BUDGET)
    assert artifact.entry(BUDGET).decision.budgets == ("6",)
    asked, six = SPACE.candidates(4, 3), parse_budget("6")
    known = dict(zip(asked, solved_where_met(asked, model, six, filmed=False), strict=True))
    with pytest.raises(BudgetError, match="fastv cannot meet a budget of 6"):
        solved_for(asked, model, six, filmed=False)
    for candidate, solved in known.items():
        if candidate.selector == FASTV:
            assert solved == candidate
        else:
            assert [solved] == solved_for([candidate], model, six, filmed=False)
    assert FASTV in [candidate.selector for candidate in known]


def test_an_option_that_other_selectors_do_not_read_is_ablated_where_it_is_read(bench, found, tmp_path):
    model, processor, samples, _ = bench
    options = cc.StudyOptions(per_class=1)
    report = cc.ablate("iterations", model, processor, found[0], samples, run=tmp_path, options=options)
    (compared, _) = report.found[BUDGET]
    assert compared.classes == ("spatial",)
    assert {*report.left_out[BUDGET]} == {"attribute", "counting"}
    for label in report.left_out[BUDGET]:
        assert label in report.to_markdown().splitlines()[0]
    told = json.loads(report.files[1].read_text())
    assert told["samples"] == report.samples == {BUDGET: 1}
    assert {*told["left_out"][BUDGET]} == {"attribute", "counting"}
    whole = cc.ablate("parts", model, processor, found[0], samples, options=options)
    assert len(whole.found[BUDGET][0].classes) == 3
    assert whole.samples == {BUDGET: 3}
    assert "without" not in whole.to_markdown()


def test_one_method_alone(bench, capsys):
    model, processor, samples, _ = bench
    small = Prototype(name="small", weights={3: 1}, downsample=0.5)
    space = SPACE.model_copy(update={"prototypes": (*SPACE.prototypes, small)})
    chosen = options(method="divprune", strategy=None, space=space)
    artifact = cc.calibrate(model, processor, samples, BUDGET, options=chosen)
    assert capsys.readouterr().err.count("left out: small\n") == 1
    with pytest.raises(InputError, match=r"'starts' varies .* at budget 9 all classes have other selectors; .* parts"):
        cc.ablate("starts", model, processor, artifact, samples)
    assert {artifact.selector(BUDGET, label).name for label in PLANTED} == {"divprune"}
    assert artifact.entry(BUDGET).choices["counting"].candidates == 2
    assert options(method="clasp").selectors == []


def test_from_the_shell(bench, found, tmp_path, capsys):
    *_, samples, directory = bench
    table, run, space = tmp_path / "samples.jsonl", tmp_path / "run", tmp_path / "space.yaml"
    write_space(SPACE, space)
    assert read_space(space) == SPACE
    rows = [
        {"id": s.id, "image": str(s.image), "question": s.question, "answers": list(s.answers)}
        | {"split": s.split, "class": s.label}
        for s in samples
    ]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shared = ["--run", str(run), "--model", str(directory)]
    asked = [
        "--space",
        str(space),
        "--budget",
        BUDGET,
        "--starts",
        "1,2,3",
        "--strategy",
        "grid",
        "--anyway",
        "--recompute",
    ]
    assert command(["search", *shared, "--samples", str(table), *asked, "--workers", "1"]) == 0
    assert "fastv layer=2" in capsys.readouterr().out
    written = cc.Artifact.load(run / "artifact")
    assert [written.selector(BUDGET, label) for label in PLANTED] == [
        found[0].selector(BUDGET, label) for label in PLANTED
    ]
    assert command(["evaluate", *shared, "--recompute", "--timed", "1", "--workers", "1", "--json"]) == 0
    (scored,) = json.loads(capsys.readouterr().out)["budgets"]
    assert scored["scores"]["calibrated"]["macro"]["mean"] == 1.0
    sample = next(sample for sample in samples if sample.label == "counting" and sample.split == "test")
    told = ["--prompt", sample.question, "--image", str(sample.image), "--class", "counting", "--json"]
    assert command(["generate", *shared, *told]) == 0
    assert json.loads(capsys.readouterr().out)["answer"] in sample.answers


@pytest.mark.parametrize(
    ("selector", "error", "message"),
    [
        ("nosuch", InputError, "no selector 'nosuch' in this installation, which has clasp, .*divprune, .*fastv"),
        ({"name": "fastv", "knobs": {"deep": 1}}, InputError, "'fastv' has no knob 'deep'; it has layer, ratio"),
        (
            {"name": "fastv", "knobs": {"layer": "two"}},
            InputError,
            "'layer' of the selector 'fastv' is 'two'; expected",
        ),
        (
            {"name": "divprune", "knobs": {"keep": "4"}},
            InputError,
            "'keep' of the selector 'divprune' decides how many",
        ),
        ({"name": "fastv", "knobs": {"layer": 4}}, BudgetError, "fastv cannot meet a budget of 9"),
        (
            {"name": "fastv", "knobs": {"layer": 5}},
            ModelError,
            "its decoder has 5 layers, and tokens are to go at layer",
        ),
        ({"name": "fastv", "knobs": {"layer": 0}}, InputError, "'layer' of fastv is 0; expected a decoder layer from"),
        ({"name": "vispruner", "knobs": {"important": [0.5, 2.0]}}, InputError, "'important' of vispruner is 2.0"),
        ({"name": "dart", "knobs": {"starts": [[2, 3]]}}, InputError, r"'starts' of dart is \(2, 3\)"),
        ({"name": "holov", "knobs": {"strips": 0}}, InputError, "'strips' of holov is 0"),
        (
            {"name": "sparsevlm-v2", "knobs": {"counts": [[300, 200, 118], [66, 34, 20]]}},
            InputError,
            "'counts' of the selector 'sparsevlm-v2' decides how many",
        ),
    ],
)
def test_what_cannot_be_tried_is_refused_before_anything_is_measured(bench, tmp_path, selector, error, message):
    model, processor, samples, _ = bench
    space = SPACE.model_copy(update={"selectors": (SpaceSelector.model_validate(selector),)})
    with pytest.raises(error, match=message):
        cc.calibrate(model, processor, samples, BUDGET, run=tmp_path, options=options(space=space))
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"name": "nosuch"}, InputError, "no selector 'nosuch' in this installation"),
        ({"knobs": {"keep": "100%"}}, ArtifactError, "'keep' of the selector 'divprune' as '100%', and a budget of 9"),
        ({"knobs": {}}, ArtifactError, "the selector 'divprune' without its knobs keep, which"),
    ],
)
def test_an_artifact_whose_selector_was_altered_is_refused(bench, found, change, error, message):
    model, processor, samples, _ = bench
    artifact = found[0]
    entry = artifact.entry(BUDGET)
    altered = entry.choices["counting"].selector.model_copy(update=change)
    choices = {**entry.choices, "counting": entry.choices["counting"].model_copy(update={"selector": altered})}
    budgets = (entry.model_copy(update={"choices": choices}),)
    other = artifact.with_manifest(artifact.manifest.model_copy(update={"budgets": budgets}))
    with pytest.raises(error, match=message), cc.clasp(model, other, budget=BUDGET, classes="counting"):
        pass
    with pytest.raises(error, match=message):
        cc.evaluate(model, processor, other, samples)
    with pytest.raises(error, match=message):
        cc.ablate("parts", model, processor, other, samples, options=cc.StudyOptions(per_class=1))


def test_it_is_told_of_and_compared(found, tmp_path, capsys):
    artifact, run = found
    plain = artifact.entry(BUDGET).choices
    clasp = {"selector": None, "seeding": "farthest"}
    without = {label: one.model_copy(update=clasp if one.selector else {}) for label, one in plain.items()}
    budgets = (artifact.entry(BUDGET).model_copy(update={"choices": without}),)
    artifact.with_manifest(artifact.manifest.model_copy(update={"budgets": budgets})).save(tmp_path / "other")
    assert command(["artifact", "show", str(run / "artifact")]) == 0
    assert "divprune keep=9" in capsys.readouterr().out.replace("\n", " ")
    assert "fastv layer=2 ratio=0." in (run / "artifact" / "README.md").read_text()
    assert command(["artifact", "diff", str(tmp_path / "other"), str(run / "artifact")]) == 0
    told = capsys.readouterr().out.replace("\n", " ")
    assert "selector clasp -> divprune keep=9" in told
    assert "spatial" not in told
    assert "rho" not in told
    assert "seeding" not in told
    assert command(["artifact", "export", str(tmp_path / "plain.json"), "--artifact", str(run / "artifact")]) == 0
    numbers = json.loads((tmp_path / "plain.json").read_text())["budgets"][BUDGET]["classes"]
    assert numbers["counting"]["selector"] == {"name": "divprune", "knobs": {"keep": "9"}}
    assert "selector" not in numbers["spatial"]
