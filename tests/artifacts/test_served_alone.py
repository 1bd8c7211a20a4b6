"""A server that takes four rooms and their few dependencies, and none of the toolkit."""

import ast
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("runtime", "artifacts", "common", "router_labeling")
NEEDED = ("torch", "transformers", "safetensors", "pydantic", "pillow", "jinja2", "pyyaml")
"""What serving imports, with what these bring."""
ABSENT = ("optuna", "h5py", "vllm", "sklearn", "pyarrow", "matplotlib", "xxhash", "scipy")
SERVE = """
import sys
from importlib.util import find_spec
assert not [name for name in sys.argv[3:] if find_spec(name)], "the environment is not as bare as it should be"
sys.path.append(sys.argv[2])
from pathlib import Path
import torch
from made_routers import made_router
from tiny_models import IMAGE, tiny_llava
from clasp_calib import clasp
from clasp_calib.artifacts.artifact import Artifact
model = tiny_llava(decoder_layers=17)
ids = torch.tensor([[1, *[IMAGE] * 16, 40, 41, 42]])
inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(1, 3, 56, 56)}
with clasp(model, sys.argv[1], budget="8", classes="object") as pruner:
    output = model.generate(**inputs, max_new_tokens=3, do_sample=False)
assert output.shape == (1, 23), output.shape
Artifact.load(sys.argv[1]).with_router(made_router()).save("routed")
with clasp(model, "routed", budget="8", classes="auto", questions="How many dogs are there?") as pruner:
    assert model.generate(**inputs, max_new_tokens=3, do_sample=False).shape == (1, 23)
assert Path(sys.modules["clasp_calib"].__file__).parent == Path.cwd() / "clasp_calib"
print("served")
"""


def copy_of_the_rooms(place: Path) -> None:
    """The package with nothing in it but what a server takes."""
    package = ROOT / "clasp_calib"
    for room in ROOMS:
        shutil.copytree(package / room, place / "clasp_calib" / room, ignore=shutil.ignore_patterns("__pycache__"))
    for path in package.glob("__init__.py*"):
        shutil.copy(path, place / "clasp_calib")


@pytest.mark.slow
def test_an_artifact_is_served_without_the_toolkit(tmp_path):
    venv.create(tmp_path / "bare", with_pip=True)
    python = str(tmp_path / "bare" / "bin" / "python")

    def run(*words: str) -> str:
        ended = subprocess.run([python, *words], capture_output=True, text=True, check=False, cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr[-3000:]
        return ended.stdout

    pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(ROOT / "constraints.txt"))
    run(*pip, *NEEDED)
    copy_of_the_rooms(tmp_path)
    golden = ROOT / "tests" / "artifacts" / "golden" / "format-1"
    assert run("-c", SERVE, str(golden), str(ROOT / "tests"), *ABSENT).strip() == "served"


def test_the_rooms_of_a_server_import_no_other():
    found = {}
    for room in ROOMS:
        for path in (ROOT / "clasp_calib" / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                for name in _names(node):
                    if name.startswith("clasp_calib") and name.split(".")[1:2] not in [[room] for room in ROOMS]:
                        found[str(path)] = name
    assert not found


def test_what_a_server_loads_imports_only_what_a_server_has(tmp_path):
    """Of the package's own modules: transformers itself imports more where there is more."""
    copy_of_the_rooms(tmp_path)
    code = (
        "import sys\n"
        "from importlib import import_module\n"
        "from pkgutil import walk_packages\n"
        "from clasp_calib import artifacts, clasp, runtime\n"
        "for room in (artifacts, runtime):\n"
        "    for module in walk_packages(room.__path__, f'{room.__name__}.'):\n"
        "        import_module(module.name)\n"
        "print(*(module.__file__ for name, module in sys.modules.items() if name.split('.')[0] == 'clasp_calib'))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    loaded = [Path(name) for name in ended.stdout.split()]
    assert len(loaded) > 30
    assert all(tmp_path in path.parents for path in loaded)
    modules = [ast.parse(path.read_text(encoding="utf-8")).body for path in loaded]
    imported = {name.split(".")[0] for module in modules for node in module for name in _names(node)}
    assert imported - sys.stdlib_module_names - {"clasp_calib"} <= {*NEEDED, "numpy", "PIL", "yaml"}


def _names(node: ast.AST) -> list[str]:
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    return [*names, str(node.module)] if isinstance(node, ast.ImportFrom) else names
