"""The generated reference is what the package says of itself; its generator shows what docstrings and options say."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
import typer

import clasp_calib
from tools.docs.cli_page import commands, section
from tools.docs.markdown import cell, inline, paragraphs
from tools.docs.python_page import class_, function
from tools.docs.reference import ROOT, pages


@pytest.mark.parametrize("name", ["cli.md", "python.md"])
def test_the_committed_page_is_what_the_package_says(name: str):
    (text,) = (text for path, text in pages().items() if path.name == name)
    committed = ROOT / "docs" / "reference" / name
    assert committed.read_text(encoding="utf-8") == text, "run `make reference-docs`"


def test_every_public_name_has_a_heading():
    (page,) = (text for path, text in pages().items() if path.name == "python.md")
    headings = {line.lstrip("#").strip() for line in page.splitlines() if line.startswith("##")}
    assert {name for name in clasp_calib.__all__ if not name.startswith("_")} <= headings


def test_every_public_field_is_described():
    (page,) = (text for path, text in pages().items() if path.name == "python.md")
    assert not re.findall(r"^\| `\w+` \| .*\|  \|$", page, re.MULTILINE)


@dataclass(frozen=True)
class Base:
    """What both have.

    Attributes:
        size: in ``[0, 1]``,
            over two lines.
    """

    size: float | None = None


@dataclass(frozen=True)
class Thing(Base):
    """A thing.

    It holds ``x | y``:

        thing = Thing()

    Raises:
        ValueError: never.
    """

    parts: list[int] = field(default_factory=list)
    """The parts, all of them."""
    _hidden: int = 0

    @property
    def half(self) -> float:
        """Half of it."""
        return (self.size or 0) / 2

    def grown(self, by: int, *, fast: bool = False) -> "Thing":
        """A larger one.

        Args:
            by: how much.
        """
        return Thing((self.size or 0) + by)

    def _secret(self) -> None: ...


def test_a_class_is_shown_with_fields_and_methods():
    assert (
        class_("Thing", Thing)
        == """### Thing

A thing.

It holds `x | y`:

```python
thing = Thing()
```

Raises:

- `ValueError`: never.

| field | type | default | |
|---|---|---|---|
| `size` | `float \\| None` | `None` | in `[0, 1]`, over two lines. |
| `parts` | `list[int]` | `list()` | The parts, all of them. |

`Thing.half`: Half of it.

#### Thing.grown

```python
def grown(by: int, *, fast: bool = False) -> Thing
```

A larger one.

Arguments:

- `by`: how much.
"""
    )


@contextmanager
def lend(first: int, /, name: str = "a long default of the argument", *others: str, **more: bool) -> Iterator[Thing]:
    """Lend a thing.

    Yields:
        The thing.

    Raises:
        KeyError: there is none.
    """
    yield Thing()


def test_a_function_is_shown_with_its_signature():
    assert (
        function("lend", lend)
        == """### lend

```python
@contextmanager
def lend(
    first: int,
    name: str = 'a long default of the argument',
    *others: str,
    **more: bool,
) -> Iterator[Thing]
```

Lend a thing.

Yields: The thing.

Raises:

- `KeyError`: there is none.
"""
    )


def test_a_command_is_shown_with_its_options():
    app = typer.Typer()

    @app.callback()
    def group() -> None: ...

    @app.command("do")
    def do(
        names: Annotated[list[str], typer.Argument(help="What to do it to.")],
        how: Annotated[Literal["fast", "slow"], typer.Option(help="Or *else*.")] = "fast",
        times: Annotated[int | None, typer.Option(min=1, help="How often: 1|2.")] = None,
        share: Annotated[float, typer.Option(min=0, max=1, help="Of <all>.")] = 0.5,
        loud: Annotated[bool, typer.Option("--loud/--quiet", help="Say it.")] = True,
    ) -> None:
        """Do it.

        Example: clasp-calib do
            --loud it
        """

    ((name, command),) = commands(typer.main.get_command(app))
    assert (
        section(f"clasp-calib {name}", command)
        == """## clasp-calib do

Do it.

```text
clasp-calib do NAMES... [OPTIONS]
```

| option | takes | default | |
|---|---|---|---|
| `NAMES...` | text |  | What to do it to. |
| `--how` | `fast`, `slow` | `fast` | Or \\*else\\*. |
| `--times` | integer from 1 |  | How often: 1\\|2. |
| `--share` | number 0 to 1 | `0.5` | Of &lt;all>. |
| `--loud`, `--quiet` | flag | `--loud` | Say it. |

Example:

```console
$ clasp-calib do --loud it
```
"""
    )


def test_text_becomes_markdown():
    assert inline("a ``b`` of\n`c` [d] <e>") == "a `b` of `c` \\[d\\] &lt;e>"
    assert cell("`a|b`") == "`a\\|b`"
    assert paragraphs("One,\ngoing on.\n\n- a\n- b\n  c\n\nTwo.") == "One, going on.\n\n- a\n- b c\n\nTwo."
