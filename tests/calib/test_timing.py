"""Seconds for an answer."""

import pytest

from clasp_calib.calib.scoring import evaluator
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Pruning
from clasp_calib.calib.studies.comparison import Setting
from clasp_calib.calib.studies.timing import seconds_per_answer
from clasp_calib.runtime.schedule import Schedule

OWN, MIXED = Candidate("own", (0, 0, 0, 1, 0), 1.0), Candidate("mixed", (0, 0.5, 0, 0.5, 0), 0.5)
SCHEDULE = Schedule(16, 8, (1, 2, 4), (9, 6, 3))
SETTINGS = [
    Setting("unpruned", Pruning(None), {"attribute": OWN, "counting": OWN, "spatial": OWN}),
    Setting("pruned", Pruning(SCHEDULE), {"attribute": MIXED, "counting": OWN, "spatial": OWN}),
]


def test_settings_take_turns_and_the_first_sample_is_not_counted(bench, monkeypatch):
    calls, clock = [], iter(range(100))
    generate = bench.model.generate

    def counted(**inputs):
        calls.append(inputs["input_ids"].shape)
        return generate(**inputs)

    monkeypatch.setattr(bench.model, "generate", counted)
    monkeypatch.setattr("time.perf_counter", lambda: next(clock) ** 3)
    seconds = seconds_per_answer(bench.model, bench.processor, bench.prompter, SETTINGS, bench.samples[:3])
    assert len(calls) == 2 * (1 + 3)
    # The clock ticks twice for an answer, but once while warming up: the middle answers take 6 to 7 and 8 to 9.
    assert seconds == {"unpruned": 7**3 - 6**3, "pruned": 9**3 - 8**3}


def test_seconds_are_positive(bench):
    seconds = seconds_per_answer(bench.model, bench.processor, bench.prompter, SETTINGS, bench.samples[:2])
    assert set(seconds) == {"unpruned", "pruned"}
    assert all(0 < value < 60 for value in seconds.values())


def test_without_samples_there_is_nothing_to_time(bench):
    assert seconds_per_answer(bench.model, bench.processor, bench.prompter, SETTINGS, []) == {}


@pytest.mark.parametrize("label", ["attribute", "counting"])
def test_each_class_is_timed_with_its_own_candidate(bench, monkeypatch, label):
    seen, prune = [], evaluator.prune

    def noted(model, **settings):
        seen.append((settings["rho"], settings["alpha_BL"].tolist()))
        return prune(model, **settings)

    monkeypatch.setattr(evaluator, "prune", noted)
    sample = next(s for s in bench.samples if s.label == label)
    seconds_per_answer(bench.model, bench.processor, bench.prompter, SETTINGS, [sample])
    candidate = SETTINGS[1].candidates[label]
    assert seen == [([candidate.rho], [list(candidate.alpha)])] * 2
