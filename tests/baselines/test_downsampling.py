"""Down-sampling: the largest picture of few enough tokens, found against all sizes, and what a contest makes of it."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings, strategies as st
from PIL import Image
from speaking_architectures import CASES, speaking_directory, speaking_processor
from transformers import AutoModelForImageTextToText

from clasp_calib.baselines.downsampling import DownSampling, PictureSizes
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.studies.contest import UNPRUNED, Answerer, Entrant
from clasp_calib.calib.studies.costs import prefill_costs
from clasp_calib.calib.studies.entrants import downsampled, nothing
from clasp_calib.common.contents import image_key
from clasp_calib.common.errors import BudgetError, ModelError, PictureError
from clasp_calib.common.media import MemoryPicture
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.pictures import load_picture, seen_size
from clasp_calib.runtime.smaller_pictures import SHORTEST, STEPS, scaled


def noise(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def model_of(name):
    return CASES[name].model(), speaking_processor(name)


def tokens(model, processor, size):
    made = processor(images=[[Image.new("RGB", size)]], text=[processor.image_token], return_tensors="pt")
    return sum(adapter_for(model).tokens(model, made))


@pytest.mark.parametrize(("name", "size", "budget"), [
    ("qwen2_5_vl", (112, 112), "50%"),
    ("qwen2_5_vl", (130, 60), "33%"),
    ("qwen2_5_vl", (60, 130), "99%"),
    ("qwen2_vl", (150, 50), "40%"),
    ("llava_next", (112, 90), "75%"),
])  # fmt: skip
def test_it_is_the_largest_picture_of_few_enough_tokens(name, size, budget):
    model, processor = model_of(name)
    wanted = int(tokens(model, processor, size) * float(budget[:-1]) / 100)
    sizes = PictureSizes(model, processor)
    shown = DownSampling().solved(model, budget).shown(sizes, MemoryPicture(noise(*size))).content
    longest = max(size)
    every = [tuple(round(side * longer / longest) for side in size) for longer in range(1, longest)]
    fitting = [one for one in every if min(one) >= 28 and tokens(model, processor, one) <= wanted]
    assert fitting
    assert shown.size == fitting[-1]
    expected = noise(*size).resize(shown.size, Image.Resampling.BICUBIC)
    assert (np.asarray(shown) == np.asarray(expected)).all()


class Patches(PictureSizes):
    """One token for 32 x 32 pixels, of no less than 65,536 in all."""

    def tokens(self, size, resized=False):
        grown = max(1.0, (65536 / (size[0] * size[1])) ** 0.5)
        return round(size[0] * grown / 32) * round(size[1] * grown / 32)


@settings(max_examples=60, deadline=None)
@example(width=248, height=525, share="50%")  # between two sizes that are tried there is a larger one that fits
@given(width=st.integers(20, 2000), height=st.integers(20, 2000), share=st.sampled_from(["25%", "33%", "50%", "90%"]))
def test_a_picture_keeps_its_shape_or_is_refused(width, height, share):
    sizes, size = Patches(*model_of("qwen2_vl")), (width, height)
    picture, wanted = MemoryPicture(Image.new("RGB", size)), int(sizes.tokens(size) * float(share[:-1]) / 100)
    longer = range(max(size), 0, -1)
    every = [tuple(round(side * one / max(size)) for side in size) for one in longer]
    fitting = [one for one in every if min(one) >= SHORTEST and sizes.tokens(one) <= wanted]
    try:
        shown = DownSampling(keep=share).shown(sizes, picture).size
    except BudgetError:
        assert all(sizes.tokens(one) > wanted for one in scaled(size))
        # The few sizes that are left out may fit only where it depends on how a side was rounded.
        assert not fitting or min(fitting[0]) < SHORTEST + max(size) / STEPS
        return
    assert shown in fitting
    assert shown[0] / shown[1] == pytest.approx(width / height, rel=0.02)
    lengths = [max(one) for one in scaled(size)]
    assert all(longer - shorter <= max(size) / STEPS + 1 for longer, shorter in pairwise(lengths))
    assert all(sizes.tokens(one) > wanted for one in scaled(size) if max(one) > max(shown))


def test_a_resized_picture_is_known_by_its_picture_and_size(tmp_path):
    for name in ("plain.png", "copy.png"):
        noise(112, 84).save(tmp_path / name)
    model, processor = model_of("qwen2_5_vl")
    half = DownSampling().solved(model, "50%")
    plain, copy = (half.shown(PictureSizes(model, processor), tmp_path / name) for name in ("plain.png", "copy.png"))
    assert plain == copy == pickle.loads(pickle.dumps(plain))
    assert plain != half.solved(model, "25%").shown(PictureSizes(model, processor), tmp_path / "plain.png")
    assert image_key(plain) not in (image_key(tmp_path / "plain.png"), MemoryPicture(plain.content).key)
    assert seen_size(plain) == plain.content.size == load_picture(plain).size == plain.size
    assert str(plain).endswith("plain.png in {} x {}".format(*plain.size))
    written = plain.write(tmp_path / "written")
    assert (np.asarray(Image.open(written)) == np.asarray(plain.content)).all()


def test_a_picture_that_lies_on_its_side_is_measured_upright(tmp_path):
    image, exif = noise(90, 40), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    image.save(tmp_path / "plain.png")
    assert seen_size(tmp_path / "turned.png") == (40, 90)
    assert seen_size(tmp_path / "plain.png") == (90, 40)


def test_what_cannot_be_made_small_enough_is_named(tmp_path):
    model, processor = model_of("qwen2_5_vl")
    large, small = MemoryPicture(noise(112, 112)), MemoryPicture(noise(28, 28))
    quarter = DownSampling().solved(model, "25%")
    sizes = PictureSizes(model, processor)
    quarter.check(sizes, [large])
    told = rf"1 of 2 pictures to 25% .* of {small} the processor makes 1, and 1 at the least; give a larger budget"
    with pytest.raises(BudgetError, match=told):
        quarter.check(sizes, [large, small])
    with pytest.raises(BudgetError, match="1 of 1 pictures"):
        quarter.shown(PictureSizes(model, processor), small)
    with pytest.raises(PictureError):
        quarter.check(sizes, [tmp_path / "none.png"])
    with pytest.raises(BudgetError, match="give a percentage"):
        DownSampling().solved(model, "8")
    with pytest.raises(ModelError, match=r"downsampling cannot run on this llava model: .* 16 .*'pooling'"):
        DownSampling().solved(CASES["llava"].model(), "50%")


@torch.inference_mode()
def test_in_a_contest_the_smaller_picture_is_asked_about(tmp_path):
    model = AutoModelForImageTextToText.from_pretrained(speaking_directory(tmp_path / "model", "qwen2_5_vl")).eval()
    processor = speaking_processor("qwen2_5_vl")
    sample = Sample("one", "What is it?", noise(112, 112), ("?",), label="object")
    prompter = Prompter(processor, model)
    entrant = downsampled(model, processor, DownSampling(), "50%", [sample])
    entrant = pickle.loads(pickle.dumps(entrant))
    answerer = Answerer(model, processor, prompter, 4)
    plain, less = answerer.answers(sample, [(Entrant(UNPRUNED, "100%", nothing), 0), (entrant, 0)])
    smaller = DownSampling(keep="50%").shown(PictureSizes(model, processor), sample.picture)
    inputs = prompter.inputs(model, Sample("two", sample.question, smaller))
    said = model.generate(**inputs, do_sample=False, max_new_tokens=4)[:, inputs["input_ids"].shape[1] :]
    assert (plain.tokens, less.tokens) == (16.0, float(tokens(model, processor, smaller.content.size)))
    assert less.tokens <= 8
    assert less.text == prompter.decode(said)[0]
    assert less.flops < plain.flops
    (cost,) = prefill_costs(model, processor, prompter, [entrant], [sample])
    assert cost.seconds > 0
