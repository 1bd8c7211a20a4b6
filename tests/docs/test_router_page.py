"""What the page on routers says of its first commands is what a newcomer sees."""

import re
import shlex

import pytest
from pages import ROOT, blocks, commands

from clasp_calib.cli import run

PAGE = ROOT / "docs" / "guide" / "router.md"


def test_the_example_is_refused_as_the_page_says(capsys, tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    words = commands(PAGE)[:3]
    assert [one[1] for one in words] == ["route", "label", "train-router"]
    ended, said = [], []
    for one in words:
        ended.append(run(one[1:]))
        said.append(capsys.readouterr())
    assert ended == [0, 0, 2], shlex.join(words[2])
    (shown,) = (block for block in blocks(PAGE, "text") if block.startswith("error:"))
    # What the trained router gets right may differ between versions of scikit-learn; the packaged one is the same.
    right = r"router gets \S+ \(mean over classes \S+\)"
    page, told = (re.sub(right, "", " ".join(text.split())) for text in (shown, said[2].err))
    assert page.removesuffix(" ...") in told
    assert "class counting" in said[0].out
    assert not (tmp_path / "my-run" / "router.safetensors").exists()
