"""What an artifact answers, and which numbers it refuses to hold."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from made_artifacts import CLASSES, CONFIG, PROVENANCE, SHAPE, made, with_numbers
from pydantic import ValidationError
from tiny_models import tiny_llava

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.artifacts.fits import check_shape
from clasp_calib.artifacts.manifest import Manifest
from clasp_calib.artifacts.model_shape import model_shape
from clasp_calib.common.errors import ArtifactError, ModelError


def test_numbers_are_found_by_budget_and_class():
    artifact = made("8", "50%")
    assert (artifact.budgets, artifact.classes, artifact.counts("50%")) == (("8", "50%"), CLASSES, (10, 6, 5))
    for b, budget in enumerate(artifact.budgets):
        for c, label in enumerate(CLASSES):
            assert artifact.alpha(budget, label) == tuple(artifact.alphas[b, c].astype(float))
            assert artifact.rho(budget, label) == pytest.approx(artifact.rhos[b, c])


@given(st.integers(0, 100))
def test_a_rho_that_was_stored_in_float32_comes_back_as_it_was_searched(hundredths):
    artifact = made("8")
    artifact.rhos[0, 0] = hundredths / 100
    assert artifact.rho("8", "object") == hundredths / 100


def test_unknown_names_are_refused_with_the_known_ones():
    artifact = made("8", "50%")
    with pytest.raises(ArtifactError, match=r"no budget '9' \(it holds 8, 50%\); .*`clasp-calib search --budget 9`"):
        artifact.counts("9")
    with pytest.raises(ArtifactError, match="knows no class 'cats'; expected one of object, text, default"):
        artifact.rho("8", "cats")


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("alphas", lambda a: a * 1.001, "not convex"),
        ("alphas", lambda a: np.concatenate([a[..., :1] - 1, a[..., 1:2] + 1, a[..., 2:]], -1), "not convex"),
        ("alphas", lambda a: a * np.nan, "not finite"),
        ("alphas", lambda a: a[..., 1:], r"shapes \(1, 3, 4\) and \(1, 3\); the manifest speaks of \(1, 3, 5\)"),
        ("alphas", lambda a: a.astype(np.float64), "float64 and float32; expected float32"),
        ("rhos", lambda r: r + 1.01, r"a rho lies outside \[0, 1\]"),
        ("rhos", lambda r: r - 1.01, r"a rho lies outside \[0, 1\]"),
        ("rhos", lambda r: r * np.inf, "not finite"),
        ("rhos", lambda r: r[:, :2], r"and \(1, 2\); the manifest speaks of .* and \(1, 3\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_numbers_that_mean_nothing_are_refused(name, change, expected):
    artifact = made("8")
    artifact.rhos[:] = 0.5
    with pytest.raises(ArtifactError, match=expected):
        with_numbers(artifact, **{name: change(getattr(artifact, name))})


def test_joined_keeps_other_budgets_and_replaces_its_own():
    earlier, later = made("8", "50%", seed=1), made("50%", "6", seed=2)
    other = PROVENANCE.model_copy(update={"seed": 7})
    later = later.with_manifest(later.manifest.model_copy(update={"provenance": {"50%": other, "6": other}}))
    joined = later.joined(earlier)
    assert joined.budgets == ("8", "50%", "6")
    assert joined.alpha("8", "text") == earlier.alpha("8", "text")
    for budget in ("50%", "6"):
        assert joined.alpha(budget, "text") == later.alpha(budget, "text")
        assert joined.rho(budget, "text") == later.rho(budget, "text")
    assert {name: of.seed for name, of in joined.manifest.provenance.items()} == {"8": 0, "50%": 7, "6": 7}
    assert later.joined(None) is later


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ("object", "text", "other")},
        {"model": "other"},
        {"prompt": "<image> {question}"},
        {"raters": "all"},
        {"positions": "compact"},
        {"iterations": 3},
        {"starts": (1, 6, 15)},
        {"shape": SHAPE.model_copy(update={"text_width": 64})},
    ],
)
def test_artifacts_of_different_settings_do_not_join(change):
    (name,) = change
    with pytest.raises(ArtifactError, match=rf"made with other settings \({name}\); give another place with --out"):
        made("6", **change).joined(made("8"))


def test_a_model_of_the_same_shape_fits():
    check_shape(made("8"), CONFIG)


def test_another_model_is_refused_with_all_that_differs():
    other = tiny_llava(decoder_layers=18, hidden=48).config
    with pytest.raises(ArtifactError) as refused:
        check_shape(made("8"), other)
    message = str(refused.value)
    assert "calibrated for tiny" in message
    assert "(text_layers: 17, 18; text_width: 32, 48; text_mlp_width: 64, 96)" in message
    assert message.endswith("use the model that it was made for, or calibrate this one")


def test_a_shape_is_read_from_a_configuration():
    assert (SHAPE.vision_layers, SHAPE.vision_feature_layer, SHAPE.tokens_per_image, SHAPE.text_layers) == (
        4,
        3,
        16,
        17,
    )
    own = tiny_llava(decoder_layers=17, vision_feature_layer=3).config
    assert model_shape(own).fingerprint == SHAPE.fingerprint
    assert model_shape(tiny_llava(decoder_layers=17, vision_feature_layer=-1).config).vision_feature_layer == 4
    own.vision_feature_select_strategy = "full"
    assert model_shape(own).tokens_per_image == 17


def test_a_configuration_without_a_tower_is_refused():
    with pytest.raises(
        ModelError, match=r"cannot read the shape of a LlamaConfig .*expected the configuration of a multimodal model"
    ):
        model_shape(CONFIG.text_config)


RAGGED = SHAPE.model_copy(update={"tokens_per_image": None})


def ragged(*budgets, **changes):
    """An artifact of a model whose pictures differ in their number of tokens; ``changes`` are of its budgets."""
    known = made(*budgets)
    of = {"counts": None, "token_range": (4.0, 12.5), **changes}
    entries = [entry.model_dump() | of for entry in known.manifest.budgets]
    content = known.manifest.model_dump() | {"budgets": entries, "shape": RAGGED, "fingerprint": RAGGED.fingerprint}
    return known.with_manifest(Manifest.model_validate(content))


def test_budgets_of_models_whose_pictures_differ(tmp_path):
    artifact = ragged("50%").save(tmp_path)
    read = Artifact.load(tmp_path)
    assert read.manifest == artifact.manifest
    entry = read.entry("50%")
    assert (read.counts("50%"), entry.stages, str(entry.a_layer)) == (None, "shares of each picture's", "8.0 (4 to 12)")
    assert "50%: shares of each picture's tokens, 8.0 (4 to 12) a decoder layer" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("budget", "changes", "told"),
    [
        ("8", {}, "name: is a number of tokens"),
        ("50%", {"token_range": None}, "token_range: is there where pictures differ"),
        ("50%", {"counts": (10, 6, 5), "token_range": None}, r"counts: \(10, 6, 5\) do not fit pictures of any number"),
        ("50%", {"token_range": (9.0, 12.0)}, "does not hold the mean 8"),
    ],
)
def test_budgets_that_do_not_fit_pictures_that_differ(budget, changes, told):
    with pytest.raises(ValidationError, match=told):
        ragged(budget, **changes)
