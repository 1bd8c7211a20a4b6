"""The rules of docs/design/architecture.md: doors between rooms, no circles, a name for each, nothing too long."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "clasp_calib"
PAGE = ROOT / "docs" / "design" / "architecture.md"
FREE = "commands"
"""May import any room, so a door of its own may be unused."""
SHARED_NAMES = ("__init__", "registry")
"""A registry does the same in every room: it lists what there is to choose from, by name."""
LONGEST = 350
"""Lines of a module. Longer ones have two ideas, or hold data, which belongs in a data file."""
HEAVY = ("torch", "transformers", "vllm", "optuna", "h5py", "pyarrow")

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
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.pyi")]):
        parts = path.relative_to(package.parent).with_suffix("").parts
        own = _room(parts, package.name, rooms)
        for name in _imports(ast.parse(path.read_text(encoding="utf-8")), parts[:-1]):
            words = name.split(".")
            if words[0] == package.name and (other := _room(words, package.name, rooms)) != own:
                doors.setdefault((own, other), []).append(str(path.relative_to(package.parent)))
    return doors


def _room(words: tuple[str, ...] | list[str], package: str, rooms: set[str]) -> str:
    """Second word of a dotted name; the package itself where that is no room (``from clasp_calib import clasp``)."""
    return words[1] if len(words) > 1 and words[1] in rooms - {"__init__"} else package


def _imports(tree: ast.AST, parent: tuple[str, ...], types: bool = True) -> list[str]:
    """Dotted names that a module imports anywhere, relative imports and ``import_module("...")`` among them.

    Args:
        tree: the module.
        parent: the package that it lies in.
        types: also what stands under ``if TYPE_CHECKING``.
    """
    names = []
    for node in _nodes(tree, types):
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


def _nodes(tree: ast.AST, types: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        yield node
        only_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if types or not only_types:
            yield from _nodes(node, types)


def imported_files(package: Path) -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports when it is loaded or later; not what only types need."""
    paths = {_module(path, package): path for path in package.rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for module, path in paths.items():
        parts = path.relative_to(package.parent).with_suffix("").parts
        found = graph[module] = set()
        for name in _imports(ast.parse(path.read_text(encoding="utf-8")), parts[:-1], types=False):
            words = name.split(".")
            named = {".".join(words[:length]) for length in range(len(words), 0, -1)} & set(paths)
            found |= {max(named, key=len, default=module)} - {module}
    return graph


def _module(path: Path, package: Path) -> str:
    return ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")


def several(names: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Name -> where it is, of the names that are in more than one place."""
    places: dict[str, list[str]] = {}
    for name, place in names:
        places.setdefault(name, []).append(place)
    return {name: where for name, where in places.items() if len(where) > 1}


def classes_in(package: Path) -> Iterator[tuple[str, str]]:
    """Every public class of a module, and its module."""
    for path in sorted(package.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name, _module(path, package)


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


def test_files_do_not_import_each_other_in_a_circle():
    list(TopologicalSorter(imported_files(PACKAGE)).static_order())  # a CycleError names the circle


def test_a_module_has_a_name_of_its_own():
    found = several((path.stem, _module(path, PACKAGE)) for path in sorted(PACKAGE.rglob("*.py")))
    shared = {name: where for name, where in found.items() if name not in SHARED_NAMES}
    assert not shared, f"a reader cannot guess the room from these names: {shared}"


def test_a_class_has_a_name_of_its_own():
    assert not several(classes_in(PACKAGE))


def test_no_module_is_too_long():
    lengths = {_module(path, PACKAGE): path.read_text(encoding="utf-8").count("\n") for path in PACKAGE.rglob("*.py")}
    assert {module: length for module, length in lengths.items() if length > LONGEST} == {}


@pytest.mark.parametrize(
    ("first", "second", "circle"),
    [
        ("from clasp_calib.b import y", "import clasp_calib.a", True),
        ("from clasp_calib.b import y", "def late():\n    from . import a", True),
        ("from clasp_calib.b import y", "from importlib import import_module\nimport_module('clasp_calib.a')", True),
        ("from clasp_calib.b import y", "if TYPE_CHECKING:\n    from clasp_calib.a import x", False),
        ("from clasp_calib.b import y", "if other:\n    from clasp_calib.a import x", True),
        ("from clasp_calib.b import y", "import ab", False),
    ],
)
def test_a_circle_is_caught(first: str, second: str, circle: bool, tmp_path: Path):
    package = tmp_path / "clasp_calib"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "a.py").write_text(first)
    (package / "b.py").write_text(second)
    with pytest.raises(CycleError) if circle else nullcontext():
        list(TopologicalSorter(imported_files(package)).static_order())


def test_names_that_stand_twice_are_caught(tmp_path: Path):
    for room in ("runtime", "search"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "plans.py").write_text("class Plan: ...\nclass _Own: ...\n")
    assert set(several(classes_in(tmp_path))) == {"Plan"}


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
