"""The router in an artifact: written beside the weights, kept by whatever is made of the artifact."""

import numpy as np
import pytest
from made_artifacts import made
from made_routers import made_router

from clasp_calib.artifacts.artifact import read_artifact
from clasp_calib.artifacts.card import model_card
from clasp_calib.artifacts.files import ROUTER, verify_files, write_artifact
from clasp_calib.common.errors import ArtifactError


@pytest.fixture
def routed():
    return made("8", "50%").with_router(made_router())


def test_it_is_read_as_it_was_written(routed, tmp_path):
    write_artifact(routed, tmp_path)
    again = read_artifact(tmp_path)
    assert np.array_equal(again.router.weights, routed.router.weights)
    assert again.router.route("How many?") == routed.router.route("How many?")
    entry = again.manifest.router
    assert (entry.kind, entry.threshold, entry.rows, entry.labels) == ("ngrams", 0.4, 100, "1" * 64)
    assert ROUTER in verify_files(tmp_path)


def test_it_is_part_of_the_identity(routed, tmp_path):
    with_one = write_artifact(routed, tmp_path / "a").manifest.id
    assert with_one == write_artifact(routed, tmp_path / "b").manifest.id
    assert with_one != write_artifact(routed.with_router(None), tmp_path / "c").manifest.id


def test_taken_out_its_file_goes_too(routed, tmp_path):
    write_artifact(routed, tmp_path)
    write_artifact(routed.with_router(None), tmp_path)
    assert not (tmp_path / ROUTER).exists()
    assert read_artifact(tmp_path).router is None


def test_exports_and_joined_artifacts_keep_it(routed):
    assert routed.only(["8"]).router is routed.router
    assert made("25%").joined(routed).router is routed.router
    newer = made_router(seed=1)
    assert made("25%").with_router(newer).joined(routed).router is newer


def test_the_card_tells_of_it(routed):
    assert "| router | n-grams, trained on 100 labels" in model_card(routed)
    assert 'With `classes="auto"` its router' in model_card(routed)
    assert "| router | none |" in model_card(routed.with_router(None))


def test_a_router_of_another_taxonomy_is_refused(routed):
    with pytest.raises(ArtifactError, match="train it on labels of that one"):
        routed.with_router(made_router(taxonomy="9" * 64))
