import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from architectures import CASES, together
from made_artifacts import made
from made_routers import made_router
from reference_decoder import reference_rows
from runtime_cases import FULL, SCHEDULE, fingerprint, generated, model
from tiny_models import tiny_batch

import clasp_calib
from clasp_calib.artifacts import artifact, fits
from clasp_calib.common.errors import ArtifactError, BudgetError, InputError
from clasp_calib.common.progress import note_once
from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.common.samples import CLASSES
from clasp_calib.router_labeling.router import Router
from clasp_calib.runtime import pruner as runtime_pruner
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.fusion import fuse
from clasp_calib.runtime.pruner import clasp
from clasp_calib.runtime.routing import classes_of
from clasp_calib.runtime.schedule import RelativeSchedule, parse_budget

MIXTURES = {"object": (0.0, 0.0, 0.25, 0.75, 0.0), "text": (0.0, 0.5, 0.0, 0.0, 0.5)}
SHARES = {"object": 0.8, "text": 0.2}
SEEDS = {"object": "k-center", "text": "farthest"}


OPTIONS = PruningOptions("layered", "all", "compact", "projected", 3, SCHEDULE.starts)


@dataclass
class Stub:
    """What `clasp` reads of an artifact."""

    pruning: PruningOptions = OPTIONS
    router: Router | None = None
    classes: tuple[str, ...] = CLASSES

    def counts(self, budget):
        return {"7": SCHEDULE.counts, "100%": FULL.counts}[budget]

    def alpha(self, budget, label):
        return MIXTURES[label]

    def rho(self, budget, label):
        return SHARES[label]

    def seeding(self, budget, label):
        return SEEDS[label]

    def relevance(self, budget, label):
        return None

    def downsample(self, budget, label):
        return None

    def selector(self, budget, label):
        return None


@pytest.fixture(autouse=True)
def _any_model_fits(monkeypatch):
    monkeypatch.setattr(fits, "check_fits", lambda artifact, model, **how: None)


@pytest.mark.parametrize("classes", [["object", "text", "object"], ["text"] * 3])
def test_runs_as_the_artifact_says(classes):
    batch, adapter = tiny_batch(model()), adapter_for(model())
    with torch.no_grad():
        layers_BLTC = adapter.capture(model(), batch["pixel_values"])
        alpha_BL = torch.tensor([MIXTURES[c] for c in classes], dtype=torch.float64)
        features = adapter.project(model(), fuse(layers_BLTC, alpha_BL))
    settings = {"raters": "all", "positions": "compact", "iterations": 3}
    rho, seeding = [SHARES[c] for c in classes], [SEEDS[c] for c in classes]
    rows = reference_rows(model(), batch, SCHEDULE, rho, features=features, seeding=seeding, **settings)
    before = fingerprint(model())
    with clasp(model(), Stub(), budget=7, classes=classes) as pruner:
        assert generated(model(), batch) == [row.generate(6) for row in rows]
    assert pruner.stats.stages[0].kept(0) == rows[0].kept[0]
    assert fingerprint(model()) == before


def test_one_class_serves_every_row():
    batch = tiny_batch(model())
    with clasp(model(), Stub(), budget="7", classes="text"):
        one = generated(model(), batch)
    with clasp(model(), Stub(), budget="7", classes=["text"] * 3):
        assert generated(model(), batch) == one


def test_classes_may_be_found_by_the_packaged_router():
    batch = tiny_batch(model(), [(3, 7), (2, 5)])
    questions = ["What does the sign say?", "What object is this?"]
    assert classes_of(questions) == ["text", "object"]
    with clasp(model(), Stub(), budget=7, classes="auto", questions=questions):
        found = generated(model(), batch)
    with clasp(model(), Stub(), budget=7, classes=["text", "object"]):
        assert generated(model(), batch) == found
    with (
        pytest.raises(InputError, match="give questions="),
        clasp(model(), Stub(), budget=7, classes="auto"),
    ):
        pass


def test_the_packaged_router_says_that_it_knows_english_only(capsys):
    note_once.cache_clear()
    classes_of(["How many dogs are there?"])
    assert capsys.readouterr().err == ""
    classes_of(["Wie viele Hunde sind auf dem Bild zu sehen?"])
    assert "knows English only" in " ".join(capsys.readouterr().err.split())


def test_the_only_class_of_an_artifact_need_not_be_named():
    batch = tiny_batch(model())
    with clasp(model(), Stub(classes=("text",)), budget=7):
        found = generated(model(), batch)
    with clasp(model(), Stub(classes=("text",)), budget=7, questions=["What is this?"] * 3):
        assert generated(model(), batch) == found
    with clasp(model(), Stub(), budget=7, classes="text"):
        assert generated(model(), batch) == found


