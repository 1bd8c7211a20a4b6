"""In every architecture a prompt has the ids that the model's processor makes of a conversation and its pictures."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AddedToken, Qwen2VLConfig
from transformers.video_utils import VideoMetadata

from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.common.errors import ModelError, PictureError
from clasp_calib.reference.model import MODEL
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.model_inputs import model_inputs
from clasp_calib.runtime.processor_check import check_together
from clasp_calib.runtime.written import text_among, visual_token

sys.path.append(str(Path(__file__).parents[1] / "cache"))
sys.path.append(str(Path(__file__).parents[1] / "runtime"))
from architectures import CASES
from image_processors import IMAGE_PROCESSORS

RAGGED = Qwen2VLConfig()
QUESTIONS = ["What is this?", "Is {this} or {} or {question} a brace?", "¿Qué es?", " padded ", "a\nb"]
SIZES = [(60, 60), (60, 130), (100, 70)]


def turns(picture, text, end):
    """A chat template of a user's turn; ``picture`` and ``text`` are Jinja, in the order that they are given in."""
    return (
        "{% for m in messages %}<|user|>{% for part in m.content %}{% if part.type != 'text' %}"
        f"{picture}{{% else %}}{text}{{% endif %}}{{% endfor %}}{{% endfor %}}{end}"
    )


LLAVA = MODEL.joinpath("chat_template.jinja").read_text()
TEMPLATES = {
    "llava": LLAVA,
    "llava_next": turns("<{{ part.type }}>\n", "{{ part.text }}", " [/INST]"),
    "llava_onevision": turns("<{{ part.type }}>\n", "{{ part.text }}", "<|im_end|><|im_start|>assistant\n"),
    "video_llava": LLAVA.replace("<image>", "<{{ part.type }}>").replace("== 'image'", "!= 'text'"),
    "qwen2_vl": turns("[<{{ part.type }}>]", "{{ part.text }}", "<|im_end|>\n<|im_start|>assistant\n"),
    "qwen2_5_vl": turns("[<{{ part.type }}>]", "{{ part.text }}", "<|im_end|>\n<|im_start|>assistant\n"),
    "qwen3_5": turns("[<{{ part.type }}>]", "{{ part.text | trim }}", "<|im_end|>\n<|im_start|>assistant\n"),
    "qwen3_vl": turns("[<{{ part.type }}>]", "{{ part.text | trim }}", "<|im_end|>\n<|im_start|>assistant\n"),
    "gemma3": turns("<start_of_image>", "{{ part.text | trim }}", "<end_of_turn>\n<start_of_turn>model\n"),
    "glm4v": turns("<|begin_of_image|><{{ part.type }}><|end_of_image|>", "{{ part.text }}", "<|assistant|>\n"),
    "idefics3": turns("<{{ part.type }}>", "{{ part.text }}", "<end_of_utterance>\nAssistant:"),
    "smolvlm": turns("<{{ part.type }}>", "{{ part.text }}", "<end_of_utterance>\nAssistant:"),
    "minicpmv4_6": turns("<{{ part.type }}>\n", "{{ part.text }}", "<|im_end|>\n<|im_start|>assistant\n"),
    "internvl": turns("<{{ part.type }}>\n", "{{ part.text }}", "<|im_end|>\n<|im_start|>assistant\n"),
}
"""As the published ones of these models lay a turn out; each model has its own marks."""


def processor_of(name):
    processor = IMAGE_PROCESSORS[name]()
    processor.chat_template = TEMPLATES[name]
    return processor


def asked(processor, parts, modality="image"):
    content = [{"type": "text", "text": part} if part else {"type": modality} for part in parts]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


def counts(processor, ids, text):
    """Visual tokens of a prompt."""
    return list(ids).count(processor.tokenizer.convert_tokens_to_ids(text))


def written(processor, picture):
    """What stands for a picture: its visual tokens, or these and the text among them."""
    made = processor(images=[picture], text=processor.image_token)
    return text_among(processor, made) or counts(processor, made["input_ids"][0], visual_token(processor))


def filmed(processor, video, films):
    """The same of a video, which to some models is images."""
    made, token = processor(videos=[video], text=processor.video_token), getattr(processor, f"{films}_token")
    return text_among(processor, made, films) or counts(processor, made["input_ids"][0], token)


