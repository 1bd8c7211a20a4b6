"""Parts of a docstring in Google's style: the text, and the named entries of its sections."""

import inspect
import re
from dataclasses import dataclass, field

from tools.docs.markdown import inline, paragraphs

SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")


@dataclass(frozen=True)
class Docstring:
    """What a docstring says."""

    text: str
    """What comes before the sections."""
    entries: dict[str, dict[str, str]] = field(default_factory=dict)
    """Section -> name of an argument, attribute or error -> what is said about it."""
    prose: dict[str, str] = field(default_factory=dict)
    """Section -> its text, where it has no names (``Returns``, ``Yields``)."""


def parsed(docstring: str | None) -> Docstring:
    """The parts of a docstring."""
    clean = inspect.cleandoc(docstring or "")
    parts = re.split(rf"^({'|'.join(SECTIONS)}):\n", clean, flags=re.MULTILINE)
    entries: dict[str, dict[str, str]] = {}
    prose: dict[str, str] = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        lines = inspect.cleandoc("\n" + body)
        if name in ("Returns", "Yields"):
            prose[name] = lines
        else:
            found = re.findall(r"^([\w.]+): ((?:.*\n?)(?:^[ \t]+.*\n?|\n(?=[ \t]))*)", lines, re.MULTILINE)
            entries[name] = {entry: " ".join(text.split()) for entry, text in found}
    return Docstring(parts[0].strip(), entries, prose)


def shown(doc: Docstring) -> str:
    """The same as Markdown, without the section of attributes."""
    parts = [paragraphs(doc.text), listed("Arguments", doc.entries.get("Args", {}))]
    parts += [f"{name}: {inline(text)}" for name, text in doc.prose.items()]
    parts.append(listed("Raises", doc.entries.get("Raises", {})))
    return "\n\n".join(part for part in parts if part)


def listed(title: str, entries: dict[str, str]) -> str:
    """A list with a title, or nothing."""
    lines = [f"- `{entry}`: {inline(text)}" for entry, text in entries.items()]
    return "\n".join([f"{title}:\n", *lines]) if lines else ""
