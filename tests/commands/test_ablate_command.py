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


def test_a_router_that_errs_as_measured_is_a_row_of_its_own(copied, command):
    labels = sorted({json.loads(line)["gold_class"] for line in copied.samples.open()})
    right = [[4 * (row == column) for column in range(len(labels))] for row in range(len(labels))]
    file = copied.run / "sure.json"
    file.write_text(json.dumps({"classes": labels, "counts": right}))
    words = ["ablate", "routing", *copied.words, "--budget", "6", "--per-class", "1"]
    ended = command(*words, "--confusion", file, "--confusion", f"again={file}")
    assert ended.code == 0, ended.err
    assert "routed by again" in ended.out
    assert f"routed by sure: expected from its classes for {4 * len(labels)} questions" in ended.out
    report = copied.run / "report" / "ablation-routing-test"
    assert "how these vary by chance is not in the intervals." in report.with_suffix(".md").read_text()
    found = json.loads(report.with_suffix(".json").read_text())["budgets"]["6"]
    assert found["routed by sure"]["scores"] == found["calibrated"]["scores"]
    file.write_text(json.dumps({"classes": labels[1:], "counts": [row[1:] for row in right[1:]]}))
    ended = command(*words, "--confusion", file)
    assert ended.code == 2
    assert f"has no questions of the class {labels[0]}" in ended.err
    assert "which the ablation 'parts' does not" in command("ablate", "parts", *copied.words, "--confusion", file).err
