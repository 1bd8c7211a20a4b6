"""Every command's help has an example, and the examples work from the repository's root, one after the other.

They run as printed, but for the names that stand for a user's own run directory and picture.
"""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer
from pages import ROOT, execute

from clasp_calib.commands.app import app
from clasp_calib.reference import model as reference

GROUP = typer.main.get_command(app)
ARTIFACT = tuple(f"artifact {name}" for name in ("show", "verify", "export", "set-router", "bump", "diff"))
CACHE = tuple(f"cache {name}" for name in ("info", "verify", "repair", "gc", "export"))
PATH = (
    *("doctor", "rules test", "rules lint", "serve-labeler", "label", "compare-labels"),
    *(
        "train-labeler",
        "train-router",
        "route",
        "sample",
        "cache-features",
        *CACHE,
        "search",
        "evaluate",
        "compare",
        "ablate",
    ),
    *("artifact part", *ARTIFACT, "publish", "generate", "reproduce", "quickstart"),
)
"""All commands, in an order in which each finds what it needs; the last goes through most of the others again."""
NETWORK = ("pull",)
"""Commands whose examples need the Hub; tests/artifacts/test_hub.py gives them to a double of it."""

HARNESS = ("vlmevalkit",)
"""Commands whose examples need another's harness; tests/in_harness gives it to them."""

VLLM = ("bench-serve",)
"""Commands whose examples need vLLM; tests/on_vllm gives it to them."""


def leaves(group, name=""):
    """Full name -> command, of all commands that are not groups."""
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, f"{name}{word} ")
        else:
            yield name + word, command


def example(command) -> list[str]:
    """The words of the example in a command's help; it may run over several lines, up to the end of its paragraph."""
    (found,) = re.findall(r"^\s*Example: (.+(?:\n\s*\S.*)*)", command.help, re.MULTILINE)
    return shlex.split(" ".join(found.split()))


def run_examples(place: Path, names: Sequence[str]) -> None:
    picture = str(ROOT / "examples" / "images" / "30000000.png")
    run = str(place / "run")
    instead = {"my-run": run, "picture.png": picture}
    instead |= {f"my-run/{name}": f"{run}/{name}" for name in ("artifact", "labels.parquet", "fusion-alone")}
    instead |= {name: f"{run}/{name}" for name in ("served", "features.json", "my-head.safetensors")}
    instead["my-questions.jsonl"] = str(ROOT / "tests" / "router_labeling" / "intents_tuning.jsonl")
    more = {"quickstart": ["--run", str(place / "quickstart"), "--pictures", "2", "2"]}
    # The 27 example questions make a router that does worse than the packaged one.
    more["train-router"] = ["--force"]
    known = dict(leaves(GROUP))
    for name in names:
        words = [instead.get(word, word) for word in example(known[name])]
        assert words[: 1 + len(name.split())] == ["clasp-calib", *name.split()]
        execute([*words, *more.get(name, [])])


def test_the_path_goes_through_every_command():
    assert sorted([*PATH, *NETWORK, *HARNESS, *VLLM]) == sorted(name for name, _ in leaves(GROUP))


@pytest.mark.slow
@pytest.mark.skipif(not (reference.MODEL / "config.json").is_file(), reason="the embedded model is not there")
def test_the_examples_work_on_the_embedded_model(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    run_examples(tmp_path, PATH)
