"""A small file of every published format that is read by a prefix, for tests that go over all of them."""

import csv
import json
from pathlib import Path

from readers.published import base64_of, json_lines, picture_at
from readers.published_layouts import LAYOUTS


def lay_out(place: Path) -> None:
    """A directory for each prefix, see `sources`."""
    for layout in LAYOUTS:
        (place / layout.prefix).mkdir()
        layout.written(place / layout.prefix)
    for prefix in ("pope", "llava", "vlmeval"):
        picture_at(place / prefix / "a.png")
    asked = {"image": "a.png", "text": "Is there a dog in the image?", "label": "yes"}
    json_lines(place / "pope" / "coco_pope_random.json", [{"question_id": n, **asked} for n in range(3)])
    turns = [{"from": who, "value": text} for who, text in (("human", "<image>\nWhat?"), ("gpt", "It."))]
    (place / "llava" / "mix.json").write_text(json.dumps([{"id": "a", "image": "a.png", "conversations": turns}] * 3))
    with (place / "vlmeval" / "mine.tsv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["index", "image", "question", "hint", "A", "B", "answer", "category", "split"])
        writer.writerow([1, base64_of("red"), 'Is "it"?', "", "x", "y", "A", "colour", "dev"])
        writer.writerow(
            [2, str([base64_of("red"), base64_of("blue")]), "Which?", "Look\there.", "x", "y", "B", "", "dev"]
        )
        writer.writerow([3, "1", "What?", "", "x", "", "A", "colour", "test"])


def sources(place: Path) -> list[str]:
    """What a user gives for each."""
    names = {layout.prefix: layout.source or next(iter(layout.made())) for layout in LAYOUTS}
    names |= {"pope": "coco_pope_random.json", "llava": "mix.json", "vlmeval": "mine.tsv"}
    return [
        f"{prefix}:{'+'.join(str(place / prefix / name) for name in given.split('+'))}"
        for prefix, given in names.items()
    ]
