"""``clasp-calib generate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from clasp_calib.runtime.answering import Answer

AUTO = "auto"


def generate(
    image: Annotated[Path, typer.Option(help="The picture.")],
    prompt: Annotated[str, typer.Option(help="The question.")],
    artifact: Annotated[
        Path | None,
        typer.Option(
            help="Artifact directory or org/name@version; default: artifact/ of the run, or default pruning "
            "if --budget is given."
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Tokens or percent; of an artifact one of its own, by default its first.")
    ] = None,
    label: Annotated[
        str,
        typer.Option("--class", help="Class of the question, or 'auto': by the artifact's router, or rules."),
    ] = AUTO,
    compare: Annotated[bool, typer.Option("--compare", help="Answer without pruning too, and compare.")] = False,
    overlay: Annotated[
        Path | None, typer.Option(help="Draw the kept tokens over the picture: relevance blue, coverage red.")
    ] = None,
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
    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.calib.scoring.prompting import PROMPT, Prompter
    from clasp_calib.runtime.adapters import adapter_for
    from clasp_calib.runtime.answering import answer
    from clasp_calib.runtime.budgeting import schedule_for
    from clasp_calib.runtime.pictures import open_picture
    from clasp_calib.runtime.pruner import clasp, prune
    from clasp_calib.runtime.routing import classes_of
    from clasp_calib.runtime.schedule import parse_budget

    place = artifact or RunDirectory(run).artifact
    known = None if artifact is None and budget and not place.exists() else Artifact.load(place)
    picture = open_picture(image)
    name = parse_budget(budget).name if budget else known.budgets[0] if known else ""
    if label == AUTO:
        (label,) = classes_of([prompt], known.router if known else None)
    if known:
        known.rho(name, label)
    loaded, processor = load(model, device, dtype)
    template = known.manifest.prompt if known else PROMPT
    # The processor itself repeats the image token.
    text = Prompter(processor, loaded, template).text(prompt)
    if known is None and getattr(processor, "chat_template", None):
        parts = [{"type": "image"}, {"type": "text", "text": prompt}]
        text = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    # Without an artifact: the model's own layer, every token by its relevance.
    pruning = (
        clasp(loaded, known, budget=name, classes=label)
        if known
        else prune(loaded, schedule=schedule_for(loaded, name), rho=1.0)
    )
    pruned = answer(loaded, processor, picture, text, max_new_tokens, pruning)
    full = answer(loaded, processor, picture, text, max_new_tokens) if compare else None
    if overlay:
        _draw(overlay, pruned, adapter_for(loaded).grid(pruned.inputs), processor, picture)
    if as_json:
        emit(
            {
                "answer": pruned.text,
                "class": label,
                "artifact": str(place) if known else None,
                "budget": name,
                "kept": pruned.kept,
                "mean_tokens": pruned.stats.mean_tokens[0] if pruned.stats else None,
                "seconds": pruned.seconds,
                **({"overlay": str(overlay)} if overlay else {}),
                **({"unpruned": {"text": full.text, "seconds": full.seconds}} if full else {}),
            }
        )
        return
    say(pruned.text)
    kept = " / ".join(map(str, pruned.kept)) or "all"
    how = f"class {label}" if known else "no artifact (own layer, rho 1)"
    say(f"{how}, budget {name}: {kept} visual tokens kept at the stages, {pruned.seconds:.2f} s")
    if full:
        say(f"without pruning: {full.text} ({full.seconds:.2f} s, {full.seconds / pruned.seconds:.2f} times as long)")
    if overlay:
        say(f"kept tokens drawn in {overlay}")


def _draw(path: Path, answered: "Answer", grid: tuple[int, int], processor: Any, picture: Any) -> None:
    from clasp_calib.common.errors import InputError
    from clasp_calib.report.overlay import Panel, draw_overlay
    from clasp_calib.runtime.answering import seen_picture

    if answered.stats is None:
        raise InputError("a budget of 100% prunes nothing, so there is nothing to draw; drop --overlay")
    panels = [
        Panel(
            f"from layer {stage.start}: {len(stage.kept(0))} kept, "
            f"{len(stage.pivots(0))} for relevance, {len(stage.medoids(0))} for coverage",
            stage.pivots(0),
            stage.medoids(0),
        )
        for stage in answered.stats.stages
    ]
    try:
        draw_overlay(seen_picture(answered, processor, picture), grid, panels, path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write the overlay to {path} ({error}); give a path such as overlay.png") from error
