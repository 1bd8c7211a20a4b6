"""What the pages say about the rest of the repository: links, commands, targets, and numbers that code decides."""

import ast
import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml
from pages import DOCS, NOT_RUN, PAGES, ROOT, blocks, commands, execute
from PIL import Image

import clasp_calib
from benchmarks.bench import PARTS
from clasp_calib.calib.scoring.metrics import METRICS
from clasp_calib.commands.app import app
from clasp_calib.common.samples import CLASSES
from clasp_calib.reference.benchmark import (
    FIRST_SEED,
    PICTURES,
    VERSION,
    scene_questions,
    split_scene,
    write_benchmark,
)
from clasp_calib.reference.families import HELD_OUT, INTENT, TRAIN
from clasp_calib.reference.vocabulary import COLORS, KINDS, PATTERNS, SIZES, WORDS
from clasp_calib.runtime.schedule import Schedule, parse_budget, solve_schedule
from clasp_calib.search.space import default_space, read_space
from clasp_calib.search.strategies.halving import Halving
from tools.reference.by_design import BY_DESIGN
from tools.reference.shape import BLOCKS, DECODER_LAYERS, DEFAULT, VISION_LAYERS, VISION_WIDTH, WORKING
from tools.reference.supervision import CLUTTER, KIND, patch_labels
from tools.reference.training import tower
from tools.reference.training.batches import LAYERS

GENERATED = ROOT / "docs" / "reference" / "python.md"
"""Its blocks are signatures."""
EXAMPLES = ROOT / "examples"


def page(name: str) -> str:
    """Text of the page of that name; names are unique over all shelves."""
    (path,) = (ROOT / "docs").rglob(name)
    return path.read_text(encoding="utf-8")


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
    linked = set(re.findall(r"\]\((\w[\w/-]*\.md)\)", page("index.md")))
    assert linked == {path.relative_to(ROOT / "docs").as_posix() for path in DOCS} - {"index.md"}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_have_the_options_that_pages_give_them(path: Path):
    for words in commands(path):
        if words[0] != "clasp-calib":
            assert words[0] in (*NOT_RUN, "python")
            continue
        command, rest = typer.main.get_command(app), words[1:]
        while hasattr(command, "commands"):
            command, rest = command.commands[rest[0]], rest[1:]
        rest = rest[: rest.index("--")] if "--" in rest else rest
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known, words


def test_the_quickstart_lists_the_extras():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert [f"`{extra}`" for extra in extras if extra != "dev"] == [
        name for name, *_ in table("quickstart.md", "| extra |")
    ]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_python_can_be_read_and_uses_public_names(path: Path):
    for block in blocks(path, "python"):
        if path != GENERATED:
            ast.parse(block)
    used = set(re.findall(r"\bcc\.(\w+)", path.read_text(encoding="utf-8")))
    assert used <= set(clasp_calib.__all__)


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
    _, scores = page("method.md").split("### Scores")
    assert re.findall(r"^\| `(\w+)` \| .* \| .* \|$", scores, re.MULTILINE) == list(METRICS)


def test_search_shows_the_default_space(tmp_path: Path):
    text, *changes = blocks(ROOT / "docs" / "guide" / "search.md", "yaml")
    (tmp_path / "space.yaml").write_text(text)
    shown = read_space(tmp_path / "space.yaml")
    default = default_space((3, 9, 15, 20, 23), 23)
    assert shown == default
    assert yaml.safe_load(text)["rhos"] == [0.25, 0.5, 0.75, 1.0]
    for change in changes:
        (tmp_path / "space.yaml").write_text(yaml.safe_dump({**yaml.safe_load(text), **yaml.safe_load(change)}))
        assert read_space(tmp_path / "space.yaml") != default


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
    plan = Halving(first=6, eta=2.0).plan(candidates, samples)
    rows = re.findall(r"^\| (\d+) \| (\d+|the race ends) \|$", text, re.MULTILINE)
    assert [(int(seen), keep) for seen, keep in rows] == [
        *((end, str(keep)) for end, keep in plan[:-1]),
        (plan[-1][0], "the race ends"),
    ]
    assert (Halving(first=6, eta=2.0).most(candidates, samples), samples * candidates) == (most, all_of_them)
    assert len(default_space((3, 9, 15, 20, 23), 23).candidates(24, 23)) == candidates


