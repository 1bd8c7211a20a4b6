"""Rows in the layouts that benchmarks publish, made up here, with tiny pictures where their archives have them."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

TEN = [{"answer": "net", "answer_confidence": "maybe", "answer_id": n} for n in range(1, 9)] + [
    {"answer": answer, "answer_confidence": "yes", "answer_id": n} for n, answer in ((9, "netting"), (10, "mesh"))
]


def _vqa() -> dict[str, Any]:
    asked = [
        (458752000, 458752, "What is this photo taken looking through?", "what is this", "other"),
        (458752001, 458752, "What position is this man playing?", "what", "other"),
        (262148000, 262148, "Where is he looking?", "where is the", "other"),
        (262148001, 262148, "How many people are there?", "how many", "number"),
    ]
    info = {"description": "This is v2.0 of the VQA dataset.", "url": "http://visualqa.org", "version": "2.0"}
    return {
        "questions.json": {
            "info": info,
            "task_type": "Open-Ended",
            "data_type": "mscoco",
            "license": {"name": "CC"},
            "data_subtype": "val2014",
            "questions": [{"image_id": i, "question": q, "question_id": n} for n, i, q, _, _ in asked],
        },
        "annotations.json": {
            "info": info,
            "license": {"name": "CC"},
            "data_subtype": "val2014",
            "annotations": [
                {
                    "question_type": kind,
                    "multiple_choice_answer": "net",
                    "answers": TEN,
                    "image_id": i,
                    "answer_type": answer,
                    "question_id": n,
                }
                for n, i, _, kind, answer in reversed(asked)
            ],
            "data_type": "mscoco",
        },
    }


def _gqa() -> dict[str, Any]:
    def asked(image: str, question: str, answer: str, structural: str, semantic: str, group: str) -> dict[str, Any]:
        return {
            "semantic": [{"operation": "select", "dependencies": [], "argument": "wall (722332)"}],
            "entailed": ["02930159"],
            "equivalent": ["02930152"],
            "question": question,
            "imageId": image,
            "isBalanced": True,
            "groups": {"global": group, "local": "06-wall_dark"},
            "answer": answer,
            "semanticStr": "select: wall (722332)->filter color: blue [0]->exist: ? ",
            "annotations": {"answer": {}, "question": {"4": "722332"}, "fullAnswer": {"2": "722332"}},
            "types": {"detailed": "existAttrC", "semantic": semantic, "structural": structural},
            "fullAnswer": f"{answer}.",
        }

    return {
        "val_balanced_questions.json": {
            "02930152": asked("2405722", "Is the wall dark blue?", "no", "verify", "attr", None),
            "07333408": asked("2405722", "What color is the chair?", "red", "query", "attr", "color"),
            "n1000": asked("n161313", "Who is wearing the hat?", "boy", "query", "rel", "person"),
        }
    }


def _scienceqa() -> dict[str, Any]:
    def problem(question: str, choices: list[str], answer: int, hint: str, image: str | None, split: str) -> dict:
        return {
            "question": question,
            "choices": choices,
            "answer": answer,
            "hint": hint,
            "image": image,
            "task": "closed choice",
            "grade": "grade2",
            "subject": "natural science",
            "topic": "biology",
            "category": "Animals",
            "skill": "Identify mammals",
            "lecture": "Mammals have fur.\nBirds have feathers.",
            "solution": "A cat has fur.",
            "split": split,
        }

    return {
        "problems.json": {
            "1": problem("Which animal is a mammal?", ["a snail", "a cat"], 1, "", "image.png", "train"),
            "2": problem("Is sand a gas?", ["yes", "no"], 1, "Look at the picture.", "image.png", "val"),
            "11": problem("Which word rhymes?", ["may", "cat", "dog"], 0, "Think of day.", None, "test"),
        },
        "pid_splits.json": {"train": ["1"], "val": ["2"], "test": ["11"], "minival": ["2"]},
    }


def _textvqa() -> dict[str, Any]:
    def asked(number: int, image: str, question: str) -> dict[str, Any]:
        return {
            "question": question,
            "image_id": image,
            "image_classes": ["Camera", "Billboard"],
            "flickr_original_url": "https://example.org/o.jpg",
            "flickr_300k_url": "https://example.org/z.jpg",
            "image_width": 1024,
            "image_height": 664,
            "answers": ["nous les gosses"] * 8 + ["dakota", "dakota digital"],
            "question_tokens": question.rstrip("?").split(),
            "question_id": number,
            "set_name": "val",
        }

    return {
        "TextVQA_0.5.1_val.json": {
            "dataset_type": "val",
            "dataset_name": "textvqa",
            "dataset_version": "0.5.1",
            "data": [
                asked(34602, "003a8ae2ef43b901", "what is the brand of this camera?"),
                asked(34603, "4cb7be7a1a3b8e9f", "what does the small white text spell?"),
            ],
        }
    }


def _docvqa() -> dict[str, Any]:
    def asked(number: int, image: str, question: str, kinds: list[str]) -> dict[str, Any]:
        return {
            "questionId": number,
            "question": question,
            "question_types": kinds,
            "image": f"documents/{image}.png",
            "docId": 14465,
            "ucsf_document_id": "pybv0228",
            "ucsf_document_page_no": "81",
            "answers": ["0.28", ".28"],
            "data_split": "val",
        }

    return {
        "val_v1.0_withQT.json": {
            "dataset_name": "SP-DocVQA",
            "dataset_split": "val",
            "dataset_version": "1.0",
            "data": [
                asked(49153, "pybv0228_81", "What is the value at 28 percent?", ["figure/diagram"]),
                asked(24580, "snbx0223_14", "What is the name of the company?", ["form", "handwritten"]),
            ],
        }
    }


def _coco() -> dict[str, Any]:
    def image(number: int) -> dict[str, Any]:
        name = f"COCO_val2014_{number:012d}.jpg"
        url = f"http://images.cocodataset.org/val2014/{name}"
        return {"license": 5, "file_name": name, "coco_url": url, "height": 360, "width": 640, "id": number}

    captions = [(203564, 37, "A bicycle replica with a clock as the front wheel."), (391895, 1, "A man on a moped.")]
    captions += [(203564, 38, "The bike has a clock as a tire."), (391895, 2, "A man rides a moped on a dirt road.")]
    return {
        "captions_val2014.json": {
            "info": {"year": 2014},
            "images": [image(391895), image(203564)],
            "licenses": [{"id": 5, "name": "CC"}],
            "annotations": [{"image_id": i, "id": n, "caption": text} for i, n, text in captions],
        }
    }


@dataclass(frozen=True)
class Layout:
    """One published format."""

    prefix: str
    made: Callable[[], dict[str, Any]]
    """File -> content."""
    pictures: tuple[str, ...]
    """Where its archives have them."""
    metric: str
    classes: str
    """A column of its own that can give the classes."""
    source: str = ""
    """What a user gives, of the files; by default the only one."""
    wanted: dict[str, Any] = field(default_factory=dict)
    """Columns of the first row."""

    def written(self, home: Path, change: Callable[[dict[str, Any]], Any] | None = None) -> str:
        """Write the files and pictures.

        Args:
            home: where.
            change: of the content, before it is written.

        Returns:
            The source, without a prefix.
        """
        files = json.loads(json.dumps(self.made()))
        if change is not None:
            change(files)
        for name, content in files.items():
            (home / name).write_text(json.dumps(content), "utf-8")
        for number, name in enumerate(self.pictures):
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (90 * number, 255 - 90 * number, 40)).save(home / name)
        return "+".join(str(home / name) for name in (self.source or next(iter(files))).split("+"))


SHORT = "\nAnswer the question using a single word or phrase."
LAYOUTS = (
    Layout(
        "vqav2",
        _vqa,
        ("val2014/COCO_val2014_000000458752.jpg", "val2014/COCO_val2014_000000262148.jpg"),
        "vqa",
        "question_type",
        "questions.json+annotations.json",
        {
            "id": "458752000",
            "question": f"What is this photo taken looking through?{SHORT}",
            "bare_question": "What is this photo taken looking through?",
            "image": "val2014/COCO_val2014_000000458752.jpg",
            "answers": ["net"] * 8 + ["netting", "mesh"],
            "question_type": "what is this",
            "answer_type": "other",
            "multiple_choice_answer": "net",
            "image_id": 458752,
        },
    ),
    Layout(
        "gqa",
        _gqa,
        ("images/2405722.jpg", "images/n161313.jpg"),
        "exact_match",
        "structural",
        wanted={
            "id": "02930152",
            "question": f"Is the wall dark blue?{SHORT}",
            "bare_question": "Is the wall dark blue?",
            "image": "images/2405722.jpg",
            "answers": ["no"],
            "structural": "verify",
            "semantic": "attr",
            "detailed": "existAttrC",
            "group": None,
            "imageId": "2405722",
            "isBalanced": True,
            "fullAnswer": "no.",
        },
    ),
    Layout(
        "scienceqa",
        _scienceqa,
        ("images/train/1/image.png", "images/val/2/image.png"),
        "multiple_choice",
        "topic",
        "problems.json",
        {
            "id": "1",
            "question": "Which animal is a mammal?\nA. a snail\nB. a cat\n"
            "Answer with the option's letter from the given choices directly.",
            "bare_question": "Which animal is a mammal?",
            "image": "images/train/1/image.png",
            "answers": ["B"],
            "choices": ["a snail", "a cat"],
            "benchmark_split": "train",
            "lecture": "Mammals have fur.\nBirds have feathers.",
        },
    ),
    Layout(
        "textvqa",
        _textvqa,
        ("train_images/003a8ae2ef43b901.jpg", "train_images/4cb7be7a1a3b8e9f.jpg"),
        "textvqa",
        "set_name",
        wanted={
            "id": "34602",
            "question": f"what is the brand of this camera?{SHORT}",
            "bare_question": "what is the brand of this camera?",
            "image": "train_images/003a8ae2ef43b901.jpg",
            "answers": ["nous les gosses"] * 8 + ["dakota", "dakota digital"],
            "image_id": "003a8ae2ef43b901",
        },
    ),
    Layout(
        "docvqa",
        _docvqa,
        ("documents/pybv0228_81.png", "documents/snbx0223_14.png"),
        "anls",
        "question_type",
        wanted={
            "id": "49153",
            "question": f"What is the value at 28 percent?{SHORT}",
            "bare_question": "What is the value at 28 percent?",
            "image": "documents/pybv0228_81.png",
            "answers": ["0.28", ".28"],
            "question_type": "figure/diagram",
            "docId": 14465,
        },
    ),
    Layout(
        "coco",
        _coco,
        ("val2014/COCO_val2014_000000391895.jpg", "val2014/COCO_val2014_000000203564.jpg"),
        "rouge_l",
        "metric",
        wanted={
            "id": "391895",
            "question": "Provide a one-sentence caption for the provided image.",
            "image": "val2014/COCO_val2014_000000391895.jpg",
            "answers": ["A man on a moped.", "A man rides a moped on a dirt road."],
        },
    ),
)
BY_PREFIX = {layout.prefix: layout for layout in LAYOUTS}
