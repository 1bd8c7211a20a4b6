"""Parts of a server that do not serve the same artifact end in an error, and in no wrong answer."""

import pytest
import torch

from clasp_calib.common.errors import ModelError
from clasp_calib.serving.served import ServedArtifact, ServedEntry
from clasp_calib.serving.vllm_plugin.received import DIGEST, ENTRY, PIXELS, received

ENTRIES = (ServedEntry("33%", "a", (1,), (1.0,), 1.0, "redundancy", "none", None, 0.33),)
HERE = ServedArtifact("here", "/here", "ab" * 32, "33%", "a", 5, ENTRIES)
OTHER = ServedArtifact("other", "/other", "cd" * 32, "33%", "a", 5, ENTRIES)
PICTURES = torch.zeros(2, 3, 8, 8)


def sent(served):
    """As a processor that serves an artifact sends pictures."""
    return {ENTRY: torch.tensor([0, 0]), DIGEST: torch.full((2,), served.mark), PIXELS: PICTURES, "image_sizes": 1}


def test_pictures_of_the_same_artifact_get_their_name_back():
    kwargs = sent(HERE)
    assert received(kwargs, HERE) == [0, 0]
    assert kwargs.keys() == {"pixel_values", "image_sizes"}


def test_pictures_of_no_artifact_are_left_alone():
    kwargs = {"pixel_values": PICTURES}
    assert received(kwargs, None) is None
    assert kwargs.keys() == {"pixel_values"}
    assert received({"pixel_values_videos": PICTURES}, HERE) is None


@pytest.mark.parametrize(
    ("kwargs", "served", "told"),
    [
        (sent(HERE), None, "serves no artifact"),
        (sent(HERE), OTHER, "another one, other"),
        ({"pixel_values": PICTURES}, HERE, "uncounted"),
    ],
)
def test_any_other_picture_is_refused(kwargs, served, told):
    with pytest.raises(ModelError, match=f"{told}.*same CLASP_ARTIFACT"):
        received(kwargs, served)
