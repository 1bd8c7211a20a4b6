"""Labelling: questions in, questions with an intent and a class out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from clasp_calib.common.errors import InputError
from clasp_calib.common.progress import note
from clasp_calib.common.run_directory import RunDirectory
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.common.sample_table import BARE, check_writable
from clasp_calib.router_labeling.embedding_labeler import EmbeddingLabeler
from clasp_calib.router_labeling.escalation import EscalatingLabeler
from clasp_calib.router_labeling.journalled import JournalledLabeler
from clasp_calib.router_labeling.label_report import LabelReport, label_report as report_of
from clasp_calib.router_labeling.labelers import KeywordLabeler, Labeler, load_scheme
from clasp_calib.router_labeling.server_labeler import ServerLabeler
from clasp_calib.router_labeling.table import label_table
from clasp_calib.router_labeling.taxonomy import load_taxonomy
from clasp_calib.router_labeling.vllm_labeler import VLLMLabeler

if TYPE_CHECKING:
    from clasp_calib.common.sample_set import Samples
    from clasp_calib.router_labeling.rules import RuleSet
    from clasp_calib.router_labeling.taxonomy import Taxonomy

FOR_OTHER_LANGUAGES = (
    "what labelled them knows English alone; label with a language model (--backend server or vllm, labeler=), or with "
    "an embedder that knows the language and a head trained on it (train-labeler --embedder, then label --backend "
    "embedding --head FILE --embedder MODEL)"
)

__all__ = [
    "EmbeddingLabeler",
    "EscalatingLabeler",
    "KeywordLabeler",
    "LabelReport",
    "Labeler",
    "ServerLabeler",
    "VLLMLabeler",
    "label",
    "label_report",
]


def label(
    samples: Any,
    *,
    labeler: Labeler | None = None,
    taxonomy: "Taxonomy | str | Path | None" = None,
    rules: "RuleSet | str | Path | None" = None,
    run: str | Path | None = None,
    out: str | Path | None = None,
    relabel: bool = False,
    retry_failed: bool = False,
) -> "Samples":
    """Give every question an intent and a class.

    A sample that brings an intent or a class of its own keeps it. Where samples have a ``bare_question``, that is
    what is labelled. What a language model answers is kept in ``labelling/`` of the run directory as it comes: killed
    at any moment, the same call goes on and asks nothing twice.

    Args:
        samples: as `load_samples` takes them.
        labeler: who names the intents: `KeywordLabeler`, `EmbeddingLabeler`, `VLLMLabeler`, `ServerLabeler`,
            `EscalatingLabeler`, or anything with the methods of `Labeler`. By default keyword rules alone.
        taxonomy: the intents and classes, a YAML file; by default the packaged fifteen and nine.
        rules: keyword rules, a YAML file; by default the packaged ones. Those that are marked so override a labeler.
        run: run directory, where samples, labels, a report and the answers of a language model are kept. Without one
            everything is kept in memory.
        out: where labels are written, instead of ``labels.parquet`` of the run directory.
        relabel: label samples anew that bring an intent or a class.
        retry_failed: ask again what a language model gave no label for in an earlier run.

    Returns:
        The samples with further columns: ``intent``, ``class``, ``confidence``, ``source`` (llm, rule, gold or
        default), ``rule``, ``raw`` (what was answered) and ``labeler``. Where labels are written, those of the file.

    There is a note if keyword rules, or the packaged embedding, are shown questions that are not English.

    Raises:
        InputError: samples, taxonomy or rules cannot be used, or are at odds; a place cannot be written to.
        LabelerError: the labeler cannot be used, or stopped answering.
    """
    scheme = load_scheme(taxonomy, rules)
    given = load_samples(samples)
    directory = None if run is None else RunDirectory(Path(run))
    if directory is not None:
        directory.prepare()
        check_writable(directory.samples, given.table.schema)
    target = Path(out) if out is not None else None if directory is None else directory.labels
    if target is not None:
        check_writable(target)
    labeler = labeler or KeywordLabeler()
    if not (hasattr(labeler, "ask") and hasattr(labeler, "fingerprint")):
        raise InputError(
            f"labeler is {labeler!r:.80}; expected one such as KeywordLabeler(), EmbeddingLabeler() or "
            "ServerLabeler(address)"
        )
    # Keyword rules are asked again in no time.
    journals = None if directory is None or isinstance(labeler, KeywordLabeler) else directory.labelling
    asked = JournalledLabeler(labeler, scheme, journals, retry_failed)
    bare = label_table(_bare(given.table), asked, scheme, classes_from_gold=not relabel)
    labelled = given.with_table(_with_question(bare, given.table["question"]))
    report = report_of(labelled.table, scheme.taxonomy)
    if report.not_english:
        note(f"note: {report.not_english}; {FOR_OTHER_LANGUAGES}")
    if directory is not None:
        labelers = sorted(name for name in pc.unique(labelled.table["labeler"]).to_pylist() if name)
        settings = {"samples": given.name, "out": target, "labelers": labelers}
        directory.record("label", settings | {"taxonomy": scheme.taxonomy.digest, "rules": scheme.rules.digest})
        given.save(directory.samples)
        directory.report.mkdir(exist_ok=True)
        (directory.report / "labels.md").write_text(report.to_markdown(), encoding="utf-8")
    if target is None:
        return labelled
    labelled.save(target)
    del bare, labelled  # before they are there a second time
    pa.default_memory_pool().release_unused()
    return load_samples(target)


def _bare(table: pa.Table) -> pa.Table:
    """The table with what is asked without options and answer formats for its questions, where a reader tells it."""
    if BARE not in table.column_names or not pa.types.is_string(table[BARE].type):
        return table
    return _with_question(table, pc.coalesce(table[BARE], table["question"]))


def _with_question(table: pa.Table, questions: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index("question"), "question", questions)


def label_report(samples: Any, *, taxonomy: "Taxonomy | str | Path | None" = None) -> LabelReport:
    """What a labelling came to: classes, who decided, what rules overrode, and agreement with a column ``gold_class``.

    Args:
        samples: as `label` returns them, or whatever `load_samples` makes the same of.
        taxonomy: the one that they were labelled with.

    Raises:
        InputError: they are not labelled.
    """
    return report_of(load_samples(samples).table, load_taxonomy(taxonomy))
