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

    from clasp_calib.router_labeling.journal import Asker
    from clasp_calib.router_labeling.taxonomy import Taxonomy

BACKENDS = ("keywords", "server", "vllm")


def label(
    samples: Annotated[Path, typer.Argument(help="Parquet, JSONL or CSV with a column 'question'.")],
    run: RunOption = DEFAULT_RUN,
    out: Annotated[Path | None, typer.Option(help="Output; default: labels.parquet of the run.")] = None,
    backend: Annotated[str, typer.Option(help=f"Who labels: {', '.join(BACKENDS)}.")] = "keywords",
    base_url: Annotated[
        str | None, typer.Option(help="Backend server: root of its API, such as http://127.0.0.1:8000/v1.")
    ] = None,
    labeler_model: Annotated[
        str | None, typer.Option(help="Model of the backends server (default: its only one) and vllm (Qwen/Qwen3-8B).")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of that model; kept with the labels.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Backend server: requests in flight.")] = 32,
    timeout: Annotated[float, typer.Option(min=0.1, help="Backend server: seconds that a request may take.")] = 120,
    api_key: Annotated[
        str | None, typer.Option(envvar="OPENAI_API_KEY", help="Backend server: bearer token.", show_default=False)
    ] = None,
    chunk: Annotated[int, typer.Option(min=1, help="Backend vllm: questions between two saves.")] = 512,
    engine: Annotated[str, typer.Option(help="Backend vllm: more arguments of vllm.LLM, as a JSON object.")] = "{}",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Ask again what failed earlier.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="End with 1 if a question could not be labelled.")] = False,
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

    What a language model answers is kept in labelling/ of the run directory as it comes: killed at any moment, the
    same command goes on and asks nothing twice.

    Example: clasp-calib label examples/samples.jsonl --run my-run
    """
    from clasp_calib.common.samples import read_table, rebased, samples_of, write_table
    from clasp_calib.router_labeling.journal import JournalledLabeler
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
    directory.prepare()
    target = out or directory.labels
    if backend == "keywords":
        labeler: KeywordLabeler | JournalledLabeler = KeywordLabeler(override, known)
    else:
        if backend == "server":
            asker = _server(base_url, labeler_model, revision, concurrency, timeout, api_key, known)
        else:
            asker = _offline(labeler_model, revision, chunk, engine, known)
        labeler = JournalledLabeler(asker, directory.labelling, retry_failed)
    labelled = label_table(table, labeler, known, override, classes_from_gold=not relabel)
    failed: dict[str, str] = {}
    if isinstance(labeler, JournalledLabeler):
        failed = labeler.failed
        if labeler.resumed and not as_json:
            say(f"{labeler.resumed} different questions were answered before, see {labeler.path}")
    directory.record(
        "label",
        {
            **{"samples": samples, "out": target, "backend": backend, "labeler": labeler.fingerprint},
            **{"taxonomy": known.digest, "rules": override.digest},
        },
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
                "failed": failed,
            }
        )
    else:
        show(f"{labelled.num_rows} questions", ["class", "questions"], [[c, str(n)] for c, n in counts.items()])
        say(f"decided by: {', '.join(f'{source} {n}' for source, n in sources.items())}")
        if agreement is not None:
            say(f"agreement with the gold classes in the table: {agreement:.1%}")
        if failed:
            question, reason = next(iter(failed.items()))
            say(f"{len(failed)} questions could not be labelled and are {known.default_intent}, such as {question!r}")
            say(f"  {reason}; try them again with --retry-failed")
        say(f"written to {target}; next: clasp-calib cache-features --run {run}")
    if strict and failed:
        raise typer.Exit(1)


def _server(
    base_url: str | None,
    model: str | None,
    revision: str | None,
    concurrency: int,
    timeout: float,
    api_key: str | None,
    taxonomy: "Taxonomy",
) -> "Asker":
    from clasp_calib.router_labeling.server import ServerLabeler

    if base_url is None:
        raise InputError(
            "the backend 'server' needs --base-url, such as http://127.0.0.1:8000/v1; "
            "start a server with `clasp-calib serve-labeler`"
        )
    return ServerLabeler(base_url, taxonomy, model, revision, concurrency, timeout, api_key=api_key)


def _offline(model: str | None, revision: str | None, chunk: int, engine: str, taxonomy: "Taxonomy") -> "Asker":
    import json

    from clasp_calib.router_labeling.offline import OfflineLabeler
    from clasp_calib.router_labeling.serving import DEFAULT_MODEL

    try:
        settings = json.loads(engine)
    except json.JSONDecodeError:
        settings = None
    if not isinstance(settings, dict):
        raise InputError(f"--engine takes a JSON object, for instance '{{\"max_num_seqs\": 64}}'; got {engine!r}")
    return OfflineLabeler(model or DEFAULT_MODEL, taxonomy, revision, chunk, settings)


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
