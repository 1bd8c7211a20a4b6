"""One part of a calibration as an artifact of its own."""

import numpy as np
import pytest
from made_artifacts import CHOICE, CLASSES, made

import clasp_calib as cc
from clasp_calib.artifacts.choices import SelectorEntry
from clasp_calib.common.errors import InputError


def selected() -> cc.Artifact:
    """An artifact in whose one class another selector chooses."""
    artifact = made("8", "50%")
    choice = CHOICE.model_copy(update={"selector": SelectorEntry(name="fastv", knobs={"layer": 2})})
    entries = [
        entry.model_copy(update={"choices": {**entry.choices, "text": choice}}) for entry in artifact.manifest.budgets
    ]
    return artifact.with_manifest(artifact.manifest.model_copy(update={"budgets": tuple(entries)}))


def test_fusion_has_the_mixtures_and_nothing_else(tmp_path):
    whole = selected().save(tmp_path / "whole")
    part = cc.one_part(whole, "fusion").save(tmp_path / "part")
    part = cc.Artifact.load(tmp_path / "part")
    assert np.array_equal(part.alphas, whole.alphas)
    assert {part.rho("8", label) for label in CLASSES} == {1.0}
    assert part.selector("8", "text") is None
    assert part.manifest.id != whole.manifest.id
    assert part.manifest.provenance["8"].strategy == f"fusion alone, of {whole.manifest.id}"


def test_ratio_has_the_ratios_and_selectors_on_the_models_own_layer(tmp_path):
    whole = selected()
    cc.one_part(whole, "ratio").save(tmp_path / "part")
    part = cc.Artifact.load(tmp_path / "part")
    own = part.manifest.shape.vision_feature_layer
    assert part.alphas[..., own].min() == 1
    assert np.array_equal(part.rhos, whole.rhos)
    assert part.selector("8", "text") == whole.selector("8", "text")


def test_evidence_for_the_calibration_is_not_evidence_for_a_part():
    part = cc.one_part(made("8"), "fusion")
    entry = part.entry("8")
    assert (entry.decision, entry.results, entry.measured, part.study) == (None, {}, None, {})
    assert all(choice.verdict is None and choice.calibration is None for choice in entry.choices.values())


def test_what_has_no_such_part_is_refused():
    with pytest.raises(InputError, match="no part 'luck' here; choose from fusion, ratio"):
        cc.one_part(made("8"), "luck")


def test_the_command_writes_it(command, tmp_path):
    made("8").save(tmp_path / "whole")
    words = ("artifact", "part", "ratio", "--artifact", tmp_path / "whole", "--out", tmp_path / "part")
    assert command(*words, "--json").json["part"] == "ratio"
    assert cc.Artifact.load(tmp_path / "part").budgets == ("8",)
