"""What is imported is declared, and what is declared is imported: the core's dependencies, the extras, and dev."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
IMPORTED_AS = {
    "markdown-it-py": "markdown_it",
    "ms-vlmeval": "vlmeval",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}
"""Distributions whose module has another name."""
ONLY_RUN = {"pytest-cov", "pytest-xdist", "mypy", "ruff", "types-pyyaml", "setuptools", "filelock"}
"""Programs and plugins of dev that nobody imports, and what lmms-eval forgets to bound."""
ELSEWHERE = ("tests/on_vllm", "tests/in_harness", "tools/docs")
"""Run in environments of their own, with a requirements.txt beside them."""


def modules(requirements: list[str]) -> set[str]:
    """The modules that requirements bring, those of the extras that they name among them."""
    found: set[str] = set()
    for requirement in requirements:
        name, extras = re.match(r"([\w.-]+)(?:\[([\w,]+)\])?", requirement).groups()
        if name == PROJECT["name"]:
            found |= {module for extra in extras.split(",") for module in modules(EXTRAS[extra])}
        elif name.lower() not in ONLY_RUN:
            found.add(IMPORTED_AS.get(name.lower(), name.replace("-", "_")))
    return found


def imported(*folders: str) -> dict[str, list[str]]:
    """Foreign top-level module -> the files of the folders that import it."""
    ours = {path.stem for path in (ROOT / "tests").rglob("*") if path.suffix in ("", ".py")}
    own = {"clasp_calib", "tools", "benchmarks", *ours}
    found: dict[str, list[str]] = {}
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        if path.relative_to(ROOT).as_posix().startswith(ELSEWHERE):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            for name in {name.split(".")[0] for name in names} - own - sys.stdlib_module_names:
                found.setdefault(name, []).append(str(path.relative_to(ROOT)))
    return found


CORE = modules(PROJECT["dependencies"])
OPTIONAL = {extra: modules(of) for extra, of in EXTRAS.items() if extra != "dev"}


def test_what_the_package_imports_is_declared():
    declared = CORE.union(*OPTIONAL.values())
    undeclared = {name: files for name, files in imported("clasp_calib").items() if name not in declared}
    assert not undeclared, f"pyproject.toml does not declare {undeclared}"


@pytest.mark.parametrize("extra", [None, *OPTIONAL])
def test_what_is_declared_is_imported(extra: str | None):
    unused = (CORE if extra is None else OPTIONAL[extra]) - set(imported("clasp_calib"))
    assert not unused, f"pyproject.toml declares for {extra or 'everybody'} what nobody imports: {sorted(unused)}"


def test_every_extra_is_named_where_it_is_missed():
    said = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "clasp_calib").rglob("*.py"))
    for extra in OPTIONAL:
        assert f"clasp-calib[{extra}]" in said or f'("{extra}", ' in said, f"no message names the extra {extra}"


def test_what_tools_and_tests_import_is_declared_for_developers():
    declared = CORE | modules(EXTRAS["dev"])
    undeclared = {name: files for name, files in imported("tools", "tests").items() if name not in declared}
    assert not undeclared, f"the extra dev of pyproject.toml does not declare {undeclared}"


def test_versions_that_are_developed_with_are_those_of_what_is_declared():
    pinned = re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    missing = CORE - {IMPORTED_AS.get(name.lower(), name.replace("-", "_")) for name in pinned}
    assert not missing, f"constraints.txt pins no version of {sorted(missing)}"
