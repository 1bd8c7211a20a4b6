"""Rooms import only through the doors that docs/design/architecture.md lists, and every door is used."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "clasp_calib"
PAGE = ROOT / "docs" / "design" / "architecture.md"
FREE = "commands"
"""May import any room, so a door of its own may be unused."""
HEAVY = ("torch", "transformers", "vllm", "optuna", "h5py", "pyarrow", "numba")

Door = tuple[str, str]


def listed_doors() -> set[Door]:
    table = re.search(r"^\| room \| may import \|\n\|[-|]+\|\n((?:\|.*\|\n)+)", PAGE.read_text(encoding="utf-8"), re.M)
    assert table, f"{PAGE} has no table '| room | may import |'"
    doors = set()
    for line in table[1].splitlines():
        room, others = (re.findall(r"`(\w+)`", cell) for cell in line.strip("|").split("|"))
        doors |= {(room[0], other) for other in others}
    return doors


def used_doors(package: Path) -> dict[Door, list[str]]:
    """Door -> the files that go through it."""
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    doors: dict[Door, list[str]] = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        own = _room(parts, package.name, rooms)
        for name in _imports(path.read_text(encoding="utf-8"), parts[:-1]):
            words = name.split(".")
            if words[0] == package.name and (other := _room(words, package.name, rooms)) != own:
                doors.setdefault((own, other), []).append(str(path.relative_to(package.parent)))
    return doors


def _room(words: tuple[str, ...] | list[str], package: str, rooms: set[str]) -> str:
    """Second word of a dotted name; the package itself where that is no room (``from clasp_calib import clasp``)."""
    return words[1] if len(words) > 1 and words[1] in rooms - {"__init__"} else package


def _imports(source: str, parent: tuple[str, ...]) -> list[str]:
    """Dotted names that a module imports anywhere, relative imports and ``import_module("...")`` among them."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = parent[: len(parent) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{stem}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if called in ("import_module", "__import__"):
                names.append(str(node.args[0].value))
    return names


def test_every_import_between_rooms_goes_through_a_listed_door():
    listed = listed_doors()
    forbidden = {door: files for door, files in used_doors(PACKAGE).items() if door not in listed}
    assert not forbidden, f"imports without a door in docs/design/architecture.md: {forbidden}"


def test_every_listed_door_is_used():
    unused = {door for door in listed_doors() - set(used_doors(PACKAGE)) if door[0] != FREE}
    assert not unused, f"docs/design/architecture.md lists doors that nobody uses, remove them: {sorted(unused)}"


def test_every_room_has_a_row_in_both_tables():
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    first_cells = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.M)
    assert {room for room in first_cells if first_cells.count(room) > 1} == rooms - {"__init__"}


def test_the_picture_shows_every_room():
    picture = (ROOT / "docs" / "design" / "architecture.svg").read_text(encoding="utf-8")
    shown = {word for text in re.findall(r'class="name[^>]*>([^<]+)<', picture) for word in re.findall(r"\w+", text)}
    assert {room for door in listed_doors() for room in door} - {"clasp_calib"} <= shown


def test_doors_lead_one_way():
    listed = listed_doors()
    assert not {(a, b) for a, b in listed if b in ("cli", FREE)} - {("cli", FREE)}
    graph: dict[str, set[str]] = {}
    for room, other in listed:
        graph.setdefault(room, set()).add(other)
    list(TopologicalSorter(graph).static_order())  # a CycleError names the circle


@pytest.mark.parametrize(
    "code",
    [
        "from clasp_calib.search.engine import race",
        "import clasp_calib.search.engine as engine",
        "from clasp_calib import search",
        "from ..search import engine",
        "from .. import search",
        "def late():\n    from clasp_calib.search.engine import race",
        "class A:\n    def late(self):\n        import clasp_calib.search",
        "if TYPE_CHECKING:\n    from clasp_calib.search.engine import race",
        "from importlib import import_module\nimport_module('clasp_calib.search.engine')",
    ],
)
def test_a_forbidden_import_is_caught(code: str, tmp_path: Path):
    package = tmp_path / "clasp_calib"
    for room in ("runtime", "search"):
        (package / room).mkdir(parents=True)
        (package / room / "__init__.py").touch()
    (package / "runtime" / "new.py").write_text(code)
    found = used_doors(package)
    assert found == {("runtime", "search"): ["clasp_calib/runtime/new.py"]}
    assert ("runtime", "search") not in listed_doors()


def test_imports_within_a_room_need_no_door(tmp_path: Path):
    package = tmp_path / "clasp_calib"
    (package / "runtime" / "adapters").mkdir(parents=True)
    (package / "runtime" / "__init__.py").touch()
    (package / "runtime" / "adapters" / "__init__.py").write_text("from . import base\nfrom ..pruner import prune\n")
    assert used_doors(package) == {}


def test_help_and_the_rooms_themselves_import_nothing_heavy():
    rooms = sorted({room for door in listed_doors() for room in door} - {"cli", "clasp_calib"})
    code = (
        "import sys\n"
        f"import clasp_calib, {', '.join(f'clasp_calib.{room}' for room in rooms)}\n"
        "from clasp_calib.cli import run\n"
        "assert run(['--help']) == 0 and run(['search', '--help']) == 0\n"
        f"print('heavy:', *sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy:"
