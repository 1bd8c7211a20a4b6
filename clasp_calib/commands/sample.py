"""``clasp-calib sample``."""

from pathlib import Path
from typing import Annotated

import typer

from clasp_calib.commands.options import (
    DEFAULT_RUN,
    ClassFromOption,
    DefaultClassOption,
    ImageRootOption,
    JsonOption,
    RunOption,
    SeedOption,
    TaxonomyOption,
)
from clasp_calib.commands.output import emit, say, show
from clasp_calib.common.run_directory import RunDirectory


def sample(
    labels: Annotated[
        Path | None,
        typer.Argument(
            help="Labelled table, or with --class-from files of a benchmark, such as pope:FILE; default: "
            "labels.parquet of the run.",
            show_default=False,
        ),
    ] = None,
    run: RunOption = DEFAULT_RUN,
    per_class: Annotated[
        int, typer.Option(min=1, help="Calibration samples of each class; selection and test get half as many.")
    ] = 2000,
    balanced: Annotated[
        bool, typer.Option("--balanced/--natural", help="As many of each class, or the classes in the table's shares.")
    ] = True,
    out: Annotated[Path | None, typer.Option(help="The drawn table; default: sample.parquet of the run.")] = None,
    taxonomy: TaxonomyOption = None,
    class_from: ClassFromOption = None,
    default_class: DefaultClassOption = None,
    image_root: ImageRootOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Draw calibration, selection and test samples from a large labelled table; no picture is in two of them.

    The same table and seed always give the same samples. Give what was drawn to the next commands with --samples.

    Example: clasp-calib sample my-run/labels.parquet --run my-run --per-class 2
    """
    from clasp_calib.api.draws import draw_samples
    from clasp_calib.common.sample_sources import load_samples

    directory = RunDirectory(run)
    directory.prepare()
    path, target = labels or directory.table, out or directory.sample
    given = load_samples(path, pictures=directory.pictures, image_root=image_root)
    chosen, drawn = draw_samples(
        given,
        per_class=per_class,
        balanced=balanced,
        taxonomy=taxonomy,
        class_from=class_from,
        default_class=default_class,
        seed=seed,
        run=run,
    )
    chosen.save(target)
    told = {"labels": path, "out": target, "per_class": per_class, "balanced": balanced, "seed": seed}
    classes = {"taxonomy": taxonomy, "class_from": class_from, "default_class": default_class}
    directory.record("sample", told | classes)
    if as_json:
        counts = {"counts": drawn.counts, "wanted": drawn.wanted, "short": drawn.short}
        emit({"out": target, "rows": len(chosen), **counts})
        return
    header = ["class", *drawn.wanted]
    show(
        f"{len(chosen)} of {drawn.rows} samples",
        header,
        [[label, *(str(counts[split]) for split in drawn.wanted)] for label, counts in drawn.counts.items()],
    )
    for kind, missing in drawn.short.items():
        lacking = ", ".join(f"{number} of {drawn.wanted[split]} for {split}" for split, number in missing.items())
        say(f"short: {kind} lacks {lacking}")
    say(f"written to {target}; next: clasp-calib cache-features --run {run} --samples {target}")
