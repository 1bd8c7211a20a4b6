"""In every architecture whose pictures differ in their tokens there is a way to show a picture with half of them."""

import numpy as np
import pytest
import torch
from PIL import Image
from speaking_architectures import CASES, IMAGE_PROCESSORS, speaking_processor

from clasp_calib.baselines.downsampling import DownSampling, PictureSizes
from clasp_calib.cache.prepare import Preparer
from clasp_calib.cache.states import visual_tokens
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.scoring.sizes import Sizes
from clasp_calib.common.errors import BudgetError
from clasp_calib.common.media import MemoryPicture
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.smaller_pictures import as_sized, smaller_sizes

RAGGED = sorted(name for name in IMAGE_PROCESSORS if adapter_for(CASES[name].build()[1]).ragged)
RAGGED.remove("video_llava")  # whose pictures have as many, unlike its videos
SHAPES = {"internvl": [(400, 300), (300, 400), (450, 150)], "idefics3": [(640, 480), (50, 60), (90, 30)]}
SHAPES["llava_next"] = [(112, 112), (110, 105)]  # no grid is below two tiles
SHAPES |= {"smolvlm": SHAPES["idefics3"], "llava_onevision": SHAPES["llava_next"]}


def noise(size):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("name", RAGGED)
def test_half_of_the_tokens_in_prompts_and_in_the_cache(name):
    model, processor = CASES[name].model(), speaking_processor(name)
    prompter, sizes = Prompter(processor, model), Sizes(model, processor)
    token = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    for size in SHAPES.get(name, [(112, 112), (224, 112)]):
        whole = Sample("1", "What is it?", noise(size))
        half, found = sizes.shown(whole, 0.5), []
        for sample in (whole, half):
            inputs = prompter.inputs(model, sample)
            found.append(sum(adapter_for(model).tokens(model, inputs)))
            assert found[-1] == int((inputs["input_ids"] == token).sum())
            prepared = Preparer.of(processor, adapter_for(model))(sample.picture)
            assert visual_tokens(model, prepared) == found[-1]
            made = prompter.prompt(sample.question, [prepared.written or found[-1]])
            assert made == inputs["input_ids"][0].tolist()
        assert 0 < found[1] <= 0.5 * found[0]


def pixels(processor, picture, **told):
    made = processor(images=[[picture]], text=[processor.image_token], return_tensors="pt", **told)
    return made["pixel_values"], made["input_ids"].tolist()


@pytest.mark.parametrize("limit", [9, 6, 4, 2, 1])
@pytest.mark.parametrize("size", [(640, 480), (480, 640), (500, 500), (900, 300)])
def test_internvl_s_tiles_are_those_of_a_lower_limit(limit, size):
    processor = speaking_processor("internvl")
    expected, ids = pixels(processor, noise(size), max_patches=limit)
    sizes = list(smaller_sizes(processor, size))
    fitting = [one for one in sizes if one[0] * one[1] <= limit * 112**2]
    got, own = pixels(processor, noise(size).resize(fitting[0], Image.Resampling.BICUBIC))
    assert own == ids
    tiles = max(len(got) - 1, 1)  # the small copy of the whole is made of the resized picture
    torch.testing.assert_close(got[:tiles], expected[:tiles], atol=0.05, rtol=0)
    assert (got - expected).abs().mean() < 0.2


def test_a_small_picture_has_fewer_of_internvl_s_tiles_than_a_lower_limit_allows():
    processor = speaking_processor("internvl")
    assert next(smaller_sizes(processor, (50, 50))) == (336, 336)
    half, sizes = DownSampling(keep="50%"), PictureSizes(CASES["internvl"].model(), processor)
    with pytest.raises(BudgetError, match="the processor makes 16, and 16 at the least; give a larger budget"):
        half.check(sizes, [MemoryPicture(noise((50, 50)))])
    assert half.shown(sizes, MemoryPicture(noise((400, 300)))).size == (224, 224)


@pytest.mark.parametrize("name", ["idefics3", "smolvlm"])
@pytest.mark.parametrize("size", [(640, 480), (30, 60), (500, 500), (900, 300)])
def test_the_length_that_idefics_scales_to_is_lowered(name, size):
    processor = speaking_processor(name)
    processor.image_processor.size = {"longest_edge": 224}
    lengths = []
    for one in smaller_sizes(processor, size):
        lengths.append(max(one))
        expected, ids = pixels(processor, noise(size), size={"longest_edge": max(one)})
        got, own = pixels(processor, noise(size).resize(one, Image.Resampling.BICUBIC), **as_sized(processor))
        assert own == ids
        assert got.shape == expected.shape
    assert lengths == [224, 168, 112, 56]