def test_classes_of_ones_own_need_a_router():
    own = made("50%")
    told = r"classes of its own \(object, text, default\) and no router .*--taxonomy FILE.*artifact set-router"
    with pytest.raises(InputError, match=told):
        classes_of(["What?"], own)
    column = own.with_manifest(own.manifest.model_copy(update={"taxonomy": {}, "class_from": "task"}))
    with pytest.raises(InputError, match="train-router TABLE --class-from task"):
        classes_of(["What?"], column)
    assert classes_of(["What?"], column.with_router(made_router())) == [made_router().route("What?").label]


def test_classes_are_found_by_the_artifacts_router_where_it_has_one():
    batch = tiny_batch(model(), [(3, 7), (2, 5)])
    router = made_router(("object", "text"), threshold=0.0, bias=np.zeros(2, np.float32))
    found = {router.route(question).label: question for question in "abcdefghijklmnop"}
    rows = ["text", "object"]
    assert classes_of([found[row] for row in rows]) != rows
    with clasp(model(), Stub(router=router), budget=7, classes="auto", questions=[found[row] for row in rows]):
        routed = generated(model(), batch)
    with clasp(model(), Stub(), budget=7, classes=rows):
        assert generated(model(), batch) == routed


THREE = ["text", "object", "text"]


@pytest.mark.parametrize("budget", ["7", "100%"])
@pytest.mark.parametrize(
    ("words", "what"),
    [
        ({"classes": ["text"]}, "1 classes"),
        ({"classes": THREE[:2]}, "2 classes"),
        ({"classes": [*THREE, *THREE]}, "6 classes"),
        ({"classes": "auto", "questions": "What object is this?"}, "1 questions"),
        ({"classes": "auto", "questions": ["What object is this?"] * 2}, "2 questions"),
    ],
)
def test_every_row_has_a_class_of_its_own_or_one_stands_for_all(budget, words, what):
    """Rows that ``generate`` repeats for beams, and calls that go on from the cache, are those of the same prompts."""
    batch, before = tiny_batch(model()), fingerprint(model())
    with clasp(model(), Stub(), budget=budget, **words), torch.no_grad():
        for call in (model(), model().generate):
            with pytest.raises(InputError, match=f"{what} were given for a batch of 3 rows; give one for every row"):
                call(**batch)
    assert fingerprint(model()) == before
    with clasp(model(), Stub(), budget=budget, classes=THREE), torch.no_grad():
        assert len(generated(model(), batch, num_beams=2, num_return_sequences=2)) == 6
        cache = model()(**batch).past_key_values
        assert len(model()(torch.tensor([[40]] * 3), past_key_values=cache).logits) == 3


def test_one_question_routes_a_batch_of_one():
    with clasp(model(), Stub(), budget=7, classes="auto", questions="What does the sign say?"):
        found = generated(model(), tiny_batch(model(), [(3, 7)]))
    with clasp(model(), Stub(), budget=7, classes="text"):
        assert generated(model(), tiny_batch(model(), [(3, 7)])) == found


def test_questions_without_routing_are_refused():
    with (
        pytest.raises(InputError, match="read only with classes='auto'"),
        clasp(model(), Stub(), budget=7, classes="text", questions=["What?"]),
    ):
        pass


def test_ragged_models_take_an_artifacts_percentage():
    case = CASES["qwen2_5_vl"]
    rows = case.rows((1, 1))

    class Percent(Stub):
        def counts(self, budget):
            raise AssertionError("an artifact's counts are for a fixed number of tokens")

        def alpha(self, budget, label):
            return (0.25, 0.0, 0.0, 0.75)

    stub = Percent(replace(OPTIONS, positions="keep"))
    with clasp(case.model(), stub, budget="40%", classes=["object", "text"]) as pruner:
        generated(case.model(), together(rows))
    schedule = RelativeSchedule(parse_budget("40%"), 8, stub.pruning.starts)
    for row in range(2):
        kept = [len(stage.kept(row)) for stage in pruner.stats.stages]
        assert kept == list(schedule.counts_for(pruner.stats.tokens[row][0]))
    with (
        pytest.raises(BudgetError, match="give a percentage"),
        clasp(case.model(), stub, budget=7, classes="text"),
    ):
        pass


def test_an_artifact_of_another_model_is_refused(monkeypatch):
    def refuse(artifact, model, **how):
        raise ArtifactError("made for another")

    monkeypatch.setattr(fits, "check_fits", refuse)
    with pytest.raises(ArtifactError, match="another"), clasp(model(), Stub(), budget=7, classes="text"):
        pass


def test_a_path_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr(artifact, "read_artifact", {tmp_path: Stub()}.__getitem__)
    batch = tiny_batch(model())
    with clasp(model(), tmp_path, budget=7, classes="object") as pruner:
        generated(model(), batch)
    assert len(pruner.stats.stages) == 3


def test_importing_the_packages_loads_nothing_heavy():
    code = (
        "import sys, clasp_calib, clasp_calib.runtime, clasp_calib.baselines\n"
        "sys.exit(sorted({'torch', 'transformers'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_offers_both_doors():
    assert clasp_calib.clasp is runtime_pruner.clasp
    assert clasp_calib.prune is runtime_pruner.prune
    assert not hasattr(clasp_calib, "nothing")
