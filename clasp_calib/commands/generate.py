"""``clasp-calib generate``."""

from pathlib import Path
from typing import Annotated

import typer

from clasp_calib.commands.models import load
from clasp_calib.commands.options import (
    DEFAULT_RUN,
    REFERENCE,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    RunOption,
)
from clasp_calib.commands.output import emit, say
from clasp_calib.common.run_directory import RunDirectory

AUTO = "auto"


def generate(
    image: Annotated[Path, typer.Option(help="The picture.")],
    prompt: Annotated[str, typer.Option(help="The question.")],
    artifact: Annotated[Path | None, typer.Option(help="Artifact directory; default: artifact/ of the run.")] = None,
    budget: Annotated[str | None, typer.Option(help="One of the artifact's budgets; default: its first.")] = None,
    label: Annotated[str, typer.Option("--class", help="Class of the question, or 'auto': by keyword rules.")] = AUTO,
    compare: Annotated[bool, typer.Option("--compare", help="Answer without pruning too, and compare.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 64,
    run: RunOption = DEFAULT_RUN,
    model: ModelOption = REFERENCE,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    as_json: JsonOption = False,
) -> None:
    """Answer one question about one picture with pruned visual tokens.

    Example: clasp-calib generate --run my-run --image examples/images/30000000.png --prompt "What is this place?"
    """
    from clasp_calib.artifacts.files import read_artifact
    from clasp_calib.calib.prompting import Prompter
    from clasp_calib.router_labeling.rules import load_rules
    from clasp_calib.router_labeling.taxonomy import load_taxonomy
    from clasp_calib.runtime.adapters import adapter_for
    from clasp_calib.runtime.answering import answer
    from clasp_calib.runtime.pictures import open_picture
    from clasp_calib.runtime.schedule import parse_budget

    known = read_artifact(artifact or RunDirectory(run).artifact)
    picture = open_picture(image)
    name = parse_budget(budget).name if budget else known.budgets[0]
    known.counts(name)
    if label == AUTO:
        taxonomy = load_taxonomy(None)
        rule = load_rules(None, taxonomy).match(prompt)
        label = taxonomy.class_of(rule.intent) if rule else taxonomy.default_class
    known.rho(name, label)
    loaded, processor = load(model, device, dtype)
    text = Prompter(processor, adapter_for(loaded).tokens_per_image, known.manifest.prompt).text(prompt)
    pruned = answer(loaded, processor, picture, text, max_new_tokens, known, name, label)
    full = answer(loaded, processor, picture, text, max_new_tokens) if compare else None
    if as_json:
        result = {
            "answer": pruned.text,
            "class": label,
            "budget": name,
            "kept": pruned.kept,
            "seconds": pruned.seconds,
        }
        emit(result | ({"unpruned": vars(full)} if full else {}))
        return
    say(pruned.text)
    kept = " / ".join(map(str, pruned.kept))
    say(f"class {label}, budget {name}: {kept} visual tokens kept at the stages, {pruned.seconds:.2f} s")
    if full:
        say(f"without pruning: {full.text} ({full.seconds:.2f} s, {full.seconds / pruned.seconds:.2f} times as long)")
