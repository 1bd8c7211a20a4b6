"""The selectors by name: those of this package, and those that other packages bring."""

import tomllib
from pathlib import Path

import pytest
import torch
from installed_packages import installing
from tiny_models import tiny_llava

from clasp_calib.baselines.divprune import DivPrune
from clasp_calib.baselines.fastv import FastV
from clasp_calib.baselines.method import Method
from clasp_calib.common import plugins
from clasp_calib.common.errors import ArtifactError, InputError
from clasp_calib.common.progress import note_once
from clasp_calib.common.selector_choice import SelectorChoice
from clasp_calib.runtime import selectors as module
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.schedule import parse_budget
from clasp_calib.runtime.selectors import knobs_of, recorded_selector, selected_by_row, selector_of

OTHER = """from dataclasses import dataclass
from clasp_calib.baselines.divprune import DivPrune


@dataclass(frozen=True)
class Other(DivPrune):
    name = "other"
    starts: tuple[int, ...] = (2, 4)
    share: float = 1
    nothing: int | None = None

    def __post_init__(self):
        if self.share > 1:
            raise ValueError("a share")
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installs a package that brings selectors."""
    with installing(module.GROUP, tmp_path, monkeypatch) as install:
        yield install


def test_a_selector_is_made_of_what_is_recorded_of_it():
    assert selector_of(SelectorChoice("divprune")) == DivPrune()
    made = FastV(layer=3, ratio=0.7312345678901234)
    assert selector_of(knobs_of("fastv", made)) == made
    known = knobs_of("fastv", made)
    assert (str(known), known.short) == ("fastv layer=3 ratio=0.7312345678901234", "fastv layer=3 ratio=0.7312")


def test_every_one_of_this_package_is_a_method_of_its_name():
    brought = plugins.brought(module.GROUP)
    names = sorted(name for name, (point, *_) in brought.items() if point.dist.name == "clasp-calib")
    told = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["entry-points"]
    assert names == sorted(told[module.GROUP]), "install the package again: pip install -e ."
    for name in names:
        made = selector_of(SelectorChoice(name))
        assert isinstance(made, Method)
        assert made.name == name
        assert selector_of(knobs_of(name, made)) == made


def test_an_installed_package_brings_its_selector(package):
    package("others", OTHER, ["other = others:Other"])
    given = {"starts": [3, 5], "share": 0.5, "nothing": "x"}
    made = selector_of(SelectorChoice.of("other", given))
    assert (made.starts, made.share, made.nothing, made.keep) == ((3, 5), 0.5, "x", DivPrune().keep)
    with pytest.raises(InputError, match=r"no selector 'nosuch' in this installation, which has clasp, .*other"):
        selector_of(SelectorChoice("nosuch"))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"deep": 1}, "has no knob 'deep'; it has keep, starts, share, nothing"),
        ({"starts": 3}, r"knob 'starts' .* is 3; expected something like \(2, 4\)"),
        ({"starts": ["a"]}, r"knob 'starts' .* is \('a',\); expected"),
        ({"keep": 9}, "knob 'keep' .* is 9; expected something like '9.8%'"),
        ({"share": True}, "knob 'share' .* is True"),
        (
            {"share": 7},
            r"selector other share=7 cannot have these knobs \(ValueError: a share\); .*mend .* others 1\.0",
        ),
    ],
)
def test_knobs_that_it_cannot_have(package, knobs, message):
    package("others", OTHER, ["other = others:Other"])
    with pytest.raises(InputError, match=message):
        selector_of(SelectorChoice.of("other", knobs))


def test_what_cannot_be_loaded_is_named(package):
    package("broken", "1 / 0", ["bad = broken:Other"])
    with pytest.raises(InputError, match=r"selector 'bad' of broken \(broken:Other\) cannot be loaded \(.+\); mend"):
        selector_of(SelectorChoice("bad"))
    package("twin", OTHER, ["fastv = twin:Other"])
    with pytest.raises(InputError, match=r"'fastv' is brought by .*twin.*; remove one"):
        selector_of(SelectorChoice("fastv"))


BROUGHT = plugins.brought(module.GROUP)
NAMES = sorted(name for name, (point, *_) in BROUGHT.items() if point.dist.name == "clasp-calib")


@pytest.fixture(scope="module")
def model():
    return tiny_llava(decoder_layers=5)


def solved(name, model, budget="9"):
    adapter = adapter_for(model)
    return knobs_of(name, selector_of(SelectorChoice(name)).solved(adapter, parse_budget(budget)))


@pytest.mark.parametrize("budget", ["8", "9", "50%", "69.9%"])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_solved_for_a_budget_is_served_for_it(model, name, budget):
    choice = solved(name, model, budget)
    assert knobs_of(name, recorded_selector(choice, model, budget)) == choice


