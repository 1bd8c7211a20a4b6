"""``clasp-calib label``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clasp_calib.commands.options import DEFAULT_RUN, JsonOption, LimitOption, RunOption
from clasp_calib.commands.output import emit, say, show
from clasp_calib.common.errors import InputError
from clasp_calib.common.run_directory import RunDirectory

if TYPE_CHECKING:
    import pyarrow as pa

BACKENDS = ("keywords",)


def label(
    samples: Annotated[Path, typer.Argument(help="Parquet, JSONL or CSV with a column 'question'.")],
    run: RunOption = DEFAULT_RUN,
    out: Annotated[Path | None, typer.Option(help="Output; default: labels.parquet of the run.")] = None,
    backend: Annotated[str, typer.Option(help=f"Who labels: {', '.join(BACKENDS)}.")] = "keywords",
    taxonomy: Annotated[Path | None, typer.Option(help="Your own taxonomy (YAML).")] = None,
    rules: Annotated[Path | None, typer.Option(help="Your own keyword rules (YAML).")] = None,
    column: Annotated[
        list[str], typer.Option(help="Map a column: OURS=YOURS, for instance question=prompt; repeatable.")
    ] = [],  # noqa: B006 - typer copies it
    relabel: Annotated[bool, typer.Option("--relabel", help="Label rows anew that bring an intent or class.")] = False,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give every question an intent and a class.

    Example: clasp-calib label examples/samples.jsonl --run my-run
    """
    from clasp_calib.common.samples import read_table, rebased, samples_of, write_table
    from clasp_calib.router_labeling.labelers import KeywordLabeler
    from clasp_calib.router_labeling.rules import load_rules
    from clasp_calib.router_labeling.table import label_table
    from clasp_calib.router_labeling.taxonomy import load_taxonomy

    if backend not in BACKENDS:
        raise InputError(f"unknown backend {backend!r}; expected one of {', '.join(BACKENDS)}")
    known = load_taxonomy(taxonomy)
    override = load_rules(rules, known)
    table = read_table(samples, _mapping(column), limit)
    samples_of(table, samples.parent)
    directory = RunDirectory(run)
    target = out or directory.labels
    labelled = label_table(table, KeywordLabeler(override, known), known, override, classes_from_gold=not relabel)
    directory.record(
        "label",
        {"samples": samples, "out": target, "backend": backend, "taxonomy": known.digest, "rules": override.digest},
    )
    write_table(rebased(table, samples.parent, directory.samples.parent), directory.samples)
    write_table(rebased(labelled, samples.parent, target.parent), target)
    counts = {c: labelled["class"].to_pylist().count(c) for c in known.classes}
    sources = {s: labelled["source"].to_pylist().count(s) for s in dict.fromkeys(labelled["source"].to_pylist())}
    agreement = _agreement(labelled)
    if as_json:
        emit(
            {
                "out": target,
                "rows": labelled.num_rows,
                "classes": counts,
                "sources": sources,
                "agreement": agreement,
            }
        )
        return
    show(f"{labelled.num_rows} questions", ["class", "questions"], [[c, str(n)] for c, n in counts.items()])
    say(f"decided by: {', '.join(f'{source} {n}' for source, n in sources.items())}")
    if agreement is not None:
        say(f"agreement with the gold classes in the table: {agreement:.1%}")
    say(f"written to {target}; next: clasp-calib cache-features --run {run}")


def _mapping(columns: list[str]) -> dict[str, str]:
    pairs = [entry.partition("=") for entry in columns]
    for ours, equals, theirs in pairs:
        if not (ours and equals and theirs):
            raise InputError(f"--column takes OURS=YOURS, for instance question=prompt; got {ours + equals + theirs!r}")
    return {ours: theirs for ours, _, theirs in pairs}


def _agreement(table: "pa.Table") -> float | None:
    if "gold_class" not in table.column_names:
        return None
    pairs = list(zip(table["class"].to_pylist(), table["gold_class"].to_pylist(), strict=True))
    return float(sum(a == b for a, b in pairs) / len(pairs))
