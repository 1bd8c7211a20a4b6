"""``clasp-calib cache-features``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clasp_calib.cache.feature_options import Durability, Layout, PrecisionName
from clasp_calib.commands.cache_reports import say_pixels, say_plan
from clasp_calib.commands.models import load
from clasp_calib.commands.options import (
    DEFAULT_RUN,
    REFERENCE,
    DeviceOption,
    DtypeOption,
    JsonOption,
    LimitOption,
    ModelOption,
    RunOption,
    SamplesOption,
)
from clasp_calib.commands.output import emit, say
from clasp_calib.common.errors import InputError
from clasp_calib.common.run_directory import RunDirectory

if TYPE_CHECKING:
    from clasp_calib.cache.cache_report import CacheReport, Times

_NAMED = 5
"""Odd pictures that are printed; the others stand in the file."""


def cache_features(
    run: RunOption = DEFAULT_RUN,
    model: ModelOption = REFERENCE,
    samples: SamplesOption = None,
    layers: Annotated[str, typer.Option(help="'auto', or hidden_states indices such as 3,9,15,23.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Cache directory; default: cache/ of the run.")] = None,
    batch_size: Annotated[int, typer.Option("--batch", "--batch-size", min=1, help="Pictures of one forward.")] = 8,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that decode pictures; 0: threads; default: by the number of pictures."),
    ] = None,
    strict: Annotated[bool, typer.Option(help="End with exit code 1 if a picture had to be left out.")] = False,
    verify: Annotated[bool, typer.Option(help="Check all that is cached first; encode damaged entries again.")] = False,
    precision: Annotated[PrecisionName, typer.Option(help="Keep features as float16, bfloat16 or int8.")] = "float16",
    durability: Annotated[
        Durability, typer.Option(help="What a stored picture survives: 'process' a kill, 'power' a power cut too.")
    ] = "process",
    mode: Annotated[
        Layout,
        typer.Option(help="'direct': fast, local file systems only; 'portable': any; 'auto': by the file system."),
    ] = "auto",
    pixels: Annotated[
        bool, typer.Option("--pixels", help="Cache decoded pixels only; search runs the tower on them.")
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
    from clasp_calib.cache.encode import cache_features as encode
    from clasp_calib.cache.feature_options import FeatureOptions
    from clasp_calib.common.sample_sources import load_samples
    from clasp_calib.runtime.adapters import adapter_for

    directory = RunDirectory(run)
    table = samples or directory.labels
    pictured = load_samples(table, limit=limit)
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
    loaded, processor = load(model, device, dtype)
    target = out or directory.cache
    if plan:
        from clasp_calib.cache.plan import plan_cache

        say_plan(plan_cache(loaded, processor, pictured, target, options), as_json)
        return
    adapter = adapter_for(loaded)
    kept = {"pixels": True} if pixels else {"layers": options.layers_of(adapter.vision_layers, adapter.own_layer)}
    directory.record("cache-features", {"model": model, "samples": table, **kept, "out": target})
    report = encode(loaded, processor, pictured, target, options)
    if as_json:
        shown = {**vars(report), "times": _times(report.times), "odd": [vars(odd) for odd in report.odd]}
        emit({"out": target, **shown})
    elif pixels:
        say_pixels(report, target)
    else:
        _say(report, target)
        say(f"cached in {target}; next: clasp-calib search --run {run} --model {model} --budget 192")
    if strict and report.left_out:
        raise typer.Exit(1)


def _say(report: "CacheReport", target: Path) -> None:
    from clasp_calib.cache.odd import FILE

    say(
        f"{report.unique} different pictures of {report.pictures} samples: {report.encoded} encoded, "
        f"{report.skipped} were there; layers {', '.join(map(str, report.layers))}; "
        f"{report.bytes / 2**20:.1f} MiB; {report.seconds:.1f} s"
    )
    times, workers = report.times, f"{report.workers} processes" if report.workers else "threads"
    if report.encoded:
        say(
            f"encoder: {times.encode:.1f} s at work, {times.wait_for_pictures:.1f} s waiting for pictures, "
            f"{times.wait_for_cache:.1f} s ({times.share_waited_for_cache:.1%}) for the cache; beside it {workers} "
            f"decoded {times.decode:.1f} s and preprocessed {times.preprocess:.1f} s, a writer took {times.write:.1f} s"
        )
    for odd in report.odd[:_NAMED]:
        say(f"{'left out' if odd.left_out else 'not seen whole'}: {odd.image}: {odd.reason}")
    if report.odd:
        left_out = len(report.left_out)
        say(f"{left_out} files left out, {len(report.odd) - left_out} not seen whole; all are named in {target / FILE}")


def _times(times: "Times") -> dict[str, float]:
    return {**vars(times), "share_waited_for_cache": times.share_waited_for_cache}


def _layers(text: str) -> tuple[int, ...] | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise InputError(f"--layers takes 'auto' or numbers such as 3,9,15,23; got {text!r}") from None
