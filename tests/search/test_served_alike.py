"""Selectors of others that are scored as one thing and served as another are refused before anything is measured."""

from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
from speaking_models import load_speaking, speaking_llava_directory, write_samples

import clasp_calib as cc
from clasp_calib.baselines.divprune import DivPrune
from clasp_calib.baselines.fastv import FastV
from clasp_calib.baselines.input_method import ChoosesAtInput, InputMethod
from clasp_calib.common import plugins
from clasp_calib.common.errors import ComputationError, InputError
from clasp_calib.runtime.selectors import GROUP
from clasp_calib.search.space import Prototype, SearchSpace
from clasp_calib.search.strategies.grid import Grid


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    model, processor = load_speaking(speaking_llava_directory(root / "model", decoder_layers=5))
    return model, processor, cc.load_samples(write_samples(root, {"calibration": 3}))


@contextmanager
def doubled(module):
    """A module's output times two."""
    hook = module.register_forward_hook(lambda *args: 2 * args[-1])
    try:
        yield
    finally:
        hook.remove()


@dataclass(frozen=True)
class OnTheTower(FastV):
    """Chooses in the decoder, and changes what the projector gives."""

    @contextmanager
    def attached(self, model, adapter, prompt_lengths):
        projector = adapter.multimodal_model(model).multi_modal_projector
        with doubled(projector), super().attached(model, adapter, prompt_lengths) as read:
            yield read


@dataclass(frozen=True)
class SeesTheTower(FastV):
    """Keeps 8 tokens where the tower runs, and 9 elsewhere."""

    @contextmanager
    def attached(self, model, adapter, prompt_lengths):
        ran = []
        hook = adapter.vision_tower(model, "image").register_forward_hook(lambda *_: ran.append(True))
        with super().attached(model, adapter, prompt_lengths) as read:
            yield lambda: replace(read(), tokens=((8 if ran else 9,) * 5,))
        hook.remove()


@dataclass(frozen=True)
class Silent(FastV):
    @contextmanager
    def attached(self, model, adapter, prompt_lengths):
        with super().attached(model, adapter, prompt_lengths):
            yield lambda: None


@dataclass(frozen=True)
class Breaks(FastV):
    @contextmanager
    def attached(self, model, adapter, prompt_lengths):
        with super().attached(model, adapter, prompt_lengths):
            yield lambda: 1 / 0


@dataclass(frozen=True)
class Other(ChoosesAtInput):
    """No `InputMethod`, and scored as it is served all the same."""

    name = "other"

    def solved(self, adapter, budget):
        return self

    def count(self, image):
        return 9

    def kept(self, image, token_P, count):
        return DivPrune().kept(image, token_P, count)


def calibrated(bench, monkeypatch, kind, run=None):
    model, processor, samples = bench
    known = plugins.brought(GROUP)
    point = type("Point", (), {"load": lambda self: kind, "dist": None, "value": "others:Other"})()
    monkeypatch.setattr(plugins, "brought", lambda group: {**known, "other": [point]} if group == GROUP else {})
    space = SearchSpace(
        prototypes=(Prototype(name="mixed", weights={1: 0.5, 3: 0.5}),), rhos=(0.5,), selectors=("clasp", "other")
    )
    pruning = cc.PruningOptions(starts=(1, 2, 3))
    options = cc.CalibrationOptions(space=space, pruning=pruning, strategy=Grid(), anyway=True, class_from="gold_class")
    return cc.calibrate(model, processor, samples, "9", run=run, options=options)


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (
            OnTheTower,
            InputError,
            "'other' makes the model say something else where it is served .*, of the same tokens",
        ),
        (SeesTheTower, InputError, "'other' works on 9 tokens a layer where it is scored, and on 8 where it is served"),
        (Silent, InputError, "'other' does not tell what it keeps where it is scored"),
        (Breaks, ComputationError, r"trying the selector 'other' on the sample '.*' failed \(ZeroDivisionError"),
    ],
)
def test_what_would_be_served_in_another_way_is_refused(bench, tmp_path, monkeypatch, kind, error, message):
    with pytest.raises(error, match=message):
        calibrated(bench, monkeypatch, kind, tmp_path)
    assert not (tmp_path / "study").exists()


def test_what_chooses_before_the_decoder_in_its_own_number_is_scored_as_it_is_served(bench, monkeypatch):
    assert not issubclass(Other, InputMethod)
    artifact = calibrated(bench, monkeypatch, Other)
    assert artifact.entry("9").choices["counting"].candidates == 3
