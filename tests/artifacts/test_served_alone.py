"""A server with the runtime and its few dependencies, and none of the toolkit, in an environment of its own."""

import subprocess
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("torch", "transformers", "safetensors", "pydantic", "pillow", "rich", "jinja2", "pyyaml")
"""What serving imports, with what these bring."""
ABSENT = ("optuna", "h5py", "vllm", "sklearn", "pyarrow", "matplotlib", "xxhash")
SERVE = """
import sys
from importlib.util import find_spec
assert not [name for name in sys.argv[3:] if find_spec(name)], "the environment is not as bare as it should be"
sys.path.insert(0, sys.argv[2])
from pathlib import Path
import torch
from made_routers import made_router
from tiny_models import IMAGE, tiny_llava
from clasp_calib import clasp
from clasp_calib.artifacts.files import read_artifact, write_artifact
model = tiny_llava(decoder_layers=17)
ids = torch.tensor([[1, *[IMAGE] * 16, 40, 41, 42]])
inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(1, 3, 56, 56)}
with clasp(model, sys.argv[1], budget="8", classes="object") as pruner:
    output = model.generate(**inputs, max_new_tokens=3, do_sample=False)
assert output.shape == (1, 23), output.shape
write_artifact(read_artifact(Path(sys.argv[1])).with_router(made_router()), Path("routed"))
with clasp(model, "routed", budget="8", classes="auto", questions="How many dogs are there?") as pruner:
    assert model.generate(**inputs, max_new_tokens=3, do_sample=False).shape == (1, 23)
print("served")
"""


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
    run(*pip, "--no-deps", str(ROOT))
    golden = ROOT / "tests" / "artifacts" / "golden" / "format-1"
    assert run("-c", SERVE, str(golden), str(ROOT / "tests"), *ABSENT).strip() == "served"