def test_the_embedded_model_page_counts_what_the_benchmark_draws():
    text = prose("embedded-model.md")
    scenes = [split_scene("test", number) for number in range(300)]
    shown = [int((patch_labels(scene)[:, KIND] > 0).sum()) for scene in scenes]
    said, share = re.search(r"On average (\d+) of 576 patches .*? \((\d+) %\)", text).groups()
    assert np.mean(shown) == pytest.approx(int(said), abs=3)
    assert 100 * np.mean(shown) / 576 == pytest.approx(int(share), abs=0.6)
    assert {min(len(s.things) for s in scenes), max(len(s.things) for s in scenes)} == {20, 24}
    assert f"20 to 24 things of {len(KINDS)} kinds, {len(COLORS)} colours and {len(SIZES)} sizes" in text
    assert f"{len(INTENT)} families" in text
    assert f"{len(KINDS)} kinds, {len(WORDS)} words" in text


def table(name: str, header: str) -> list[list[str]]:
    """The rows of the table whose header begins so."""
    lines = page(name).splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith(header)) + 2
    end = next(number for number in range(begin, len(lines)) if not lines[number].startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[begin:end]]


def test_the_datasheet_counts_what_the_splits_hold():
    rows = {name: cells for name, *cells in table("datasheet.md", "| a picture holds |")}
    for place, split in enumerate(("test", "challenge")):
        scenes = [split_scene(split, number) for number in range(300)]
        kinds = [patch_labels(scene)[:, KIND] for scene in scenes]
        counted = {
            "things": [len(scene.things) for scene in scenes],
            "different kinds of thing": [len({thing.kind for thing in scene.things}) for scene in scenes],
            "pieces of clutter": [len(scene.clutter) for scene in scenes],
            "patches that show something": [(of > 0).sum() for of in kinds],
            "the same without clutter": [((of > 0) & (of != CLUTTER)).sum() for of in kinds],
        }
        for name, numbers in counted.items():
            mean, least, most = map(float, re.findall(r"[\d.]+", rows[name][place]))
            assert np.mean(numbers) == pytest.approx(mean, rel=0.02)
            assert least <= min(numbers) <= max(numbers) <= most
        for part in ("person", "sign", "plate", "arrow"):
            share = 100 * np.mean([getattr(scene, part) is not None for scene in scenes])
            assert share == pytest.approx(float(rows[part][place].rstrip("%")), abs=5)


def test_the_datasheet_counts_families_and_difficulties():
    asked = [question for number in range(400) for question in scene_questions(split_scene("test", number))]
    rows = table("datasheet.md", "| class | family |")
    assert [(label, family.strip("`")) for label, family, *_ in rows] == [(of, f) for f, (_, of) in INTENT.items()]
    for label, name, trained, held_out, share, *_ in rows:
        family = name.strip("`")
        assert (int(trained), int(held_out)) == (len(set(TRAIN[family])), len(HELD_OUT[family]))
        of_class = [question for question in asked if question.label == label]
        found = 100 * np.mean([question.family == family for question in of_class])
        assert found == pytest.approx(float(share.rstrip("%")), abs=7)
    for label, _, *shares, _ in table("datasheet.md", "| class | questions |"):
        for difficulty, share in zip(("easy", "medium", "hard"), shares, strict=True):
            found = np.mean([question.difficulty == difficulty for question in asked if question.label == label])
            assert 100 * found == pytest.approx(float(share.rstrip("%")), abs=7)


