"""What is served is what transformers computes: of every picture the same tokens stay."""

import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from made_artifacts import CONFIG, made
from served_artifacts import served_artifact

from clasp_calib import clasp
from clasp_calib.artifacts.files import write_artifact
from clasp_calib.common.errors import ArtifactError, BudgetError, ClaspError, InputError
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.encoding import chosen_tokens
from clasp_calib.runtime.tower import fused_tower
from clasp_calib.serving.resolving import asked_for, resolved
from clasp_calib.serving.served import ServedArtifact, blocks_of

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
from architectures import CASES

PROMPT = "<image>{question}"
MIXED = {1: 0.25, 2: 0.75}
SETTINGS = {
    "pivots": {},
    "coverage": {"rho": 0.0},
    "both": {"layers": MIXED, "rho": 0.4, "relevance": "mean-attention"},
    "farthest": {"layers": MIXED, "rho": 0.3, "seeding": "farthest"},
    "divprune": {"layers": MIXED, "selector": ("divprune", {})},
    "vispruner": {"selector": ("vispruner", {"important": 0.5})},
}
BUDGETS = ["33%", "60%"]


def pictured(case):
    """Prompts with a picture each, of several sizes where there are such."""
    return [case.row(seed, 3, 1, 5) for seed in range(3)]


@pytest.fixture(params=["llava", "qwen2_5_vl"])
def served(request, tmp_path):
    case = CASES[request.param]
    model = case.model()
    artifact = write_artifact(served_artifact(model, BUDGETS, SETTINGS, PROMPT), tmp_path / "artifact")
    given = {"artifact": str(tmp_path / "artifact"), "budget": "33%", "class": "pivots"}
    found, _, _ = resolved(model.config, given, str(tmp_path))
    there = ServedArtifact.of(pickle.loads(pickle.dumps(SimpleNamespace(clasp=found.to_dict()))))
    assert there == found
    return SimpleNamespace(case=case, model=model, artifact=artifact, served=there)


@torch.no_grad()
def kept_by_transformers(of, row, label, budget):
    with clasp(of.model, of.artifact, budget=budget, classes=[label]) as pruner:
        of.model.generate(**row, max_new_tokens=1)
        return sorted(pruner.stats.stages[0].kept(0))


@torch.no_grad()
def kept_by_served(of, row, label, budget):
    adapter, number, places = adapter_for(of.model), of.served.entry_index(label, budget), []
    entry = of.served.entries[number]

    def choose(image):
        places.append(of.served.chosen(image, adapter, number))
        return places[-1]

    alpha_1L = torch.zeros(1, adapter.vision_layers + 1, dtype=torch.float64)
    alpha_1L[0, list(entry.layers)] = torch.tensor(entry.weights, dtype=torch.float64)
    with (
        fused_tower(of.model, adapter, alpha_1L),
        chosen_tokens(of.model, adapter, blocks_of([entry], adapter), choose, in_place=True),
    ):
        names = [adapter.pixel_names["image"], "image_grid_thw"]
        of.model.model.get_image_features(**{name: row[name] for name in names if name in row}, return_dict=True)
    (kept,) = places
    return sorted(kept.place_T.tolist()), len(places)


@pytest.mark.parametrize("label", SETTINGS)
@pytest.mark.parametrize("budget", BUDGETS)
def test_the_same_tokens_stay_as_on_transformers(served, label, budget):
    for row in pictured(served.case):
        kept, _ = kept_by_served(served, row, label, budget)
        tokens = int((row["input_ids"] == adapter_for(served.model).visual_token_ids["image"]).sum())
        assert kept == kept_by_transformers(served, row, label, budget)
        assert len(kept) == served.served.entries[served.served.entry_index(label, budget)].kept(tokens) < tokens


def test_a_mixture_is_that_of_the_artifact(served):
    states = {layer: torch.randn(5, 4, dtype=torch.float64) for layer in range(9)}
    for number, entry in enumerate(served.served.entries):
        alpha = served.artifact.alpha(entry.budget, entry.label)
        expected = sum(weight * states[layer] for layer, weight in enumerate(alpha) if weight)
        assert torch.allclose(served.served.mixed(states, number), expected)


@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 24, 1000])
def test_some_of_every_picture_stay_and_never_more_than_there_are(served, tokens):
    for entry in served.served.entries:
        assert 1 <= entry.kept(tokens) <= tokens


