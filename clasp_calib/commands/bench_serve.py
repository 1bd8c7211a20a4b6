"""``clasp-calib bench-serve``."""

from pathlib import Path
from typing import Annotated

import typer

from clasp_calib.commands.models import named
from clasp_calib.commands.options import (
    DEFAULT_RUN,
    ArtifactOption,
    ImageRootOption,
    JsonOption,
    ModelOption,
    RunOption,
    SamplesOption,
    SeedOption,
)
from clasp_calib.commands.output import emit, say, show
from clasp_calib.common.errors import InputError
from clasp_calib.common.run_directory import RunDirectory


def bench_serve(
    extra: Annotated[
        list[str] | None, typer.Argument(help="After --: further arguments of `vllm serve`, for both servers.")
    ] = None,
    artifact: ArtifactOption = None,
    budget: Annotated[
        str | None, typer.Option(help="Budget of the artifact; needed if it has several.", show_default=False)
    ] = None,
    run: RunOption = DEFAULT_RUN,
    model: ModelOption = None,
    samples: SamplesOption = None,
    image_root: ImageRootOption = None,
    split: Annotated[str, typer.Option(help="The split to ask, or all: of traffic that is no calibration's.")] = "test",
    concurrency: Annotated[
        str, typer.Option(help="Requests in flight, one run each; every run asks all questions.")
    ] = "1,8,32",
    limit: Annotated[int | None, typer.Option(min=1, help="Ask only N questions, drawn by --seed.")] = None,
    seed: SeedOption = 0,
    vllm: Annotated[
        Path | None, typer.Option(help="Path of the vllm command; by default that beside this Python, or else on PATH.")
    ] = None,
    wait: Annotated[float, typer.Option(min=1, help="Seconds to wait for each server.")] = 900,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Directory for the servers' logs, every answer and the numbers; default: a new temporary one, which "
            "is named.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what pruning brings on this machine: vLLM's server without and with an artifact, asked the same.

    The two run one after the other with the same flags. Warm-up requests do not count, and before each run the server's
    caches are emptied. Shown are requests a second, time to first token (TTFT), time per output token (TPOT), prompt
    tokens, the tokens that a request holds keys and values of at its end, and accuracy with the paired difference and
    95 % intervals by picture.

    Example: clasp-calib bench-serve --run my-run --budget 192 --limit 100 --concurrency 1,8 -- --max-model-len 2048
    """
    from clasp_calib.api.benching import BenchOptions, bench_serve as measured
    from clasp_calib.common.sample_sources import load_samples

    directory = RunDirectory(run)
    options = BenchOptions(_numbers(concurrency), split, limit, seed, wait)
    table = load_samples(samples or directory.table, pictures=directory.pictures, image_root=image_root)
    _, source = named(model, directory)
    place = artifact or directory.artifact
    report = measured(place, table, source, budget, options=options, out=out, vllm=vllm, flags=extra or ())
    if as_json:
        emit(report.as_dict())
        return
    for of in report.runs:
        title = f"budget {report.budget}, {report.questions} questions, {of.concurrency} at a time"
        show(title, report.HEADER, of.rows())
    say(f"logs, answers and numbers are in {report.out}; brackets are 95 % intervals, of accuracy the difference")


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--concurrency {text!r} is not numbers of requests; expected such as 1,8,32") from None
