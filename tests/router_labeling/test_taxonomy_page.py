"""The files that docs/guide/taxonomy.md shows are files that can be read, and its table is the taxonomy's."""

import re
from pathlib import Path

from clasp_calib.router_labeling.rules import load_rules
from clasp_calib.router_labeling.taxonomy import load_taxonomy

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "taxonomy.md").read_text(encoding="utf-8")
RULES, TAXONOMY = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_the_table_of_classes_is_the_packaged_taxonomy():
    taxonomy = load_taxonomy()
    rows = re.findall(r"^\| `(\w+)` \| (`.*`) \| .* \|$", PAGE, re.MULTILINE)
    shown = {class_: re.findall(r"`(\w+)`", intents) for class_, intents in rows if class_ in taxonomy.classes}
    assert list(shown) == list(taxonomy.classes)
    assert {i: c for c, intents in shown.items() for i in intents} == {
        i: taxonomy.class_of(i) for i in taxonomy.intents
    }


def test_the_rules_shown_work_as_said(tmp_path: Path):
    (tmp_path / "rules.yaml").write_text(RULES)
    rules = load_rules(tmp_path / "rules.yaml", load_taxonomy())
    expected = {
        "Who wrote this?": "who-wrote",
        "How old are the apples?": "ripe-fruit",
        "Is the star fruit ripe?": "ripe-fruit",
        "How many ripe apples?": None,
        "Is it 50 ML?": "measure",
    }
    found = {question: rules.match(question) for question in expected}
    assert {question: rule and rule.id for question, rule in found.items()} == expected


def test_the_taxonomy_shown_can_be_read(tmp_path: Path):
    (tmp_path / "taxonomy.yaml").write_text(TAXONOMY)
    taxonomy = load_taxonomy(tmp_path / "taxonomy.yaml")
    assert (taxonomy.classes, taxonomy.default_class) == (("chart", "photo"), "photo")
