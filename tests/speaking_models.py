"""Tiny models that answer in words and end their answers, and sample tables with pictures for them."""

import json
import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tiny_models import EOS, tiny_llava_directory
from transformers import AddedToken, AutoModelForImageTextToText, AutoProcessor

WORDS = ("yes", "no", "red", "two")
ANSWERS = ("red", "two", "two red", "yes")
QUESTIONS = {
    "attribute": "What color is the {}?",
    "counting": "How many {}s are there?",
    "spatial": "What is to the left of the {}?",
}
THINGS = ("cup", "ball", "cat", "box", "kite", "lamp")


def speaking_llava_directory(path: Path, seed: int = 2, **settings: int) -> Path:
    """A `tiny_llava_directory` whose greedy answers are ``WORDS``, each a token with its space, then the end.

    At every step one of these five tokens is the most likely: their rows in the output head sum to zero, and all other
    rows are zero. Which one it is depends on picture, question and pruning.
    """
    tiny_llava_directory(path, seed, **settings)
    model = AutoModelForImageTextToText.from_pretrained(path)
    processor = AutoProcessor.from_pretrained(path)
    processor.tokenizer.add_tokens([AddedToken(f" {word}", normalized=False) for word in WORDS])
    words = processor.tokenizer.convert_tokens_to_ids([f" {word}" for word in WORDS])
    generator = torch.Generator().manual_seed(seed)
    size = len(processor.tokenizer)
    model.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        embeddings = model.get_input_embeddings().weight
        embeddings[words] = torch.randn(len(words), embeddings.shape[1], generator=generator)
        # Smaller embeddings: what a layer adds, and not the last token, decides what comes next.
        embeddings.mul_(0.2)
        head = model.lm_head.weight.zero_()
        head[words] = torch.randn(len(words), head.shape[1], generator=generator)
        head[EOS] = -head[words].sum(0)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def load_speaking(path: Path):
    """Model and processor."""
    return AutoModelForImageTextToText.from_pretrained(path).eval(), AutoProcessor.from_pretrained(path)


def write_picture(path: Path, seed: int, width: int = 56, height: int | None = None) -> Path:
    """A picture of noise, a square unless it has a height of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height or width, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_samples(folder: Path, pictures: dict[str, int], side: int = 56) -> Path:
    """``samples.jsonl`` and its pictures: for every picture one question of each of three classes."""
    rng = random.Random(0)
    rows = []
    for split, count in pictures.items():
        for number in range(count):
            image = f"pictures/{split}-{number}.png"
            write_picture(folder / image, len(rows), side)
            rows += [
                {
                    "id": f"{split}-{number}-{label}",
                    "image": image,
                    "question": question.format(rng.choice(THINGS)),
                    "answers": rng.sample(ANSWERS, 2),
                    "split": split,
                    "gold_class": label,
                }
                for label, question in QUESTIONS.items()
            ]
    path = folder / "samples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
