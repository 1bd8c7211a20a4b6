"""The wheel holds the whole package, data files among it, and nothing that develops it."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy, since setuptools takes up what an earlier build left in the tree."""
    place = tmp_path_factory.mktemp("wheel")
    for folder in ("clasp_calib", "tools", "tests"):
        shutil.copytree(ROOT / folder, place / "copy" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place / "copy")
    command = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(place), "."]
    subprocess.run([sys.executable, "-m", "pip", *command], cwd=place / "copy", check=True)
    (path,) = place.glob("*.whl")
    return zipfile.ZipFile(path)


def test_what_lies_in_the_package_is_in_the_wheel_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "clasp_calib").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == package
    suffixes = {Path(name).suffix for name in held}
    assert suffixes >= {".safetensors", ".json", ".yaml", ".jinja", ".ttf", ".typed"}


def test_licences_go_with_it(wheel: zipfile.ZipFile) -> None:
    names = {Path(name).name for name in wheel.namelist() if ".dist-info/licenses/" in name}
    assert names == {"LICENSE", "LICENSE_DEJAVU.txt"}