def test_the_datasheet_states_splits_and_vocabulary():
    text = prose("datasheet.md")
    rows = [(name.strip("`"), first, count) for name, first, count, _ in table("datasheet.md", "| split |")]
    assert rows == [(split, f"{first:,}", str(PICTURES.get(split, 0))) for split, first in FIRST_SEED.items()]
    assert text.startswith(f"# Datasheet of the embedded benchmark Version {VERSION}.")
    things = f"{len(KINDS)} kinds, {len(COLORS)} colours, {len(SIZES)} sizes and {len(PATTERNS)} patterns"
    assert things in text
    assert f"one of {len(WORDS)} words" in text


def _edits(first: list[str], second: list[str]) -> int:
    """Words to change, add or leave out to get from one to the other."""
    row = list(range(len(second) + 1))
    for i, word in enumerate(first, 1):
        before, row = row, [i]
        for j, other in enumerate(second, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (word != other)))
    return row[-1]


def test_the_datasheet_says_how_near_held_out_wordings_are():
    def words(form: str) -> list[str]:
        return re.findall(r"[a-z{}_]+", form.lower())

    near = reordered = 0
    for family, forms in HELD_OUT.items():
        trained = [words(form) for form in TRAIN[family]]
        for form in map(words, forms):
            if min(_edits(form, other) for other in trained) == 1:
                near += 1
            elif any(sorted(form) == sorted(other) for other in trained):
                reordered += 1
    said = f"{near} of {sum(map(len, HELD_OUT.values()))} are one word away from a training wording of their family"
    text = prose("datasheet.md")
    assert said in text
    assert f"{reordered} more have the same words in another order" in text


@pytest.mark.parametrize(
    "name",
    [
        "below-random.md",
        "calibration.md",
        "comparison.md",
        "decisions.md",
        "easy-vqa.md",
        "reference-report.md",
        "reference-seeds.md",
        "seeding.md",
    ],
)
def test_results_of_the_embedded_model_say_what_was_put_in_by_design(name: str):
    assert " ".join(BY_DESIGN.split()) in prose(name)


@pytest.mark.parametrize("name", PARTS)
def test_what_is_measured_again_has_its_script(name: str):
    script, *_ = PARTS[name].command.removeprefix("-m ").split()
    assert (ROOT / (script if "/" in script else f"{script.replace('.', '/')}.py")).is_file()


def test_the_embedded_model_page_describes_the_model_that_is_built():
    text = prose("embedded-model.md")
    assert f"{VISION_LAYERS} layers of width {VISION_WIDTH}; layer {VISION_LAYERS - 1} is projected" in text
    of_decoder = f"width {DEFAULT.width}, {DEFAULT.heads} heads, MLP width {DEFAULT.mlp}"
    assert f"Llama of {DECODER_LAYERS} layers, {of_decoder}" in text
    parts = {name: span for span, name, _ in table("embedded-model.md", "| dimensions |")}
    detail, position = tower.DETAIL, tower.POSITION
    assert parts == {
        "position": f"{position.start}-{position.stop - 1}",
        "detail": f"{detail.start}-{detail.stop - 1}",
        "meaning": f"{detail.stop}-{VISION_WIDTH - 1}",
    }
    assert f"Block {tower.BLUR} is frozen" in text
    for role, attention, mlp, _ in table("embedded-model.md", "| blocks |"):
        blocks = [block for block in BLOCKS if block.role == role]
        assert attention == ", ".join(str(block.attention) for block in blocks)
        assert mlp == ("none" if role == "score" else ", ".join(str(block.mlp) for block in blocks))
    scoring = sum(block.role == "score" for block in BLOCKS)
    changing = len(WORKING) - scoring
    assert f"Of the {DECODER_LAYERS} decoder layers {changing} change the states" in text
    assert f"The other {DECODER_LAYERS - changing} change no state" in text
    assert f"a mixture of the layers {LAYERS[0]}, {LAYERS[1]} and {LAYERS[2]}" in text


@pytest.mark.slow
def test_the_commands_of_the_embedded_model_page_run(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in commands(ROOT / "docs" / "design" / "embedded-model.md"):
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