def test_the_entry_that_a_server_measures_itself_by_keeps_the_most(served):
    adapter = adapter_for(served.model)
    tokens, largest = (
        4096 if adapter.ragged else adapter.tokens_per_image,
        served.served.entries[served.served.largest_entry()],
    )
    assert all(entry.kept(tokens) <= largest.kept(tokens) for entry in served.served.entries)
    assert largest.budget == "60%"


def test_a_request_gets_its_own_budget_or_the_server_s(served):
    of = served.served
    assert of.entries[of.entry_index("both")].budget == "33%"
    assert of.entries[of.entry_index("both", "60.0%")].budget == "60%"
    with pytest.raises(InputError, match="no class 'telepathy'; expected one of pivots, coverage"):
        of.entry_index("telepathy")
    with pytest.raises(InputError, match="no budget '50%'; expected one of 33%, 60%"):
        of.entry_index("both", "50%")
    with pytest.raises(BudgetError, match="half"):
        of.entry_index("both", "half")


def test_what_is_set_is_read_and_nothing_else(monkeypatch):
    assert asked_for() == {}
    monkeypatch.setenv("CLASP_ARTIFACT", "org/name@v1")
    monkeypatch.setenv("CLASP_BUDGET", " 33% ")
    assert asked_for() == {"artifact": "org/name@v1", "budget": "33%"}
    assert asked_for({"artifact": "other"}) == {"artifact": "other"}
    for wrong, told in (
        ({"artefact": "x"}, "'artefact'"),
        ("org/name", "'org/name'"),
        ({"budget": "33%"}, "CLASP_BUDGET"),
    ):
        with pytest.raises(InputError, match=told):
            asked_for(wrong)


MODEL = CASES["llava"]


def of_llava(setting=None, budgets=("33%",), more=None, **changes):
    return served_artifact(MODEL.model(), budgets, {"a": setting or {}} | (more or {}), PROMPT, **changes)


REFUSED = {
    "layered": (lambda: made("8"), CONFIG, {}, "profile layered.*search --profile input"),
    "another model": (of_llava, CONFIG, {}, "this model differs"),
    "several budgets": (lambda: of_llava(budgets=BUDGETS), None, {}, "33%, 60%; name one: CLASP_BUDGET"),
    "no such budget": (of_llava, None, {"budget": "50%"}, "no budget '50%'"),
    "no such class": (of_llava, None, {"class": "cats"}, "no class 'cats'; expected one of a"),
    "positions": (lambda: of_llava(positions="keep"), None, {}, "positions keep.*--positions compact"),
    "inside": (lambda: of_llava({"selector": ("fastv", {})}), None, {}, "fastv.*cannot be served"),
    "knobs": (lambda: of_llava({"selector": ("divprune", {"keep": "20%"})}), None, {}, "'keep'.*solves it to '33%'"),
    "weights": (of_llava, None, {"strict": "1"}, "CLASP_STRICT"),
    "no switch": (of_llava, None, {"strict": "on"}, "'on'; expected one of 1, true"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_served_is_refused_with_what_to_do(name, tmp_path):
    make, config, given, told = REFUSED[name]
    write_artifact(make(), tmp_path / "artifact")
    with pytest.raises(ClaspError, match=told):
        resolved(config or MODEL.model().config, {"artifact": str(tmp_path / "artifact"), **given}, str(tmp_path))


def test_a_class_that_is_shown_smaller_pictures_is_refused(tmp_path):
    model = CASES["qwen2_5_vl"].model()
    artifact = served_artifact(model, ["33%"], {"a": {"downsample": 0.5}}, PROMPT)
    write_artifact(artifact, tmp_path / "artifact")
    with pytest.raises(ArtifactError, match="class 'a' at 33% smaller"):
        resolved(model.config, {"artifact": str(tmp_path / "artifact")}, str(tmp_path))


def test_a_model_s_own_configuration_serves_nothing():
    assert ServedArtifact.of(SimpleNamespace()) is None
    assert ServedArtifact.of(SimpleNamespace(clasp={"artifact": "org/name@v1", "entries": []})) is None


def test_classes_that_nothing_tells_apart_are_told_of(tmp_path):
    write_artifact(of_llava(more={"b": {}}), tmp_path / "artifact")
    _, _, notes = resolved(MODEL.model().config, {"artifact": str(tmp_path / "artifact")}, str(tmp_path))
    assert "every request has to name its own; set CLASP_CLASS" in notes[-1]


def test_other_weights_are_told_of(tmp_path):
    write_artifact(of_llava(), tmp_path / "artifact")
    _, _, notes = resolved(MODEL.model().config, {"artifact": str(tmp_path / "artifact")}, str(tmp_path))
    assert len(notes) == 1
    assert "holds no checkpoint" in notes[0]
