"""The model card: generated, the same for the same artifact, and what it shows is true."""

from pathlib import Path

import pytest
import yaml
from made_artifacts import CLASSES, made

from clasp_calib.artifacts.artifact import read_artifact
from clasp_calib.artifacts.card import mixture, model_card
from clasp_calib.artifacts.checkpoint_digest import Checkpoint
from clasp_calib.artifacts.manifest import Score
from clasp_calib.artifacts.sureness import LEGEND
from clasp_calib.artifacts.versions import raised
from clasp_calib.common.errors import InputError

GOLDEN_1 = Path(__file__).parent / "golden" / "format-1"


def front(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_the_card_says_for_which_model_and_how():
    artifact = made("8", "50%", model="org/tiny-llava", revision="abc")
    card = model_card(artifact)
    assert card == model_card(artifact)
    assert front(card)["base_model"] == "org/tiny-llava"
    assert 'with clasp(model, "PATH_OR_ID_OF_THIS_ARTIFACT", budget="8", classes="object"):' in card
    assert artifact.manifest.prompt in card
    assert "`org/tiny-llava` at `abc`" in card
    for budget in artifact.budgets:
        for label in CLASSES:
            layers, rho = mixture(artifact.alpha(budget, label)), artifact.rho(budget, label)
            assert f"| {label} | deep | {layers} | {rho:g} | 50.0% of 20 | 25.0% of 16 | 100 (12%) |" in card
            assert f"| {label} | +12.5 [-6.2, +25.0] | 6% | 3% | +25.0 | 0.5 | 40 |" in card
    assert card.count("over half a point of expected regret: object (about 40), text (about 40)") == 2
    assert all(line in card for line in LEGEND)
    assert "has not been evaluated" in card


def test_of_format_1_the_card_says_nothing_of_sureness():
    card = model_card(read_artifact(GOLDEN_1))
    assert "| object | deep | 0.50 x 1 + 0.50 x 3 | 1 | 50.0% | - | 100 |" in card
    assert "settle" not in card


def test_the_card_says_whether_other_weights_are_noticed():
    known = made("8", checkpoint=Checkpoint(kind="files", digest="0" * 64))
    assert "Weights other than those of the calibration are warned of" in model_card(known)
    assert "others are not noticed" in model_card(made("8", checkpoint=None))


def test_a_directory_is_no_base_model():
    assert "base_model" not in front(model_card(made("8", model="/models/mine")))


def test_results_are_shown_with_their_intervals():
    artifact = made("8")
    results = {"calibrated": {"text": Score(mean=0.5, low=0.25, high=0.625, samples=9)}, "default": {}}
    entry = artifact.entry("8").model_copy(update={"results": results})
    card = model_card(artifact.with_manifest(artifact.manifest.model_copy(update={"budgets": (entry,)})))
    assert "| class | n | calibrated | default |\n|---|---:|---:|---:|\n| text | 9 | 50.0 [25.0, 62.5] | - |\n" in card
    assert "has not been evaluated" not in card


@pytest.mark.parametrize(
    ("to", "expected"), [("patch", "1.2.4"), ("minor", "1.3.0"), ("major", "2.0.0"), ("1.10.0", "1.10.0")]
)
def test_versions_rise(to, expected):
    assert raised("1.2.3", to) == expected


@pytest.mark.parametrize(
    ("to", "message"), [("1.2.3", "is not above 1.2.3"), ("0.9.9", "not above"), ("v2", "is no version")]
)
def test_versions_do_not_fall(to, message):
    with pytest.raises(InputError, match=message):
        raised("1.2.3", to)
