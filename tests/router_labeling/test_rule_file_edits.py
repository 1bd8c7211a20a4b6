"""Rules taken out of their file: the rest stays as it is, byte for byte where that can be."""

import pytest
import yaml

from clasp_calib.router_labeling.rule_file_edits import edited_rules
from clasp_calib.router_labeling.taxonomy import packaged

FILE = """\
# Ours.
version: 1
words: {colour: [red, blue]}   # two
rules:
  # --- Counting ---
  - id: how
    # "How many?"
    intent: counting
    overrides: true  # sure
    pattern:
      - how many

  # --- The rest ---
  - {id: braces, intent: other, pattern: [x]}
  - id: folded
    intent: other
    pattern:
      regex: >-
        a
        b
  # The end.
"""


def edited(tmp_path, text, without=(), no_override=()):
    path = tmp_path / "rules.yaml"
    path.write_bytes(text.encode())
    return edited_rules(path, set(without), set(no_override))


def test_nothing_to_do_changes_nothing(tmp_path):
    assert edited(tmp_path, FILE) == (FILE, True)


def test_overrides_are_switched_off_in_their_place(tmp_path):
    assert edited(tmp_path, FILE, no_override=["how"]) == (FILE.replace("true  #", "false  #"), True)


@pytest.mark.parametrize(
    ("rule", "first", "after"),
    [
        ("how", "  - id: how\n", "  # --- The rest"),
        ("braces", "  - {id", "  - id: folded"),
        ("folded", "  - id: f", "  # The"),
    ],
)
def test_a_rule_goes_with_its_comments_and_leaves_those_between(tmp_path, rule, first, after):
    text, kept = edited(tmp_path, FILE, [rule])
    begin, end = FILE.index(first), FILE.index(after)
    assert (text, kept) == (FILE[:begin] + FILE[end:], True)


def test_line_ends_of_windows_stay(tmp_path):
    given = FILE.replace("\n", "\r\n")
    text, kept = edited(tmp_path, given, ["folded"], ["how"])
    assert kept
    assert text == given[: given.index("  - id: folded")].replace("true  #", "false  #") + "  # The end.\r\n"


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nrules: [{id: a, intent: other, pattern: [x]}, {id: b, intent: other, pattern: [y]}]\n",
        "version: 1\nrules:\n- id: a\n  intent: other\n  pattern: &x [x]\n- id: b\n  intent: other\n  pattern: *x\n",
        "version: 1\nrules:\n- id: a\n  intent: other\n  pattern: [x]\n",
    ],
)
def test_what_cannot_be_cut_out_is_written_anew(tmp_path, text):
    without = yaml.safe_load(text)
    without["rules"] = without["rules"][1:]
    written, kept = edited(tmp_path, text, ["a"])
    assert not kept
    assert yaml.safe_load(written) == without


def test_packaged_rules_can_be_taken_out():
    whole = packaged("rules.yaml").read_text(encoding="utf-8")
    names = [rule["id"] for rule in yaml.safe_load(whole)["rules"]]
    for without in ({names[0]}, {names[-1]}, set(names[1::2])):
        text, kept = edited_rules(None, without, set())
        assert kept
        assert [rule["id"] for rule in yaml.safe_load(text)["rules"]] == [name for name in names if name not in without]
        headings = [line for line in whole.splitlines() if line.startswith("  # ---")]
        assert [line for line in text.splitlines() if line.startswith("  # ---")] == headings
