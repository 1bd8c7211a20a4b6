"""The packaged taxonomy, and what is said about files that are none."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from clasp_calib.common.errors import InputError
from clasp_calib.common.samples import CLASSES
from clasp_calib.router_labeling.taxonomy import Taxonomy, load_taxonomy

MERGED = {
    "object_identification": "object",
    "object_presence": "object",
    "attribute_recognition": "attribute",
    "fine_grained_identification": "attribute",
    "text_recognition": "text",
    "symbol_recognition": "text",
    "scene_understanding": "scene",
    "spatial_relation": "spatial",
    "counting": "counting",
    "arithmetic_reasoning": "default",
    "action_recognition": "action",
    "interaction": "action",
    "function_or_intention": "function",
    "temporal_order": "default",
    "other": "default",
}

GOOD: dict[str, Any] = {
    "version": 1,
    "classes": ["chart", "photo"],
    "default_intent": "rest",
    "intents": {
        "value": {"class": "chart", "definition": "Asks for a value.", "examples": ["a?", "b?", "c?"]},
        "rest": {"class": "photo", "definition": "Everything else.", "examples": ["d?", "e?", "f?"]},
    },
}


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def changed(*keys: str, to: Any) -> dict[str, Any]:
    content = copy.deepcopy(GOOD)
    place = content
    for key in keys[:-1]:
        place = place[key]
    if to is None:
        del place[keys[-1]]
    else:
        place[keys[-1]] = to
    return content


def test_fifteen_intents_are_merged_into_the_nine_classes_of_the_sample_table():
    taxonomy = load_taxonomy()
    assert taxonomy.classes == CLASSES
    assert {slug: taxonomy.class_of(slug) for slug in taxonomy.intents} == MERGED
    assert (taxonomy.default_intent, taxonomy.default_class) == ("other", "default")
    assert all(len(intent.examples) == 3 for intent in taxonomy.intents.values())


def test_class_of_an_unknown_intent_lists_the_known_ones():
    with pytest.raises(InputError, match=r"unknown intent 'telepathy'.*counting"):
        load_taxonomy().class_of("telepathy")


def test_own_taxonomy(tmp_path: Path):
    taxonomy = load_taxonomy(written(tmp_path / "t.yaml", GOOD))
    assert taxonomy.classes == ("chart", "photo")
    assert taxonomy.class_of("value") == "chart"
    assert taxonomy.default_class == "photo"


def test_digest_follows_the_content_and_not_the_layout(tmp_path: Path):
    plain = load_taxonomy(written(tmp_path / "a.yaml", GOOD)).digest
    laid_out = "# a comment\n" + yaml.safe_dump(GOOD, sort_keys=False, default_flow_style=True)
    assert load_taxonomy(written(tmp_path / "b.yaml", laid_out)).digest == plain
    for content in (
        changed("classes", to=["photo", "chart"]),
        changed("intents", "value", "definition", to="Asks for another value."),
        changed("default_intent", to="value"),
    ):
        assert load_taxonomy(written(tmp_path / "c.yaml", content)).digest != plain


def test_taxonomy_is_frozen():
    taxonomy = load_taxonomy()
    with pytest.raises(ValidationError):
        taxonomy.classes = ("a",)  # type: ignore[misc]
    assert isinstance(taxonomy, Taxonomy)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (
            changed("intents", "value", "class", to="figure"),
            "'value' has the class 'figure'; expected one of chart",
        ),
        (changed("classes", to=["chart", "photo", "chart"]), "class 'chart' is listed 2 times"),
        (changed("classes", to=["chart", "photo", "idle"]), "no intent has the class 'idle'"),
        (
            changed("classes", to=["chart", "a\nb"]),
            r"classes\.1: holds '\\n', a character that",
        ),
        (changed("classes", to=["chart", " b"]), r"classes\.1: begins or ends with a space"),
        (changed("classes", to=["chart", "auto"]), r"classes\.1: 'auto' means something else"),
        (changed("intents", "value", "examples", to=["a?", "b?"]), r"intents\.value\.examples: .*at least 3"),
        (changed("intents", "value", "examples", to=["a?", "b?", " "]), r"intents\.value\.examples\.2"),
        (
            changed("intents", "value", "examples", to=["a?", "b?", "d?"]),
            "'d\\?' stands under 'value' and 'rest'",
        ),
        (changed("intents", "value", "examples", to=None), r"intents\.value\.examples: Field required"),
        (changed("intents", "value", "definition", to=None), r"intents\.value\.definition: Field required"),
        (changed("intents", "value", "weight", to=3), r"intents\.value\.weight"),
        (changed("default_intent", to="nothing"), "default_intent is 'nothing'"),
        (changed("version", to=2), "version"),
        ("classes: [a]\nclasses: [b]\n", "'classes' occurs twice"),
        ("classes: [a\n", "not valid YAML"),
        ("day: 2001-99-99\n", "not valid YAML"),
        ("- a\n- b\n", "taxonomy .*: "),
        ("", "taxonomy .*: "),
        ("? [a, b]\n: c\n", "taxonomy .*: "),
        ("[" * 3000, "not valid YAML"),
    ],
)
def test_bad_file_is_an_input_error_that_names_file_and_place(tmp_path: Path, content: Any, complaint: str):
    path = written(tmp_path / "bad.yaml", content)
    with pytest.raises(InputError, match=complaint) as caught:
        load_taxonomy(path)
    assert "bad.yaml" in str(caught.value)


def test_missing_file_and_wrong_encoding(tmp_path: Path):
    with pytest.raises(InputError, match=r"cannot read the taxonomy .*absent\.yaml"):
        load_taxonomy(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"classes: [caf\xe9]\n")
    with pytest.raises(InputError, match=r"latin\.yaml is not valid YAML"):
        load_taxonomy(tmp_path / "latin.yaml")
