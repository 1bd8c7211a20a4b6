"""Confusions as users have them: JSON of one or several, tables of labels, mappings."""

import json

import numpy as np
import pytest

import clasp_calib as cc
from clasp_calib.api import confusions
from clasp_calib.api.confusions import packaged_confusions, read_confusions
from clasp_calib.common.errors import InputError
from clasp_calib.router_labeling.taxonomy import load_taxonomy

COUNTS = {"classes": ["text", "scene"], "counts": [[3, 1], [0, 4]]}


def told(found):
    return [(one.name, one.classes, one.counts.tolist()) for one in found]


@pytest.fixture
def files(tmp_path):
    (tmp_path / "one.json").write_text(json.dumps(COUNTS))
    (tmp_path / "all.json").write_text(json.dumps({"keywords": COUNTS, "router": COUNTS | {"questions": 8}}))
    rows = [
        {"question": "?", "class": "text", "gold_class": "scene", "source": "llm"},
        {"question": "?", "class": "scene", "gold_class": "scene", "source": "rule"},
        {"question": "?", "class": "text", "gold_class": "scene", "source": "gold"},
        {"question": "?", "class": "text", "source": "llm"},
    ]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_every_kind_is_read_and_named(files):
    own = [("text", "scene"), [[3, 1], [0, 4]]]
    assert told(read_confusions([files / "one.json"])) == [("one", *own)]
    assert told(read_confusions({"mine": files / "one.json"})) == [("mine", *own)]
    assert told(read_confusions(files / "all.json")) == [("keywords", *own), ("router", *own)]
    assert told(read_confusions({"mine": COUNTS})) == [("mine", *own)]
    labels = [("scene", "text"), [[1, 1], [0, 0]]]
    assert told(read_confusions([files / "labels.jsonl"])) == [("labels", *labels)]
    assert told(read_confusions({"mine": cc.load_samples(files / "labels.jsonl")})) == [("mine", *labels)]
    assert read_confusions(None) == []


def test_what_cannot_be_read_says_what_is_expected(files):
    (files / "odd.json").write_text('{"a": {"classes": ["text"], "counts": [[0.5]]}}')
    (files / "ragged.json").write_text('{"classes": ["text", "scene"], "counts": [[1], [1, 2]]}')
    (files / "broken.json").write_text("{")
    (files / "bare.jsonl").write_text('{"question": "?", "class": "text"}\n')
    (files / "gold.jsonl").write_text('{"question": "?", "class": "text", "gold_class": "text", "source": "gold"}\n')
    for given, message in (
        ([files / "odd.json"], "odd.json: a is no confusion of whole numbers; expected .*classes"),
        ([files / "ragged.json"], "ragged.json is no confusion of whole numbers"),
        ([files / "broken.json"], "broken.json is no JSON"),
        ([files / "bare.jsonl"], "has no column 'gold_class'"),
        ([files / "gold.jsonl"], "no row with a class by a labeler and a gold_class"),
        ([files / "one.json", files / "one.json"], "two confusions are called 'one'"),
        ({"mine": files / "all.json"}, "holds the confusions keywords, router, which have names of their own"),
        ([COUNTS], "give a mapping of names"),
        ([files / "none.json"], "cannot read the confusion"),
    ):
        with pytest.raises(InputError, match=message):
            read_confusions(given)


def test_those_of_the_package_come_with_its_classes(files, monkeypatch):
    (files / "assets").mkdir()
    monkeypatch.setattr(confusions, "packaged", lambda name: files / name)
    classes = load_taxonomy().classes
    assert packaged_confusions(classes) == []
    counts = np.eye(len(classes), dtype=int).tolist()
    (files / "assets" / "confusion.json").write_text(json.dumps({"keywords": {"classes": classes, "counts": counts}}))
    assert [one.name for one in packaged_confusions(classes)] == ["keywords"]
    assert packaged_confusions(("more", "less")) == []


def test_another_ablation_takes_none():
    with pytest.raises(InputError, match="which the ablation 'parts' does not vary; leave them out, or choose"):
        cc.ablate("parts", None, None, "none", [], confusions={"a": COUNTS})
