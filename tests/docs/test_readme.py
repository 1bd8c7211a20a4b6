"""The README's commands and its Python, executed on a tiny model."""

import pytest
from own_data import lay_out
from pages import NOT_RUN, ROOT, blocks, commands, execute

README = ROOT / "README.md"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("readme")
    (questions,) = blocks(README, "json")
    # One question cannot be in three splits: the README's own is asked in each, about a picture of its own.
    pictures = {"calibration": "street", "selection": "road", "test": "lane"}
    lines = [
        line.replace('"id": "1"', f'"id": "{split}", "split": "{split}"').replace("street.jpg", f"{picture}.jpg")
        for split, picture in pictures.items()
        for line in questions.splitlines()
    ]
    lay_out(place, lines)
    return place


def test_the_commands_and_the_python_run(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    in_python, applied = blocks(README, "python")
    names: dict = {}
    exec(in_python, names)
    assert names["report"].macro(192).mean >= 0
    assert names["cc"].Artifact.load("my-artifact").budgets == ("192",)
    ours = [words for words in commands(README) if words[0] not in NOT_RUN]
    assert [words[1] for words in ours] == ["label", "cache-features", "search", "evaluate", "generate"]
    for words in ours:
        execute(words)
    exec(applied, names)
    layers = names["pruner"].stats.tokens[0]
    assert (len(layers), sum(layers) / len(layers)) == (16, pytest.approx(192, abs=0.5))
    assert str(layers) in capsys.readouterr().out


def test_the_results_block_can_be_filled():
    text = README.read_text(encoding="utf-8")
    assert text.count("<!-- results:begin -->") == text.count("<!-- results:end -->") == 1
    assert text.index("<!-- results:begin -->") < text.index("<!-- results:end -->")
