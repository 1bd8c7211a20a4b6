"""``clasp-calib label``."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clasp_calib.commands.options import (
    DEFAULT_RUN,
    ImageRootOption,
    JsonOption,
    LimitOption,
    RulesOption,
    RunOption,
    TaxonomyOption,
)
from clasp_calib.commands.output import emit, say
from clasp_calib.commands.used_by import UsedBy
from clasp_calib.common.errors import InputError
from clasp_calib.common.run_directory import RunDirectory
from clasp_calib.common.strict_json import strict_json

if TYPE_CHECKING:
    from clasp_calib.router_labeling.embedding_labeler import EmbeddingLabeler
    from clasp_calib.router_labeling.labelers import Labeler
    from clasp_calib.router_labeling.server_labeler import ServerLabeler
    from clasp_calib.router_labeling.vllm_labeler import VLLMLabeler

Backend = Literal["keywords", "embedding", "server", "vllm", "auto"]
SERVER, VLLM = UsedBy("backend", "server", "auto"), UsedBy("backend", "vllm", "auto")
MODEL = UsedBy("backend", "server", "vllm", "auto")
# A language model that is asked about unsure questions only has the embedding before it.
EMBEDDING = UsedBy("backend", "embedding", "server", "vllm", "auto")


def label(
    samples: Annotated[
        Path,
        typer.Argument(
            help="Parquet, JSONL or CSV with a column 'question'; files of a benchmark behind a prefix, such as "
            "vlmeval:FILE.tsv or hf:ORG/NAME:SPLIT (docs/guide/data.md lists all); a directory of datasets' "
            "save_to_disk, or of Parquet files."
        ),
    ],
    run: RunOption = DEFAULT_RUN,
    out: Annotated[Path | None, typer.Option(help="Output; default: labels.parquet of the run.")] = None,
    backend: Annotated[Backend, typer.Option(help="What labels; 'auto' takes the best backend there is.")] = "keywords",
    base_url: Annotated[
        str | None, typer.Option(help="Root of the server's API, such as http://127.0.0.1:8000/v1."), SERVER
    ] = None,
    labeler_model: Annotated[
        str | None, typer.Option(help="Model; default: the server's only one, or Qwen/Qwen3-8B in vLLM."), MODEL
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of that model; kept with the labels."), MODEL] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight."), SERVER] = 32,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a request may take."), SERVER] = 120,
    api_key: Annotated[
        str | None, typer.Option(envvar="OPENAI_API_KEY", help="Bearer token.", show_default=False), SERVER
    ] = None,
    chunk: Annotated[int, typer.Option(min=1, help="Questions between two saves."), VLLM] = 512,
    engine: Annotated[str, typer.Option(help="More arguments of vllm.LLM, as a JSON object."), VLLM] = "{}",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Ask failed questions again."), MODEL] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with 1 if a question could not be labelled."), MODEL
    ] = False,
    head: Annotated[
        Path | None, typer.Option(help="What train-labeler wrote; default: the packaged one."), EMBEDDING
    ] = None,
    embedder: Annotated[
        str | None,
        typer.Option(help="Encoder that --head was trained on, a directory or Hub id; default: all-MiniLM-L6-v2."),
        EMBEDDING,
        UsedBy("head"),
    ] = None,
    embedder_revision: Annotated[
        str | None, typer.Option(help="Revision of that Hub id."), EMBEDDING, UsedBy("embedder")
    ] = None,
    default_below: Annotated[
        float,
        typer.Option(min=0, max=1, help="Less sure answers become the default intent."),
        UsedBy("backend", "embedding", "auto"),
    ] = 0.0,
    escalate_below: Annotated[
        float | None,
        typer.Option(min=0.01, max=1, help="Let the embedding answer; ask the model only what it is less sure of."),
        UsedBy("backend", "server", "vllm"),
    ] = None,
    taxonomy: TaxonomyOption = None,
    rules: RulesOption = None,
    column: Annotated[
        list[str], typer.Option(help="Map a column: OURS=YOURS, for instance question=prompt; repeatable.")
    ] = [],  # noqa: B006 - typer copies it
    dataset_split: Annotated[
        str | None, typer.Option(help="Split of a dataset directory or Hub dataset; not needed if it has one.")
    ] = None,
    image_root: ImageRootOption = None,
    relabel: Annotated[bool, typer.Option("--relabel", help="Also label rows that have an intent or class.")] = False,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give every question an intent and a class.

    Answers of a language model are kept in labelling/ of the run directory as they arrive. Give a killed command
    again, and it goes on and asks nothing twice.

    Example: clasp-calib label examples/samples.jsonl --run my-run
    """
    from clasp_calib.api.labelling import (
        EmbeddingLabeler,
        ServerLabeler,
        VLLMLabeler,
        label as labelled_by,
        label_report,
    )
    from clasp_calib.common.sample_sources import load_samples
    from clasp_calib.router_labeling.available import best_labeler
    from clasp_calib.router_labeling.labelers import load_scheme
    from clasp_calib.router_labeling.measured import expected_accuracy
    from clasp_calib.router_labeling.serving import DEFAULT_MODEL

    if backend in ("server", "vllm") and escalate_below is None and (head or embedder):
        raise InputError(f"--head and --embedder do nothing with --backend {backend} alone; give --escalate-below too")
    # vLLM would log to standard output, where the result is expected; its processes have no other way to be told.
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    server = base_url and ServerLabeler(base_url, labeler_model, revision, concurrency, timeout, api_key=api_key)
    offline = VLLMLabeler(labeler_model or DEFAULT_MODEL, revision, chunk, _settings(engine))
    embedding = EmbeddingLabeler(head, embedder, embedder_revision, default_below)
    scheme = load_scheme(taxonomy, rules)
    if backend == "auto":
        labeler, why = best_labeler(server or None, offline, embedding, scheme)
        if not as_json:
            say(f"labelling by {type(labeler).__name__}: {why}")
    else:
        labeler = _chosen(backend, server or None, offline, embedding, escalate_below)
    directory = RunDirectory(run)
    given = load_samples(
        samples,
        columns=_mapping(column),
        limit=limit,
        dataset_split=dataset_split,
        pictures=directory.pictures,
        image_root=image_root,
    )
    labelled = labelled_by(
        given,
        labeler=labeler,
        taxonomy=scheme.taxonomy,
        rules=scheme.rules,
        run=run,
        out=out,
        relabel=relabel,
        retry_failed=retry_failed,
    )
    report, target = label_report(labelled, taxonomy=scheme.taxonomy), out or directory.labels
    if as_json:
        emit(
            {
                "out": target,
                "rows": report.rows,
                "labeler": type(labeler).__name__,
                "classes": report.classes,
                "sources": report.sources,
                "overridden": _pairs(report.overridden, "before", "after"),
                "agreement": report.agreement.get("after"),
                "agreement_before_overrides": report.agreement.get("before"),
                "confusion": {when: _pairs(pairs, "gold", "class") for when, pairs in report.confusion.items()},
                "report": directory.report / "labels.md",
                "failed": report.failed,
                "not_english": report.not_english and asdict(report.not_english),
            }
        )
    else:
        say(str(report))
        if report.sources.keys() != {"gold"} and (expected := expected_accuracy(labeler, scheme)):
            say(f"expect of {type(labeler).__name__}: {expected}")
        if report.failed:
            say("try them again with --retry-failed")
        say(f"report in {directory.report / 'labels.md'}")
        say(f"written to {target}; next: clasp-calib cache-features --run {run}{f' --samples {out}' if out else ''}")
    if strict and report.failed:
        raise typer.Exit(1)


