"""``clasp-calib cache-features``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

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

Durability = Literal["process", "power"]


def cache_features(
    run: RunOption = DEFAULT_RUN,
    model: ModelOption = REFERENCE,
    samples: SamplesOption = None,
    layers: Annotated[str, typer.Option(help="'auto', or hidden_states indices such as 3,9,15,23.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Cache directory; default: cache/ of the run.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures of one forward.")] = 8,
    verify: Annotated[bool, typer.Option(help="Check all that is cached first; encode damaged entries again.")] = False,
    precision: Annotated[str, typer.Option(help="Keep features as float16, bfloat16 or int8.")] = "float16",
    durability: Annotated[
        Durability, typer.Option(help="What a stored picture survives: 'process' a kill, 'power' a power cut too.")
    ] = "process",
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
    from clasp_calib.cache.encode import auto_layers
    from clasp_calib.cache.encode import cache_features as encode
    from clasp_calib.common.samples import read_table, samples_of
    from clasp_calib.runtime.adapters import adapter_for

    directory = RunDirectory(run)
    table = samples or directory.labels
    pictured = samples_of(read_table(table, limit=limit), table.parent)
    chosen = _layers(layers)
    loaded, processor = load(model, device, dtype)
    adapter = adapter_for(loaded)
    wanted = chosen or auto_layers(adapter.vision_layers, adapter.own_layer)
    target = out or directory.cache
    if plan:
        from clasp_calib.cache.plan import plan_cache

        say_plan(
            plan_cache(loaded, processor, pictured, wanted, target, batch_size=batch_size, precision=precision),
            as_json,
        )
        return
    if pixels:
        from clasp_calib.cache.pixels import cache_pixels

        directory.record("cache-features", {"model": model, "samples": table, "pixels": True, "out": target})
        made = cache_pixels(processor, pictured, target, batch_size=batch_size, verify=verify, durability=durability)
        say_pixels(made, target, as_json)
        return
    directory.record("cache-features", {"model": model, "samples": table, "layers": wanted, "out": target})
    report = encode(
        loaded,
        processor,
        pictured,
        wanted,
        target,
        batch_size=batch_size,
        device=device,
        verify=verify,
        precision=precision,
        durability=durability,
    )
    if as_json:
        emit({"out": target, **vars(report)})
        return
    say(
        f"{report.unique} different pictures of {report.pictures} samples: {report.encoded} encoded, "
        f"{report.skipped} were there; layers {', '.join(map(str, report.layers))}; "
        f"{report.bytes / 2**20:.1f} MiB; {report.seconds:.1f} s"
    )
    say(f"cached in {target}; next: clasp-calib search --run {run} --model {model} --budget 192")


def _layers(text: str) -> tuple[int, ...] | None:
    if text == "auto":
        return None
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise InputError(f"--layers takes 'auto' or numbers such as 3,9,15,23; got {text!r}") from None
