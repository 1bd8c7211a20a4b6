"""A writer that is killed at every system call that changes a file loses nothing that it acknowledged."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def compiler() -> list[str] | None:
    """A C compiler: the system's, or the one that the wheel ``ziglang`` brings."""
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return [found]
    return [sys.executable, "-m", "ziglang", "cc"] if importlib.util.find_spec("ziglang") else None


@pytest.fixture(scope="module")
def killer(tmp_path_factory) -> Path:
    words = compiler()
    if words is None or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and a C compiler: a system's cc, or `pip install ziglang`")
    library = tmp_path_factory.mktemp("killer") / "killer.so"
    subprocess.run([*words, "-shared", "-fPIC", "-O1", "-o", library, HERE / "killer.c", "-ldl"], check=True)
    return library


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "least"), [("direct", 60), ("portable", 40)])
def test_a_kill_at_every_write_call_loses_nothing_acknowledged(killer, tmp_path, layout, least):
    environment = {**os.environ, "LD_PRELOAD": str(killer), "PYTHONPATH": str(HERE)}
    words = [sys.executable, HERE / "store_support.py", tmp_path, "7", layout]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, torn = map(int, done.stdout.split())
    # Three or four shards of some calls each, four batches with their commits: fewer means that calls are not seen.
    assert before == torn > least
