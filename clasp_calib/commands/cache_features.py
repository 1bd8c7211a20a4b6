"""``clasp-calib cache-features``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from clasp_calib.cache.feature_options import Durability, Layout, PrecisionName
from clasp_calib.commands.cache_reports import say_plan, say_report
from clasp_calib.commands.models import load
from clasp_calib.commands.options import (
    DEFAULT_RUN,
    DeviceOption,
    DtypeOption,
    ImageRootOption,
    JsonOption,
    LimitOption,
    ModelOption,
    RunOption,
    SamplesOption,
)
from clasp_calib.commands.output import emit
from clasp_calib.commands.used_by import UnusedWith
from clasp_calib.common.errors import InputError
from clasp_calib.common.pruning_options import DEFAULT_STARTS
from clasp_calib.common.run_directory import RunDirectory


def cache_features(
    run: RunOption = DEFAULT_RUN,
    model: ModelOption = None,
    samples: SamplesOption = None,
    image_root: ImageRootOption = None,
    layers: Annotated[
        str, typer.Option(help="'auto', or hidden_states indices such as 3,9,15,23."), UnusedWith("pixels")
    ] = "auto",
    out: Annotated[Path | None, typer.Option(help="Cache directory; default: cache/ of the run.")] = None,
    batch_size: Annotated[
        int, typer.Option("--batch", "--batch-size", min=1, help="Pictures in one forward pass.")
    ] = 8,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that decode pictures; 0: threads; default: by the number of pictures."),
        UnusedWith("plan"),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="End with exit code 1 if a picture had to be left out."),
        UnusedWith("plan"),
        UnusedWith("pixels"),
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="First check everything that is cached; encode damaged entries again."),
        UnusedWith("plan"),
    ] = False,
    precision: Annotated[
        PrecisionName, typer.Option(help="Keep features as float16, bfloat16 or int8."), UnusedWith("pixels")
    ] = "float16",
    durability: Annotated[
        Durability,
        typer.Option(help="What stored pictures survive: 'process' a kill, 'power' a power cut too."),
        UnusedWith("plan"),
    ] = "process",
    mode: Annotated[
        Layout,
        typer.Option(help="'direct': fast, local file systems only; 'portable': any; 'auto': by the file system."),
        UnusedWith("plan"),
    ] = "auto",
    pixels: Annotated[
        bool,
        typer.Option("--pixels", help="Cache decoded pixels only; search runs the tower on them."),
        UnusedWith("plan"),
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what a cache would cost and whether it pays, and stop.")
    ] = False,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the frozen vision tower once over each picture and keep the layers that the search may mix.

    A killed run goes on where it stopped when the same command is given again.

    Example: clasp-calib cache-features --run my-run --model reference
    """
    from clasp_calib.api.caching import FeatureOptions, cache_features as cached, plan_features, starts_for
    from clasp_calib.common.places import Places
    from clasp_calib.common.sample_sources import load_samples

    directory = RunDirectory(run)
    given = load_samples(samples or directory.table, limit=limit, pictures=directory.pictures, image_root=image_root)
    target = out or directory.cache
    options = FeatureOptions(
        layers=_layers(layers),
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        verify=verify,
        durability=durability,
        layout=mode,
        pixels=pixels,
    )
    loaded, processor = load(model, device, dtype, run)
    places = Places.of(run, features=target)
    if plan:
        say_plan(plan_features(loaded, processor, given, run=places, options=options), as_json)
        return
    directory.remember_table(samples)
    report = cached(loaded, processor, given, run=places, options=options)
    if as_json:
        times = {**vars(report.times), "share_waited_for_cache": report.times.share_waited_for_cache}
        emit({"out": target, **vars(report), "times": times, "odd": [vars(odd) for odd in report.odd]})
    else:
        more: list[tuple[str, Path | str | None]] = [
            ("--samples", samples),
            ("--image-root", image_root),
            ("--cache", out),
        ]
        starts = starts_for(loaded)
        more += [] if starts == DEFAULT_STARTS else [("--starts", ",".join(map(str, starts)))]
        told = "".join(f" {option} {value}" for option, value in more if value is not None)
        say_report(report, target, pixels, f"clasp-calib search --run {run}{told} --budget 33%")
    if strict and report.left_out:
        raise typer.Exit(1)


def _layers(text: str) -> tuple[int, ...] | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise InputError(f"--layers takes 'auto' or numbers such as 3,9,15,23; got {text!r}") from None
