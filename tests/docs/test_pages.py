"""What the pages say about the rest of the repository: links, commands, targets, and numbers that code decides."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml
from pages import DOCS, NOT_RUN, PAGES, ROOT, blocks, commands, execute
from PIL import Image

from clasp_calib.calib.metrics import METRICS
from clasp_calib.cli import app
from clasp_calib.common.samples import CLASSES
from clasp_calib.reference.benchmark import FIRST_SEED, write_benchmark
from clasp_calib.reference.model import DECODER_LAYERS, TRAINED_BLOCKS, VISION_LAYERS, WIDTH
from clasp_calib.reference.questions import WORDINGS
from clasp_calib.reference.scenes import draw_scene
from clasp_calib.reference.supervision import KIND, patch_labels
from clasp_calib.reference.vocabulary import COLORS, KINDS, SIZES, WORDS
from clasp_calib.runtime.schedule import Schedule, parse_budget, solve_schedule
from clasp_calib.search.space import default_space, read_space
from clasp_calib.search.strategies.halving import cost, rungs

EXAMPLES = ROOT / "examples"


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def prose(name: str) -> str:
    """A page without its line breaks."""
    return " ".join(page(name).split())


def anchors(path: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path):
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    for link in links:
        if not link.startswith("https://"):
            file, _, anchor = link.partition("#")
            target = (path.parent / file).resolve() if file else path
            assert target.exists(), f"{path.name} links to {link}"
            assert not anchor or anchor in anchors(target), f"{path.name} links to {link}"


def test_the_index_leads_to_every_page():
    linked = set(re.findall(r"\]\((\w[\w-]*\.md)\)", page("index.md")))
    assert linked == {path.name for path in DOCS} - {"index.md"}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_have_the_options_that_pages_give_them(path: Path):
    for words in commands(path):
        if words[0] != "clasp-calib":
            assert words[0] in (*NOT_RUN, "python")
            continue
        command, rest = typer.main.get_command(app), words[1:]
        while hasattr(command, "commands"):
            command, rest = command.commands[rest[0]], rest[1:]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known, words


def test_make_has_the_targets_that_pages_name():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    named = {target for path in PAGES for target in re.findall(r"[`$] ?make ([\w-]+)", path.read_text("utf-8"))}
    assert {"quickstart", "test", "test-slow", "lint"} <= named <= targets


def test_method_states_the_schedules_that_are_solved():
    rows = re.findall(r"^\| (\d+) \| ([\d, ]+) \| ([\d.]+) \| ([\d.]+) \|$", page("method.md"), re.MULTILINE)
    assert [row[0] for row in rows] == ["192", "128", "64"]
    for budget, counts, mean, later in rows:
        schedule = solve_schedule(parse_budget(budget), 576, 32)
        assert schedule.counts == tuple(map(int, counts.split(",")))
        assert schedule.mean_tokens == pytest.approx(float(mean), abs=0.0051)
        moved = Schedule(576, 32, (3, 7, 16), schedule.counts)
        assert moved.mean_tokens == pytest.approx(float(later), abs=0.0051)
        floor = re.search(r"which is ([\d.]+) for 576 tokens and 32 layers", prose("method.md"))
        assert floor
        assert schedule.floor == pytest.approx(float(floor[1]), abs=0.0051)


def test_method_names_the_metrics_that_there_are():
    assert re.findall(r"^\| `(\w+)` \| .* \| .* \|$", page("method.md"), re.MULTILINE) == list(METRICS)


def test_search_shows_the_default_space(tmp_path: Path):
    (text,) = blocks(ROOT / "docs" / "search.md", "yaml")
    (tmp_path / "space.yaml").write_text(text)
    shown = read_space(tmp_path / "space.yaml")
    default = default_space((3, 9, 15, 20, 23), 23)
    assert shown == default
    assert yaml.safe_load(text)["rhos"] == [0.25, 0.5, 0.75, 1.0]


def test_search_describes_a_race_as_it_runs():
    text = page("search.md")
    candidates, samples, most, all_of_them = (
        int(re.search(pattern, prose("search.md"))[1])
        for pattern in (
            r"With (\d+) candidates",
            r"candidates and (\d+) samples",
            r"at most (\d+) evaluations",
            r"would take (\d+)",
        )
    )
    plan = rungs(samples, candidates, first=6, eta=2.0)
    rows = re.findall(r"^\| (\d+) \| (\d+|the race ends) \|$", text, re.MULTILINE)
    assert [(int(seen), keep) for seen, keep in rows] == [
        *((rung.samples, str(rung.keep)) for rung in plan[:-1]),
        (plan[-1].samples, "the race ends"),
    ]
    assert (cost(plan, candidates), samples * candidates) == (most, all_of_them)
    assert len(default_space((3, 9, 15, 20, 23), 23).candidates(24, 23)) == candidates


def test_reference_counts_what_the_benchmark_draws():
    text = prose("reference.md")
    scenes = [draw_scene(FIRST_SEED["test"] + number) for number in range(300)]
    shown = [int((patch_labels(scene)[:, KIND] > 0).sum()) for scene in scenes]
    said, share = re.search(r"On average (\d+) of 576 patches .* \((\d+) %\)", text).groups()
    assert np.mean(shown) == pytest.approx(int(said), abs=1)
    assert 100 * np.mean(shown) / 576 == pytest.approx(int(share), abs=0.5)
    assert {min(len(s.things) for s in scenes), max(len(s.things) for s in scenes)} == {4, 9}
    assert "four to nine things" in text
    assert f"{len(WORDINGS)} families" in text
    assert f"{len(KINDS)} kinds, {len(COLORS)} colours and {len(SIZES)} sizes" in text
    assert f"{len(KINDS)} kinds, {len(WORDS)} words" in text


def test_reference_describes_the_model_that_is_built():
    text = prose("reference.md")
    *first, last = map(str, TRAINED_BLOCKS)
    assert f"layers {', '.join(first)} and {last}; the other {DECODER_LAYERS - len(TRAINED_BLOCKS)}" in text
    assert f"{VISION_LAYERS} layers of width {WIDTH}; layer {VISION_LAYERS - 1} is projected" in text
    assert f"Llama of {DECODER_LAYERS} layers, width {WIDTH}" in text


@pytest.mark.slow
def test_the_commands_of_the_reference_page_run(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in commands(ROOT / "docs" / "reference.md"):
        execute(words)
    assert (tmp_path / "my-benchmark" / "contact-sheet.png").is_file()
    assert (tmp_path / "my-reference" / "config.json").is_file()


def test_the_examples_are_what_their_page_says(tmp_path: Path):
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    words = re.search(r"`python -m clasp_calib.reference.benchmark examples (.*?)`", text)[1].split()
    assert words == ["--format", "jsonl", "--calibration", "1", "--selection", "1", "--test", "1"]
    drawn = write_benchmark(tmp_path, dict.fromkeys(("calibration", "selection", "test"), 1), "jsonl")
    assert drawn.read_bytes() == (EXAMPLES / "samples.jsonl").read_bytes()
    for path in sorted((EXAMPLES / "images").iterdir()):
        with Image.open(path) as ours, Image.open(tmp_path / "images" / path.name) as again:
            assert np.array_equal(np.asarray(ours), np.asarray(again))
    rows = [json.loads(line) for line in drawn.read_text().splitlines()]
    assert f"{len(rows)} questions" in text
    assert {row["gold_class"] for row in rows} == set(CLASSES)
    assert {row["split"] for row in rows} == {"calibration", "selection", "test"}
