"""A processor that is not the model's is refused with what both sides have; no processor that is, is."""

from functools import cache

import pytest
from architectures import CASES
from image_processors import IMAGE_PROCESSORS
from tiny_models import tiny_tokenizer
from transformers import AddedToken, PreTrainedTokenizerFast

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.processor_check import check_processor


@cache
def model_for(name):
    """A model whose ids are those of the tiny tokenizers."""
    known = IMAGE_PROCESSORS[name]().tokenizer.get_vocab()
    model_class, config = CASES[name].build()
    config.image_token_id = known["<image>"]
    config.text_config.vocab_size = max(known.values()) + 1
    return model_class._from_config(config)


def changed(name, **settings):
    """A processor with other settings, of its own or of its image processor."""
    processor = IMAGE_PROCESSORS[name]()
    for setting, value in settings.items():
        setattr(processor if hasattr(processor, setting) else processor.image_processor, setting, value)
    return processor


@pytest.mark.parametrize("name", IMAGE_PROCESSORS)
def test_processors_that_fit_are_let_pass(name):
    check_processor(model_for(name), IMAGE_PROCESSORS[name]())


def test_what_takes_numbers_of_0_to_255_fits():
    check_processor(model_for("llava"), changed("llava", do_rescale=False, image_mean=[127.5] * 3, image_std=[64] * 3))


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("llava", {"patch_size": None}, "no patch_size.*14"),
        ("llava_next", {"patch_size": None}, "no patch_size.*14"),
        ("video_llava", {"patch_size": None}, "no patch_size.*14"),
        ("llava", {"patch_size": 28}, "4 image tokens.*16 features.*patch_size is 28.*should be 14"),
        ("llava", {"num_additional_image_tokens": 0}, "15 image.*num_additional_image_tokens is 0.*should be 1"),
        ("llava", {"vision_feature_select_strategy": "full"}, "17 image.*strategy is full.*should be default"),
        ("llava", {"crop_size": {"height": 28, "width": 28}}, "28 x 28 pixels.*56 x 56"),
        ("llava_next", {"image_grid_pinpoints": [[56, 56]]}, "image_grid_pinpoints"),
        ("llava_onevision", {"num_image_tokens": 25}, "features"),
        ("video_llava", {"num_additional_image_tokens": 2}, "num_additional_image_tokens is 2.*should be 1"),
        ("qwen2_vl", {"merge_size": 1}, "merge_size is 1.*should be 2"),
        ("qwen2_vl", {"temporal_patch_size": 1}, "temporal_patch_size is 1.*should be 2"),
        ("qwen2_5_vl", {"patch_size": 7}, "patch_size is 7.*should be 14"),
        ("minicpmv4_6", {"downsample_mode": "4x"}, "downsample_mode is 4x.*should be 16x"),
        ("minicpmv4_6", {"patch_size": 14}, "patch_size is 14.*should be 7"),
        ("internvl", {"image_seq_length": 9}, "image_seq_length is 9.*should be 16"),
        ("llava", {"image_std": [0.0, 1.0, 1.0]}, "not finite.*image_std"),
        ("llava", {"do_rescale": False}, "black and white differ by [0-9]{3,}.*do_rescale"),
        ("qwen2_vl", {"do_rescale": False, "do_normalize": False}, "black and white differ by 255 .*do_rescale"),
        ("gemma3", {"do_pan_and_scan": True}, "adds crops.*do_pan_and_scan.*false"),
        ("llava_next", {"image_mean": [123, 117, 104], "image_std": [58, 57, 57]}, "differ by 0.01.*image_mean"),
    ],
)
def test_settings_that_do_not_fit_are_named_on_both_sides(name, settings, told):
    with pytest.raises(ModelError, match=f"(?s){told}"):
        check_processor(model_for(name), changed(name, **settings))


def test_an_image_token_that_is_none():
    processor = IMAGE_PROCESSORS["llava"]()
    processor.image_token = "<picture>"
    with pytest.raises(ModelError, match="does not know the image token <picture>"):
        check_processor(model_for("llava"), processor)


def test_an_image_token_of_another_id():
    processor = IMAGE_PROCESSORS["llava"]()
    processor.image_token = "<unk>"
    with pytest.raises(ModelError, match=r"<unk> is 3 .*image_token_id is 4"):
        check_processor(model_for("llava"), processor)


def test_a_tokenizer_of_more_tokens_than_the_model_embeds():
    processor = IMAGE_PROCESSORS["llava"]()
    processor.tokenizer.add_tokens([AddedToken("<new>")])
    with pytest.raises(ModelError, match=r"'<new>' as 261.*embeds 261 tokens"):
        check_processor(model_for("llava"), processor)


def test_something_else_than_a_processor():
    tokenizer = tiny_tokenizer()
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    with pytest.raises(ModelError, match="AutoProcessor"):
        check_processor(model_for("llava"), tokenizer)
    with pytest.raises(ModelError, match="AutoProcessor"):
        check_processor(model_for("llava"), IMAGE_PROCESSORS["llava"]().image_processor)
