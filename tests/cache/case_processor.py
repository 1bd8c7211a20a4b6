"""A processor for the tiny architectures: a file's number says which of the made-up pictures it is.

It is called as transformers' processors are, on a decoded picture or on the path of a video. The real processors of
videos need torchvision, which is not there when the tests run; those of images are tested in their own right.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image


@dataclass(frozen=True)
class Settings:
    """What the fingerprint asks of an image or video processor."""

    name: str

    def to_json_string(self):
        return json.dumps({"name": self.name})


class CaseProcessor:
    image_token, video_token = "<image>", "<video>"

    def __init__(self, case):
        self.case = case
        self.image_processor = self.video_processor = Settings(case.name)

    def __call__(self, images=None, videos=None, text=None, return_tensors=None):
        assert (text, return_tensors) == (self.image_token if images else self.video_token, "pt")
        number = images[0].getpixel((0, 0))[0] if images else int(Path(videos[0]).read_text())
        pixels, ids = self.case.picture(self.case.model(), torch.Generator().manual_seed(number), number)
        return {**pixels, "input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids))}


def write_file(folder, case, number):
    """The file of the ``number``-th picture or video."""
    if case.filmed:
        path = folder / f"{number}.mp4"
        path.write_text(str(number))
    else:
        path = folder / f"{number}.png"
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    return path