@pytest.mark.parametrize("name", NAMES)
def test_what_is_solved_for_another_budget_is_refused(model, name):
    with pytest.raises(ArtifactError, match=f"of the selector '{name}' as .*, and a budget of 9 solves it to "):
        recorded_selector(solved(name, model, "11"), model, "9")


@pytest.mark.parametrize("name", NAMES)
def test_knobs_that_a_budget_decides_have_to_be_recorded_and_others_are_as_they_were_set(model, name, capsys):
    plain = dict(knobs_of(name, selector_of(SelectorChoice(name))).knobs)
    for number, (knob, value) in enumerate(knobs := solved(name, model).knobs):
        less = SelectorChoice(name, knobs[:number] + knobs[number + 1 :])
        if value == plain[knob]:
            note_once.cache_clear()
            assert knobs_of(name, recorded_selector(less, model, "9")).knobs == knobs
            said = capsys.readouterr().err
            assert f"does not record of the selector '{name}' {knob}, which may be new in clasp-calib " in said
            assert f"{knob}=" in said
        else:
            with pytest.raises(ArtifactError, match=f"records the selector '{name}' without its knobs {knob}, which"):
                recorded_selector(less, model, "9")


FAILING = """from dataclasses import dataclass
from clasp_calib.baselines.divprune import DivPrune


class Made:
    def __init__(self):
        1 / 0


class Bare: ...


@dataclass(frozen=True)
class Adapted(DivPrune):
    def adapter_for(self, model):
        1 / 0


@dataclass(frozen=True)
class Solved(DivPrune):
    def solved(self, adapter, budget):
        1 / 0


class Mixed(DivPrune):
    def actions(self, model, adapter):
        1 / 0
"""


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "Made",
            r"selector other keep=9 cannot be made as its authors set it \(ZeroDivisionError.* the package others 1\.0",
        ),
        ("Bare", r"cannot be made as its authors set it \(TypeError.* the package others 1\.0"),
        ("Adapted", r"cannot be solved for a budget of 9 \(ZeroDivisionError.* mend the package others 1\.0"),
        ("Solved", r"cannot be solved for a budget of 9 \(ZeroDivisionError.* mend the package others 1\.0"),
    ],
)
def test_what_fails_in_a_package_where_it_is_served_is_named(model, package, kind, message):
    package("others", FAILING, [f"other = others:{kind}"])
    with pytest.raises(InputError, match=message):
        recorded_selector(SelectorChoice.of("other", {"keep": "9"}), model, "9")


def test_what_fails_in_a_package_where_it_shares_a_batch_is_named(model, package):
    package("others", FAILING, ["other = others:Mixed"])
    choices = [SelectorChoice.of(name, {"keep": "9"}) for name in ("other", "divprune")]
    selectors = {choice: recorded_selector(choice, model, "9") for choice in choices}
    alpha_BL = torch.eye(adapter_for(model).vision_layers + 1, dtype=torch.float64)[[3, 3]]
    message = r"other keep=9 cannot say what it does to a row .*ZeroDivisionError.* mend the package others 1\.0"
    with pytest.raises(InputError, match=message), selected_by_row(model, selectors, [0, 1], alpha_BL):
        pass


@pytest.mark.parametrize(
    ("name", "knobs", "error", "message"),
    [
        ("divprune", {"keep": "100%"}, ArtifactError, "'keep' .* '100%', and a budget of 9 solves it to '9'"),
        ("dart", {"kept": -7.0}, InputError, r"'kept' of dart is -7\.0"),
        ("fastv", {"ratio": 0.0}, ArtifactError, r"'ratio' .* as 0\.0, and a budget of 9 solves it to 0\.7"),
        ("pyramiddrop", {"starts": (1,), "ratios": ()}, InputError, "'ratios' of pyramiddrop"),
        ("pyramiddrop", {"starts": (1,), "ratios": (0.5,)}, ArtifactError, r"as \(0\.5,\), and a budget of 9"),
        ("btp", {"kept": (0.5,)}, InputError, "'kept' of btp"),
        (
            "btp",
            {"kept": (1.0, 1.0, 1.0, 0.0)},
            ArtifactError,
            r"'kept' .* as \(1\.0, 1\.0, 1\.0, 0\.0\), and a budget",
        ),
        ("sparsevlm", {"share": None}, ArtifactError, r"'share' .* as None, and a budget of 9 solves it to 0\.5625"),
    ],
)
def test_knobs_that_were_altered_are_refused(model, name, knobs, error, message):
    altered = SelectorChoice.of(name, dict(solved(name, model).knobs) | knobs)
    with pytest.raises(error, match=message):
        recorded_selector(altered, model, "9")
