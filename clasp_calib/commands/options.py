"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from clasp_calib.commands.used_by import UnusedWith, UsedBy
from clasp_calib.common.run_directory import DEFAULT_RUN

RunOption = Annotated[
    Path, typer.Option("--run", help="Run directory, where each command finds what the last one left.")
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Model directory, Hub id, or 'reference' for the embedded model; default: the run's model, or reference.",
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="Torch device, such as cpu or cuda:0.")]
DtypeOption = Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Random seed.")]
TaxonomyOption = Annotated[Path | None, typer.Option("--taxonomy", help="Your own taxonomy (YAML).")]
ClassFromOption = Annotated[
    str | None,
    typer.Option("--class-from", help="Column of the table whose values are the classes, in place of a taxonomy."),
    UnusedWith("taxonomy"),
]
DefaultClassOption = Annotated[
    str | None,
    typer.Option("--default-class", help="Class of samples without a value there; default: they are refused."),
    UsedBy("class_from"),
]
RulesOption = Annotated[Path | None, typer.Option("--rules", help="Your own keyword rules (YAML).")]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Use only the first N rows.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
SamplesOption = Annotated[
    Path | None,
    typer.Option(
        "--samples",
        help="A sample table, or files of a benchmark, such as pope:FILE; default: labels.parquet of the run, or the "
        "table that it began with.",
    ),
]
ImageRootOption = Annotated[
    Path | None,
    typer.Option(
        "--image-root", help="Directory that pictures' paths are relative to; default: that of the sample file."
    ),
]
CacheOption = Annotated[Path | None, typer.Option("--cache", help="Feature cache; default: cache/ of the run.")]
RecomputeOption = Annotated[
    bool, typer.Option("--recompute", help="Run the vision tower for every look at a picture, without a cache.")
]
ArtifactOption = Annotated[
    Path | None,
    typer.Option("--artifact", help="Artifact directory or org/name@version; default: artifact/ of the run."),
]
StrictOption = Annotated[
    bool,
    typer.Option("--strict", help="Refuse a model with other weights than the artifact's, rather than warn of it."),
]
CheckpointOption = Annotated[
    str | None, typer.Option("--checkpoint", help="Accept a model with other weights by the digest in the warning.")
]
BudgetOption = Annotated[
    list[str],
    typer.Option("--budget", help="Mean visual tokens that a decoder layer works on, or a percentage; repeatable."),
]
BudgetsOption = Annotated[
    list[str] | None, typer.Option("--budget", help="Budget of the artifact; default: all of them; repeatable.")
]
PerClassOption = Annotated[
    int | None, typer.Option("--per-class", min=1, help="Samples of a class, at most; default: all.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, help="Processes on this machine that score; default: one a core, as memory allows."
    ),
    UsedBy("engine", "local"),
]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1, help="Threads that each of them computes with.")]
EngineOption = Annotated[Literal["local", "ray"], typer.Option("--engine", help="Where to score.")]
RayAddressOption = Annotated[
    str | None,
    typer.Option("--ray-address", help="Ray cluster to join; default: start one here."),
    UsedBy("engine", "ray"),
]
DevicesOption = Annotated[
    str | None,
    typer.Option(
        "--devices", help="Devices that processes take in turn, such as cuda:0,cuda:1, one each; default: --device."
    ),
    UsedBy("engine", "local"),
]
MethodOption = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="Of the space's selectors this one alone: clasp, fastv ...; auto: clasp and the best three beside it.",
    ),
]
Profile = Literal["layered", "input"]
Relevance = Literal["class-token", "mean-attention", "none"]
DEFAULT_BUDGETS = ["192"]
__all__ = ["DEFAULT_RUN"]
