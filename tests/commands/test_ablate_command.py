"""``clasp-calib ablate`` on a finished run."""

import json

import pytest

from clasp_calib.calib.studies.ablations import ABLATIONS

FAST = ("parts", "routing", "starts")
"""What varies candidates, classes and schedules."""


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in ABLATIONS]
)
def test_every_ablation_measures_and_reports(copied, command, name):
    ended = command("ablate", name, *copied.words, "--budget", "6", "--per-class", "1", "--json")
    assert ended.code == 0, ended.err
    found = ended.json["budgets"]["6"]
    assert len(found) > 1
    (base,) = [name for name in found if name.startswith("calibrated")]
    assert found[base]["difference"]["macro"]["mean"] == 0
    report = copied.run / "report" / f"ablation-{name}-test.json"
    assert json.loads(report.read_text())["budgets"]["6"] == found


def test_parts_are_the_calibration_with_one_part_at_a_time(copied, command):
    parts = command("ablate", "parts", *copied.words, "--budget", "50%", "--json").json["budgets"]["50%"]
    assert list(parts) == ["default", "fusion only", "ratio only", "calibrated"]
    recorded = command("evaluate", *copied.words, "--budget", "50%", "--timed", "0", "--json").json["budgets"][0]
    for ablated, setting in (("default", "default"), ("calibrated", "calibrated")):
        means = {label: of["mean"] for label, of in recorded["scores"][setting].items()}
        assert {label: of["mean"] for label, of in parts[ablated]["scores"].items()} == means


def test_an_unknown_ablation_is_refused(copied, command):
    ended = command("ablate", "luck", *copied.words)
    assert ended.code == 2
    assert "'luck'" in ended.err
    assert "routing" in ended.err