def _chosen(
    backend: Backend,
    server: "ServerLabeler | None",
    offline: "VLLMLabeler",
    embedding: "EmbeddingLabeler",
    escalate_below: float | None,
) -> "Labeler":
    from clasp_calib.router_labeling.escalation import EscalatingLabeler
    from clasp_calib.router_labeling.labelers import KeywordLabeler

    if backend == "keywords":
        return KeywordLabeler()
    if backend == "embedding":
        return embedding
    model = offline if backend == "vllm" else server
    if model is None:
        raise InputError(
            "the backend 'server' needs --base-url, such as http://127.0.0.1:8000/v1; "
            "start a server with `clasp-calib serve-labeler`"
        )
    return model if escalate_below is None else EscalatingLabeler(embedding, model, escalate_below)


def _settings(engine: str) -> dict[str, Any]:
    try:
        settings = strict_json(engine.encode())
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise InputError(f"--engine takes a JSON object, for instance '{{\"max_num_seqs\": 64}}'; got {engine!r}")
    return settings


def _mapping(columns: list[str]) -> dict[str, str]:
    pairs = [entry.partition("=") for entry in columns]
    for ours, equals, theirs in pairs:
        if not (ours and equals and theirs):
            raise InputError(f"--column takes OURS=YOURS, for instance question=prompt; got {ours + equals + theirs!r}")
    mapped = {ours: theirs for ours, _, theirs in pairs}
    if len(mapped) < len(pairs):
        raise InputError(f"--column names one column twice: {', '.join(columns)}; map each to one")
    return mapped


def _pairs(pairs: Mapping[tuple[str, str], int], first: str, second: str) -> list[dict[str, object]]:
    return [{first: a, second: b, "rows": number} for (a, b), number in pairs.items()]
