"""Requests that share a batch are answered as they are alone, whatever pads them, on every architecture."""

import pytest
from PIL import Image
from speaking_architectures import RAGGED_SIZES, SIZES, WALKED, speaking_directory, speaking_processor
from speaking_models import QUESTIONS, THINGS, write_picture
from transformers import AutoModelForImageTextToText

from clasp_calib.harness.harness_options import HarnessOptions
from clasp_calib.harness.harnessed_model import HarnessedModel
from clasp_calib.harness.prompted_request import PromptedRequest
from clasp_calib.runtime.adapters import adapter_for

FAST = ("internvl", "llava_next", "qwen2_5_vl")


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in WALKED]
)
def test_batches_change_nothing(name, tmp_path):
    speaking_directory(tmp_path / "model", name, layers=17)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "model").eval()
    processor, sizes = speaking_processor(name), SIZES.get(name, RAGGED_SIZES)
    pictures = [
        Image.open(write_picture(tmp_path / f"{seed}.png", seed, *sizes[seed % len(sizes)])) for seed in range(5)
    ]
    asked = [
        PromptedRequest.of_text(f"request {place}", text, text, [picture])
        for place, picture in enumerate(pictures)
        for text in [[*QUESTIONS.values()][place % 3].format(THINGS[place])]
    ]
    budget = "50%" if adapter_for(model).ragged else str(adapter_for(model).tokens_per_image // 2)
    for way in ({}, {"method": "default", "budget": budget}):
        alone, together = (
            dict(HarnessedModel(model, processor, HarnessOptions("m", batch_size=size, **way)).answers(asked, 6))
            for size in (1, 3)
        )
        for place in range(len(asked)):
            one, other = alone[place], together[place]
            assert (one.text, one.before, one.kept) == (other.text, other.before, pytest.approx(other.kept))
