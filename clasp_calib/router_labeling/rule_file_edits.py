"""A rule file without some of its rules, or with some that no longer override, and everything else as it stands."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from clasp_calib.common.given_files import decoded
from clasp_calib.common.yaml_files import read_yaml
from clasp_calib.router_labeling.taxonomy import packaged

_Edit = tuple[int, int, str]
"""Start and end in the text, and what comes there instead."""


def edited_rules(path: Path | None, without: Collection[str], no_override: Collection[str]) -> tuple[str, bool]:
    """The text of a rule file after an edit.

    Comments within a rule go with it; those between rules stay. Where rules do not stand in lines of their own, such
    as in braces, the file is written anew, without comments.

    Args:
        path: a file that `load_rules` reads; ``None`` is the packaged one.
        without: ids of rules to leave out.
        no_override: ids of rules to keep, but without ``overrides``.

    Returns:
        The text, and whether the rest of it is as it was, byte for byte.
    """
    source = packaged("rules.yaml") if path is None else path
    content = read_yaml(source, "rule file")
    wanted = {
        **content,
        "rules": [_changed(rule, no_override) for rule in content["rules"] if rule["id"] not in without],
    }
    text = decoded(source.read_bytes())
    kept = _applied(text, _edits(text, without, no_override))
    try:
        same = yaml.safe_load(kept) == wanted
    except yaml.YAMLError:
        same = False
    return (kept, True) if same else (yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True, width=120), False)


def _changed(rule: dict[str, Any], no_override: Collection[str]) -> dict[str, Any]:
    return rule | {"overrides": False} if rule["id"] in no_override else rule


def _applied(text: str, edits: list[_Edit]) -> str:
    for start, end, instead in sorted(edits, reverse=True):
        text = text[:start] + instead + text[end:]
    return text


def _edits(text: str, without: Collection[str], no_override: Collection[str]) -> list[_Edit]:
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    listed = next(value for key, value in root.value if key.value == "rules")
    lines = [0]
    for line in text.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    edits: list[_Edit] = []
    for node in listed.value:
        of = {key.value: value for key, value in node.value}
        name = of["id"].value
        if name in without:
            last = _last_line(node) + 1
            while last < len(lines) - 1 and not text[lines[last] : lines[last + 1]].strip():
                last += 1
            edits.append((lines[node.start_mark.line], lines[last], ""))
        elif name in no_override and "overrides" in of:
            edits.append((of["overrides"].start_mark.index, of["overrides"].end_mark.index, "false"))
    return edits


def _last_line(node: yaml.Node) -> int:
    """Of its last value; a mapping or list in lines ends only where the next thing begins, behind all comments."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _last_line(last[1] if isinstance(last, tuple) else last)
    column_zero = node.end_mark.column == 0 and node.end_mark.line > node.start_mark.line
    return node.end_mark.line - 1 if column_zero else node.end_mark.line
