"""``clasp-calib label``."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clasp_calib.commands.backends import BACKENDS, KEYWORDS, BackendOptions, backend_of
from clasp_calib.commands.options import DEFAULT_RUN, JsonOption, LimitOption, RunOption
from clasp_calib.commands.output import emit, say, show
from clasp_calib.common.errors import InputError
from clasp_calib.common.run_directory import RunDirectory

if TYPE_CHECKING:
    from clasp_calib.router_labeling.label_report import LabelReport


def label(
    samples: Annotated[
        Path,
        typer.Argument(
            help="Parquet, JSONL or CSV with a column 'question'; a directory of datasets' save_to_disk; or a dataset "
            "on the Hub, org/name@revision."
        ),
    ],
    run: RunOption = DEFAULT_RUN,
    out: Annotated[Path | None, typer.Option(help="Output; default: labels.parquet of the run.")] = None,
    backend: Annotated[str, typer.Option(help=f"Who labels: {', '.join(BACKENDS)}.")] = KEYWORDS,
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
    dataset_split: Annotated[
        str | None, typer.Option(help="Split of a dataset directory or Hub dataset; not needed if it has one.")
    ] = None,
    relabel: Annotated[bool, typer.Option("--relabel", help="Label rows anew that bring an intent or class.")] = False,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give every question an intent and a class.

    What a language model answers is kept in labelling/ of the run directory as it comes: killed at any moment, the
    same command goes on and asks nothing twice.

    Example: clasp-calib label examples/samples.jsonl --run my-run
    """
    from clasp_calib.common.sample_sources import load_samples
    from clasp_calib.router_labeling.journalled import JournalledLabeler
    from clasp_calib.router_labeling.label_report import label_report, markdown
    from clasp_calib.router_labeling.labelers import KeywordLabeler
    from clasp_calib.router_labeling.rules import load_rules
    from clasp_calib.router_labeling.table import label_table
    from clasp_calib.router_labeling.taxonomy import load_taxonomy

    known = load_taxonomy(taxonomy)
    override = load_rules(rules, known)
    directory = RunDirectory(run)
    directory.prepare()
    given = load_samples(
        samples,
        columns=_mapping(column),
        limit=limit,
        dataset_split=dataset_split,
        pictures=directory.pictures,
    )
    target = out or directory.labels
    options = BackendOptions(base_url, labeler_model, revision, concurrency, timeout, api_key, chunk, engine)
    taken = backend_of(backend, options, known)
    if taken.why and not as_json:
        say(f"backend {taken.name}: {taken.why}")
    labeler: KeywordLabeler | JournalledLabeler = (
        KeywordLabeler(override, known)
        if taken.asker is None
        else JournalledLabeler(taken.asker, directory.labelling, retry_failed)
    )
    labelled = label_table(given.table, labeler, known, override, classes_from_gold=not relabel)
    failed: dict[str, str] = {}
    if isinstance(labeler, JournalledLabeler):
        failed = labeler.failed
        if labeler.resumed and not as_json:
            say(f"{labeler.resumed} different questions were answered before, see {labeler.path}")
    directory.record(
        "label",
        {
            **{"samples": samples, "out": target, "backend": taken.name, "labeler": labeler.fingerprint},
            **{"taxonomy": known.digest, "rules": override.digest},
        },
    )
    given.save(directory.samples)
    given.with_table(labelled).save(target)
    report = label_report(labelled, known)
    directory.report.mkdir(exist_ok=True)
    page = directory.report / "labels.md"
    page.write_text(markdown(report, known), encoding="utf-8")
    if as_json:
        emit(
            {
                "out": target,
                "rows": report.rows,
                "backend": taken.name,
                "classes": report.classes,
                "sources": report.sources,
                "overridden": _pairs(report.overridden, "before", "after"),
                "agreement": report.agreement.get("after"),
                "agreement_before_overrides": report.agreement.get("before"),
                "confusion": {when: _pairs(pairs, "gold", "class") for when, pairs in report.confusion.items()},
                "report": page,
                "failed": failed,
            }
        )
    else:
        _tell(report)
        if failed:
            question, reason = next(iter(failed.items()))
            say(f"{len(failed)} questions could not be labelled and are {known.default_intent}, such as {question!r}")
            say(f"  {reason}; try them again with --retry-failed")
        say(f"report in {page}")
        say(f"written to {target}; next: clasp-calib cache-features --run {run}")
    if strict and failed:
        raise typer.Exit(1)


def _mapping(columns: list[str]) -> dict[str, str]:
    pairs = [entry.partition("=") for entry in columns]
    for ours, equals, theirs in pairs:
        if not (ours and equals and theirs):
            raise InputError(f"--column takes OURS=YOURS, for instance question=prompt; got {ours + equals + theirs!r}")
    return {ours: theirs for ours, _, theirs in pairs}


def _tell(report: "LabelReport") -> None:
    rows = [[name, str(number)] for name, number in report.classes.items()]
    show(f"{report.rows} questions", ["class", "questions"], rows)
    say(f"decided by: {', '.join(f'{source} {number}' for source, number in report.sources.items())}")
    changed = {pair: number for pair, number in report.overridden.items() if pair[0] != pair[1]}
    if report.overridden:
        total = sum(report.overridden.values())
        say(f"rules overrode {total} answers of the model, and {sum(changed.values())} of its classes")
    for (before, after), number in sorted(changed.items(), key=lambda item: -item[1]):
        say(f"  {before} -> {after}: {number}")
    if report.agreement:
        say(f"agreement with the gold classes in the table: {report.agreement['after']:.1%}")
    if report.overridden and report.agreement:
        say(f"  before the overrides: {report.agreement['before']:.1%}")


def _pairs(pairs: Mapping[tuple[str, str], int], first: str, second: str) -> list[dict[str, object]]:
    return [{first: a, second: b, "rows": number} for (a, b), number in pairs.items()]
