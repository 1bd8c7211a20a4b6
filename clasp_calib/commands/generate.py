"""``clasp-calib generate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clasp_calib.commands.models import load
from clasp_calib.commands.options import (
    DEFAULT_RUN,
    CheckpointOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    Profile,
    RunOption,
    StrictOption,
)
from clasp_calib.commands.output import emit, say
from clasp_calib.common.errors import InputError
from clasp_calib.common.media import VIDEOS, is_video
from clasp_calib.common.run_directory import RunDirectory

if TYPE_CHECKING:
    from clasp_calib.runtime.answering import Answer


def generate(
    prompt: Annotated[str, typer.Option(help="The question.")],
    image: Annotated[
        list[Path] | None, typer.Option(help="The picture; repeatable for a question about several.")
    ] = None,
    video: Annotated[
        Path | None, typer.Option(help="A video instead; its frames are those that the processor chooses.")
    ] = None,
    artifact: Annotated[
        Path | None,
        typer.Option(
            help="Artifact directory or org/name@version; default: artifact/ of the run, or default pruning "
            "if --budget is given."
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Tokens or percent; with an artifact one of its budgets, by default the largest.")
    ] = None,
    profile: Annotated[
        Profile | None,
        typer.Option(
            help="Without an artifact: drop tokens between decoder layers (the default where it is possible), or "
            "before them."
        ),
    ] = None,
    label: Annotated[
        str,
        typer.Option("--class", help="Class of the question; 'auto' asks the artifact's router, or the packaged one."),
    ] = "auto",
    compare: Annotated[bool, typer.Option("--compare", help="Answer without pruning too, and compare.")] = False,
    overlay: Annotated[
        Path | None, typer.Option(help="Draw the kept tokens over the picture: relevance blue, coverage red.")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(help="Prompt template with <image> and {question}; default: the artifact's, or the model's own."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 64,
    run: RunOption = DEFAULT_RUN,
    model: ModelOption = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    strict: StrictOption = False,
    checkpoint: CheckpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer one question about pictures or a video with pruned visual tokens.

    Example: clasp-calib generate --run my-run --image examples/images/30000000.png --prompt "What is this place?"
    """
    from clasp_calib.api.generating import GenerationOptions, generate as answer
    from clasp_calib.artifacts.artifact import Artifact

    if bool(image) == (video is not None):
        raise InputError("generate takes a picture (--image) or a video (--video); give one of the two")
    if video is not None and not is_video(video):
        raise InputError(f"{video} is not named as a video; expected a name that ends in {', '.join(VIDEOS)}")
    place = artifact or RunDirectory(run).artifact
    known = None if artifact is None and budget and not place.exists() else Artifact.load(place)
    options = GenerationOptions(label, max_new_tokens, compare, strict, checkpoint, template, profile)
    loaded, media = load(model, device, dtype, run), video or image
    found = answer(*loaded, media, prompt, artifact=known, budget=budget, options=options)
    pruned, full = found.answer, found.unpruned
    if overlay:
        found.draw(overlay)
    if as_json:
        emit(
            {
                "answer": found.text,
                "class": found.class_,
                "artifact": str(place) if known else None,
                "budget": found.budget,
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
    how = f"class {found.class_}" if known else "no artifact (own layer, rho 1)"
    say(f"{how}, budget {found.budget}: {kept} visual tokens kept at the stages, {pruned.seconds:.2f} s")
    if full:
        say(f"without pruning: {full.text} ({full.seconds:.2f} s; {_speed(pruned, full)})")
    if overlay:
        say(f"kept tokens drawn in {overlay}")


def _speed(pruned: "Answer", full: "Answer") -> str:
    """Which of the two was faster, and by how much."""
    ratio = full.seconds / pruned.seconds
    return f"pruned {ratio:.2f} times as fast" if ratio >= 1 else f"pruned {1 / ratio:.2f} times slower"
