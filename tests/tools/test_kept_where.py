"""Where kept tokens lie: patches that layers see, and shares of what a question asks about."""

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clasp_calib.reference.benchmark import scene_questions, split_scene
from clasp_calib.runtime.stats import PruningStats, StageStats, Stopwatch


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return import_module("kept_where")


def stats(*stages):
    watch, made = Stopwatch(torch.device("cpu")), []
    for start, kept in stages:
        patches_BK = torch.tensor([kept])
        made.append(StageStats(start, patches_BK, patches_BK < 0, patches_BK, torch.zeros(patches_BK.shape)))
    return PruningStats(((4,),), tuple(made), watch)


def test_a_layer_sees_what_the_last_stage_before_it_left(script):
    seen = script.seen_by(stats((2, [0, 1, 3]), (16, [3])), (15, 16), 4, None)
    assert seen.tolist() == [[True, True, False, True], [False, False, False, True]]


def test_of_a_merged_token_all_patches_are_seen(script):
    seen = script.seen_by(stats((2, [0])), (15,), 4, np.array([1, 0, 0, 2]))
    assert seen.tolist() == [[False, True, True, False]]


def test_shares_are_of_what_is_asked_about_of_other_things_and_of_background(script):
    masks = [np.arange(8) == 0, (np.arange(8) == 1) | (np.arange(8) == 2)]
    asked = script.Asked(SimpleNamespace(), tuple(masks), np.arange(8) < 4)
    kept = np.array([[1, 0, 0, 1, 1, 0, 0, 0], [1, 1, 0, 0, 1, 0, 0, 0]], dtype=bool)
    assert asked.shares(kept) == {"asked": 0.5, "found": 0.75, "other": 0.5, "background": 0.25}
    assert script.Asked(SimpleNamespace(), (), np.arange(8) < 4).shares(kept) == {}


def test_boxes_of_a_question_lie_on_things(script):
    scene = split_scene("test", 3)
    for question in scene_questions(scene):
        placed = script.placed(SimpleNamespace(id="x", question=question.text), scene, question)
        assert len(placed.boxes) == len(question.evidence)
        assert all((placed.things & box).sum() == box.sum() > 0 for box in placed.boxes)
    with pytest.raises(ValueError, match="its scene"):
        script.placed(SimpleNamespace(id="x", question="Why?"), scene, question)
