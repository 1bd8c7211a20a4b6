"""Ways to spoil an input: each writes something for a `Place`, and returns what ``{bad}`` stands for."""

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from ready_runs import Ready, copy_of
from speaking_models import speaking_llava_directory, write_picture

ROW = {"id": "1", "image": "a.png", "question": "What is this?", "answers": ["a cup"]}


@dataclass
class Place:
    """Where a bad input is laid out: a finished run directory, copied if somebody wants to change it."""

    finished: Ready
    tmp: Path
    copied: bool = False

    @cached_property
    def run(self) -> Path:
        """A copy of the finished run directory."""
        self.copied = True
        return copy_of(self.finished, self.tmp).run

    def names(self, bad: Path | None) -> dict[str, object]:
        """What the words in braces of a command line stand for."""
        return {
            "bad": bad,
            "run": self.run if self.copied else self.finished.run,
            "new": self.tmp / "new",
            "model": self.finished.model,
            "samples": self.finished.samples,
            "picture": self.finished.picture,
        }


def text(name, content):
    """A file with this content."""

    def write(place):
        (place.tmp / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return place.tmp / name

    return write


def rows(*changes):
    """A table of `ROW`, changed."""
    return text("bad.jsonl", "".join(json.dumps(ROW | change) + "\n" for change in changes))


def label(**change):
    """The first row of the labels, changed."""

    def write(place):
        table = pq.read_table(place.run / "labels.parquet").to_pylist()
        pq.write_table(pa.Table.from_pylist([table[0] | change, *table[1:]]), place.run / "labels.parquet")

    return write


def new_picture(place):
    """A picture that was labelled after the cache was made."""
    write_picture(place.run / "new.png", 99)
    label(image="new.png")(place)


def only(split):
    """The labels of one split."""

    def write(place):
        table = pq.read_table(place.run / "labels.parquet")
        pq.write_table(table.filter(pa.compute.field("split") == split), place.run / "labels.parquet")

    return write


def removed(name):
    """Something of the run directory is not there."""

    def write(place):
        path = place.run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return write


def flipped(name):
    """One bit in the middle of a file of the run directory is not what it was."""

    def write(place):
        content = bytearray((place.run / name).read_bytes())
        content[len(content) // 2] ^= 1
        (place.run / name).write_bytes(content)

    return write


def begins(name, content):
    """A file of the run directory begins with this."""

    def write(place):
        path = place.run / name
        path.write_text(content + path.read_text())

    return write


def model(name="other", **settings):
    """A model of another shape."""
    return lambda place: speaking_llava_directory(place.tmp / name, **settings)


def text_model(place):
    """A model that sees nothing."""
    return text("config.json", '{"model_type": "bert"}')(place).parent


def no_weights(place):
    """A model directory without weights."""
    shutil.copytree(place.finished.model, place.tmp / "half")
    (place.tmp / "half" / "model.safetensors").unlink()
    return place.tmp / "half"


def empty(place):
    """An empty directory."""
    (place.tmp / "empty").mkdir()
    return place.tmp / "empty"


def notes(place):
    """A directory with something of the user's."""
    return text("mine.txt", "mine")(place).parent


def forget_model(run):
    """The run directory remembers no model, as one in which no command was given a model yet."""
    try:
        config = json.loads((run / "config.json").read_text())
    except json.JSONDecodeError:
        return  # spoilt on purpose
    config.pop("model", None)
    (run / "config.json").write_text(json.dumps(config))


def nothing(place):
    """A path where there is nothing."""
    return place.tmp / "nothing"
