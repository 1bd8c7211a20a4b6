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


def test_a_lower_limit_of_tiles_than_the_least_leaves_one():
    processor = speaking_processor("internvl")
    processor.image_processor.min_patches, processor.image_processor.max_patches = 4, 2
    assert list(smaller_sizes(processor, (400, 300))) == [(112, 112)]
    sizes = PictureSizes(CASES["internvl"].model(), processor)
    with pytest.raises(BudgetError, match="the processor makes 16, and 16 at the least; give a larger budget"):
        DownSampling(keep="50%").check(sizes, [MemoryPicture(noise((400, 300)))])


@pytest.mark.parametrize(
    ("longest", "expected_lengths"), [(112, [112, 84, 56, 28]), (100, [100, 84, 56, 28]), (20, [20])]
)
@pytest.mark.parametrize("name", ["idefics3", "smolvlm"])
@pytest.mark.parametrize("size", [(640, 480), (30, 60), (500, 500), (306, 157), (157, 306), (900, 4)])
def test_the_length_that_idefics_scales_to_is_lowered(name, size, longest, expected_lengths):
    processor = speaking_processor(name)
    processor.image_processor.size = {"longest_edge": longest}
    processor.image_processor.max_image_size = {"longest_edge": 28}
    lengths = []
    for one in smaller_sizes(processor, size):
        lengths.append(max(one))
        expected, ids = pixels(processor, noise(size), size={"longest_edge": max(one)})
        got, own = pixels(processor, noise(size).resize(one, Image.Resampling.BICUBIC), **as_sized(processor))
        assert own == ids
        assert got.shape == expected.shape
    assert lengths == expected_lengths


@pytest.mark.parametrize("name", ["idefics3", "smolvlm"])
def test_a_length_of_less_than_a_tile_cannot_be_lowered(name):
    processor = speaking_processor(name)
    processor.image_processor.size = {"longest_edge": 40}
    sizes = PictureSizes(CASES[name].model(), processor)
    with pytest.raises(BudgetError, match="the processor makes 4, and 4 at the least; give a larger budget"):
        DownSampling(keep="50%").check(sizes, [MemoryPicture(noise((300, 200)))])


@pytest.mark.parametrize("name", ["idefics3", "smolvlm"])
def test_a_processor_that_does_not_scale_is_given_fewer_pixels(name):
    processor = speaking_processor(name)
    processor.image_processor.do_resize = False
    assert as_sized(processor) == {}
    sizes, size = PictureSizes(CASES[name].model(), processor), (300, 200)
    assert sizes.tokens(size) == 100  # 6 x 4 tiles and the whole
    shown = DownSampling(keep="50%").shown(sizes, MemoryPicture(noise(size))).size
    assert sizes.tokens(shown) == 28  # 3 x 2 tiles: with 4 in a line there are 3 lines, and 52 tokens
    assert 3 * 56 - 4 <= shown[0] <= 3 * 56
    assert max(map(max, smaller_sizes(processor, (60, 40)))) == 60
