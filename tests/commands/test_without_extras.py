"""The path of a calibration where nothing is installed but what the package itself requires."""

import subprocess
import sys

import pytest

PATH = """
import sys

from clasp_calib.api.installation import OPTIONAL

sys.modules |= {name: None for name in (*OPTIONAL, "scipy")}

from clasp_calib.cli import run

samples, model, out = sys.argv[1:]
named = ["--run", out, "--model", model]
for words in (
    ["doctor"],
    ["label", samples, "--run", out],
    ["cache-features", *named],
    ["search", *named, "--budget", "50%", "--per-class", "2", "--starts", "2,6,15"],
    ["evaluate", *named, "--timed", "0"],
):
    assert run(words) == 0, words
"""


@pytest.mark.slow
def test_a_calibration_needs_no_extra(begun, tmp_path):
    command = [sys.executable, "-W", "error::UserWarning", "-c", PATH, begun.samples, begun.model, tmp_path / "run"]
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("pip install 'clasp-calib[") == 6
    assert ended.stderr.count("going on without plots") == 2
    assert (tmp_path / "run" / "report" / "evaluation-test.md").is_file()
