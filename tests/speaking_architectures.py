"""Tiny models of every architecture that answer in words, each in a directory, with transformers' own processors.

Processors that insist on a video processor need torchvision, which is not there when the tests run. So `AutoProcessor`
is replaced where a command loads a model; everything else is loaded as it was saved.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from image_processors import IMAGE_PROCESSORS
from speaking_models import ANSWERS, QUESTIONS, THINGS, WORDS, write_picture
from tiny_models import BOS, EOS, PAD
from transformers import AddedToken, AutoProcessor

from clasp_calib.commands import hiring
from clasp_calib.runtime.written import visual_token

sys.path.insert(0, str(Path(__file__).parent / "runtime"))
from architectures import CASES, _randomise

CHAT_TEMPLATE = (
    "{% for message in messages %}USER: {% for part in message.content %}{% if part.type == 'image' %}<image>\n"
    "{% elif part.type == 'video' %}<video>\n{% else %}{{ part.text }} {% endif %}{% endfor %}{% endfor %}ASSISTANT:"
)
SIZES: Mapping[str, tuple[tuple[int, int], ...]] = {"llava": ((56, 56),), "video_llava": ((56, 56),)}
"""Width and height of pictures by architecture."""
WALKED = (
    *("gemma3", "glm4v", "idefics3", "internvl", "llava", "llava_next", "llava_onevision", "qwen2_5_vl", "qwen2_vl"),
    *("minicpmv4_6", "qwen3_5", "qwen3_vl", "smolvlm", "video_llava"),
)
"""Architectures that the whole path is walked with."""
SEEDS = {"gemma3": 1, "idefics3": 1, "internvl": 5, "llava_onevision": 2, "minicpmv4_6": 4, "qwen3_5": 1, "qwen3_vl": 3}
"""Of the words, where others say nearly the same to everything."""
FILMED = ("internvl", "llava_onevision", "qwen2_5_vl", "qwen2_vl", "qwen3_vl", "video_llava")
"""Architectures that take videos too."""
RAGGED_SIZES = ((130, 60), (60, 130), (112, 112), (84, 112), (300, 100))


class MadeVideos:
    """Stands for a video processor: the number in a file says which of the made-up videos of a case it is."""

    merge_size = temporal_patch_size = 2

    def __init__(self, name: str) -> None:
        self._case = CASES[f"{name} video"]

    def to_json_string(self) -> str:
        return json.dumps({"name": self._case.name})

    def __call__(self, videos: list[str], **_: Any) -> dict[str, Any]:
        (path,) = videos
        number = int(Path(path).read_text())
        made, _ = self._case.picture(None, torch.Generator().manual_seed(number), number)
        if "pixel_values" in made:  # InternVL makes images of them
            made = {"pixel_values_videos": made["pixel_values"][None]}
        times = SimpleNamespace(sampled_fps=2.0, fps=2.0, frames_indices=list(range(4)))
        return {**made, "video_metadata": [times]}


def speaking_processor(name: str) -> Any:
    """The processor of an architecture, whose tokenizer has a token for each of `WORDS` with its space."""
    processor = IMAGE_PROCESSORS[name]()
    if name in FILMED:
        processor.video_processor = MadeVideos(name)
    tokens = {"<image>": processor.image_token, "<video>": getattr(processor, "video_token", None)}
    processor.chat_template = CHAT_TEMPLATE
    for placeholder, token in tokens.items():
        processor.chat_template = processor.chat_template.replace(placeholder, token or placeholder)
    processor.tokenizer.add_tokens([AddedToken(f" {word}", normalized=False) for word in WORDS])
    return processor


def speaking_directory(
    path: Path, name: str, seed: int | None = None, end: float = 1.0, layers: int = 8, heads: int | None = None
) -> Path:
    """Save a model whose greedy answers are `WORDS`, each a token, then the end; see `speaking_models`.

    Args:
        path: of the new directory.
        name: of the architecture.
        seed: of the words; by default one of `SEEDS`.
        end: how readily an answer ends.
        layers: of the decoder.
        heads: of the decoder's attention, in place of its own number.
    """
    processor = speaking_processor(name)
    model_class, config = CASES[name].build()
    text = config.text_config
    text.num_hidden_layers = layers
    if heads:
        text.num_attention_heads = text.num_key_value_heads = heads
        text.head_dim = text.hidden_size // heads
    if getattr(text, "layer_types", None):
        text.layer_types = (text.layer_types * layers)[:layers]
    config.text_config.vocab_size = len(processor.tokenizer)
    config.image_token_id = processor.tokenizer.convert_tokens_to_ids(visual_token(processor))
    if hasattr(config, "video_token_id"):
        config.video_token_id = processor.tokenizer.convert_tokens_to_ids("<video>")
    model = model_class._from_config(config, attn_implementation="sdpa")
    _randomise(model)
    words = processor.tokenizer.convert_tokens_to_ids([f" {word}" for word in WORDS])
    generator = torch.Generator().manual_seed(SEEDS.get(name, 0) if seed is None else seed)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(0.2)
        head = model.lm_head.weight.zero_()
        head[words] = torch.randn(len(words), head.shape[1], generator=generator)
        head[EOS] = -end * head[words].sum(0)
    model.generation_config.update(pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, do_sample=False)
    model.save_pretrained(path)
    return path


@pytest.fixture
def own_processors(monkeypatch):
    """`AutoProcessor` gives a directory of `speaking_directory` its processor, in this process, which works alone."""
    monkeypatch.setattr(AutoProcessor, "from_pretrained", _processor)
    monkeypatch.setattr(hiring, "workers_for", lambda model, threads: 1)


def _processor(source: str, **_: Any) -> Any:
    return speaking_processor(json.loads((Path(source) / "config.json").read_text())["model_type"])


def write_questions(folder: Path, name: str, pictures: Mapping[str, int]) -> Path:
    """``samples.jsonl`` of labelled questions, one of each of two classes about every picture of several sizes.

    Where the architecture takes videos, the last one of each split is one.
    """
    sizes, rows = SIZES.get(name, RAGGED_SIZES), []
    for split, count in pictures.items():
        for number in range(count):
            kind, media = "image", f"pictures/{split}-{number}.png"
            write_picture(folder / media, len(rows), *sizes[len(rows) // 2 % len(sizes)])
            if name in FILMED and number == count - 1:
                kind, media = "video", f"pictures/{split}-{number}.mp4"
                (folder / media).write_text(str(len(rows)))
            for label in ("attribute", "counting"):
                question = QUESTIONS[label].format(THINGS[number % len(THINGS)])
                answers = [ANSWERS[(len(rows) + shift) % len(ANSWERS)] for shift in range(2)]
                row = {"id": f"{split}-{number}-{label}", kind: media, "question": question, "answers": answers}
                rows.append({**row, "split": split, "class": label})
    path = folder / "samples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