@pytest.mark.parametrize("name", TEMPLATES)
def test_one_picture_of_any_size(name):
    processor = processor_of(name)
    prompter = Prompter(processor, RAGGED)
    for size in SIZES:
        picture = Image.new("RGB", size, (200, 10, 10))
        for question in QUESTIONS[:3]:
            (expected,) = processor(images=[picture], text=asked(processor, [None, question]))["input_ids"]
            assert prompter.prompt(question, [written(processor, picture)]) == list(expected)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_model_is_given_what_its_processor_makes_of_the_conversation(name, count):
    processor, model = processor_of(name), SimpleNamespace(config=RAGGED, device="cpu", dtype=torch.float32)
    noise = np.random.default_rng(0)
    pictures = [Image.fromarray(noise.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in SIZES[:count]]
    content = [*({"type": "image", "image": one} for one in pictures), {"type": "text", "text": "Same?"}]
    how = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    expected = processor.apply_chat_template([{"role": "user", "content": content}], **how)
    made = model_inputs(model, processor, pictures, Prompter(processor, RAGGED).text("Same?", count))
    assert made.keys() == expected.keys()
    for key in made:
        torch.testing.assert_close(made[key], expected[key])


def test_what_a_processor_writes_may_become_one_token_with_the_text_before_it():
    processor = processor_of("gemma3")
    processor.tokenizer.add_tokens([AddedToken("\n\n\n", normalized=False)])
    processor.chat_template = turns("user\n<start_of_image>", "{{ part.text }}", "")
    picture = Image.new("RGB", SIZES[0])
    (expected,) = processor(images=[picture], text=asked(processor, [None, "What?"]))["input_ids"]
    assert processor.tokenizer.convert_tokens_to_ids("\n\n\n") in expected
    assert Prompter(processor, RAGGED).prompt("What?", 16) == list(expected)


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_vl"])
def test_a_chat_template_that_leaves_pictures_out_is_refused(name):
    processor = processor_of(name)
    processor.chat_template = turns("<image>", "{{ part.text }}", "").replace("!= 'text'", "== 'image'")
    with pytest.raises(ModelError, match=r"about 1 video\(s\), which holds <video> 0 times; .* with --prompt"):
        Prompter(processor, RAGGED).prompt("What?", 4, "video")
    first = turns("{% if loop.first %}<image>{% endif %}", "{{ part.text }}", "")
    processor.chat_template = first
    prompter = Prompter(processor, RAGGED)
    assert prompter.text("What?", 1).count("<image>") == 1
    for ask in (lambda: prompter.text("What?", 2), lambda: prompter.prompt("What?", [4, 4])):
        with pytest.raises(ModelError, match=r"about 2 image\(s\), which holds <image> 1 times; .* with --prompt"):
            ask()
    assert Prompter(processor, RAGGED, "<image>{question}").text("What?", 2) == "<image><image>What?"


def test_a_tokenizer_that_does_not_know_the_token_of_a_picture_is_refused():
    processor = processor_of("qwen2_vl")
    prompter = Prompter(processor, RAGGED)
    processor.image_token = "<picture>"
    processor.chat_template = processor.chat_template.replace("<{{ part.type }}>", "<picture>")
    with pytest.raises(ModelError, match="makes 0 tokens <picture> of a prompt with 1"):
        prompter.prompt("What?", 4)


def test_which_processors_make_others_of_pictures_together_than_alone():
    for name in TEMPLATES:
        if name != "llava_onevision":
            check_together(processor_of(name))
    with pytest.raises(ModelError, match=r"makes 34 tokens of two pictures in one prompt, and .* of each alone"):
        check_together(processor_of("llava_onevision"))


@pytest.mark.shows("several")
@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "llava_onevision"])
@pytest.mark.parametrize("parts", [[None, None, None, "Same?"], ["A: ", None, " B: ", None, None, " Which?"]])
def test_several_pictures_before_a_question_and_in_it(name, parts):
    processor = processor_of(name)
    prompter = Prompter(processor, RAGGED)
    pictures = [Image.new("RGB", size, (200, 10, 10)) for size in SIZES]
    tokens = [written(processor, one) for one in pictures]
    (expected,) = processor(images=[pictures], text=[asked(processor, parts)])["input_ids"]
    question = parts[-1] if parts[0] is None else "".join(part or "<image>" for part in parts)
    assert prompter.prompt(question, tokens) == list(expected)


def test_a_video_that_its_processor_stumbles_over_is_refused(monkeypatch):
    processor = processor_of("qwen2_vl")
    processor.video_processor = Frames()
    monkeypatch.setattr(Frames, "__call__", lambda *_, **__: {}["fps"])
    model = CASES["qwen2_vl video"].model()
    with pytest.raises(PictureError, match=r"film\.mp4.*cannot read it as a video: 'fps'"):
        model_inputs(model, processor, "film.mp4", "<video>")


class Frames:
    """Stands for a video processor, each of which needs torchvision: says of two frames what the model's would."""

    merge_size, temporal_patch_size = 2, 2

    def __init__(self, frames=4):
        self._frames = frames

    def __call__(self, videos, **_):
        times = {"fps": 2.0, "frames_indices": list(range(self._frames))}
        return {
            "pixel_values_videos": torch.zeros(1, self._frames // 2, 3, 56, 56),
            "video_grid_thw": torch.tensor([[self._frames // 2, 4, 6]]),
            "video_metadata": [VideoMetadata(total_num_frames=self._frames, **times)],
        }


@pytest.mark.parametrize("frames", [2, 4])
@pytest.mark.parametrize("name", ["internvl", "llava_onevision", "video_llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_a_video(name, frames):
    processor, config = processor_of(name), CASES[name].build()[1]
    processor.video_processor = Frames(frames)
    prompter, films = Prompter(processor, config), adapter_for(config).films
    video = np.zeros((frames, 56, 84, 3), dtype=np.uint8)
    tokens = filmed(processor, video, films)
    assert isinstance(tokens, int) == (name not in ("internvl", "qwen3_vl"))
    for question in QUESTIONS:
        text = asked(processor, [None, question], "video")
        (expected,) = processor(videos=[video], text=[text])["input_ids"]
        assert counts(processor, expected, getattr(processor, f"{films}_token")) > 4
        assert prompter.text(question, 1, "video") == text
        assert prompter.prompt(question, [tokens], "video") == list(expected)
