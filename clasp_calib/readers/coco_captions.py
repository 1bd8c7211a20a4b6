"""COCO captions: several for each picture (https://cocodataset.org/#download, ``captions_val2014.json``)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from clasp_calib.common.sample_readers import Beginning, SampleReader, SampleSource
from clasp_calib.readers.asking import CAPTION
from clasp_calib.readers.checked_cells import Record
from clasp_calib.readers.coco_pictures import names_of_file
from clasp_calib.readers.json_elements import json_elements


class CocoReader(SampleReader):
    """A file of annotations: one sample a picture, with all its captions as references."""

    about: ClassVar[str] = "COCO's captions (JSON)"

    def claims(self, beginning: Beginning) -> bool:
        """See `SampleReader`."""
        keys = beginning.keys
        return keys >= {"images[].file_name", "images[].id"} or keys >= {
            "annotations[].caption",
            "annotations[].image_id",
        }

    def rows(self, source: SampleSource) -> Iterator[Mapping[str, Any]]:
        """See `SampleReader`."""
        (path,) = source.files("CAPTIONS.json")
        pictures = _pictures(path)
        captions = _captions(path, pictures)
        for key, record in pictures.items():
            if key not in captions:
                raise record.wrong("id", "a picture that has a caption among the annotations")
            yield {
                "id": key,
                "question": CAPTION,
                "image": record.picture("file_name", source.home, *names_of_file(record.text("file_name"))),
                "answers": captions[key],
                "metric": "rouge_l",
            }


def _pictures(path: Path) -> dict[str, Record]:
    """By id; of each no more than its id and name."""
    found: dict[str, Record] = {}
    known: dict[str, str] = {}
    for where, value in json_elements(path, "images"):
        record = Record(value, where)
        key = record.once("id", known)
        found[key] = Record({"id": record["id"], "file_name": record.text("file_name")}, where)
    return found


def _captions(path: Path, pictures: Mapping[str, Record]) -> dict[str, list[str]]:
    """By the id of their picture, in the order of the file."""
    found: dict[str, list[str]] = {}
    known: dict[str, str] = {}
    for where, value in json_elements(path, "annotations"):
        record = Record(value, where)
        record.once("id", known)
        image = record.key("image_id")
        caption = record.text("caption", "a caption; give captions_*.json, not another file of annotations")
        if image not in pictures:
            raise record.wrong("image_id", "the id of one of the images")
        found.setdefault(image, []).append(caption)
    return found
