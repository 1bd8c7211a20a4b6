"""``import clasp_calib``: lazy, complete, and honest about what it has."""

import subprocess
import sys

import pytest

import clasp_calib as cc

HEAVY = ("torch", "transformers", "vllm", "optuna", "h5py", "matplotlib", "datasets")


@pytest.mark.parametrize("line", ["import clasp_calib", "from clasp_calib import *"])
def test_importing_loads_nothing_heavy(line):
    code = f"{line}\nimport sys\nprint(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_everything_public_is_there_and_documented():
    assert dir(cc) == sorted([*cc.__all__, "__version__"])
    for name in cc.__all__:
        assert getattr(cc, name).__doc__


def test_what_is_not_there_is_named():
    with pytest.raises(AttributeError, match=r"no attribute 'calibrat'.*calibrate"):
        cc.calibrat  # noqa: B018
