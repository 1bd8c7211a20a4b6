"""The scripts of examples/, executed as a reader would."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT

from clasp_calib.reference.model import MODEL


@pytest.mark.slow
@pytest.mark.skipif(not (MODEL / "config.json").is_file(), reason="the embedded model is not there")
def test_the_calibration_runs_from_samples_to_a_pruned_answer(tmp_path: Path):
    words = [sys.executable, str(ROOT / "examples" / "calibrate.py")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "calibrated at 128 tokens: " in done.stdout
    (tokens,) = (line for line in done.stdout.splitlines() if line.startswith("visual tokens in each decoder layer: "))
    assert tokens.endswith("60)")
    assert list(tmp_path.iterdir()) == []
