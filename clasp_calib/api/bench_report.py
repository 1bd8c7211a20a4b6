"""What two servers did with the same requests, as tables and numbers."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clasp_calib.calib.studies.paired_accuracy import PairedAccuracy
    from clasp_calib.serving.load_figures import LoadFigures


@dataclass(frozen=True)
class BenchRun:
    """Both servers at one concurrency."""

    concurrency: int
    plain: "LoadFigures"
    pruned: "LoadFigures"
    accuracy: "PairedAccuracy | None"
    """By the samples' own metrics; ``None`` if none has an accepted answer."""

    def rows(self) -> list[list[str]]:
        """What is measured, without and with pruning, and the ratio; of accuracy the difference in points."""
        figures = (
            ("requests a second", "requests_per_second", 1, 2),
            ("TTFT median, ms", "ttft_median", 1000, 0),
            ("TTFT p95, ms", "ttft_p95", 1000, 0),
            ("TPOT median, ms", "tpot_median", 1000, 1),
            ("prompt tokens a request", "prompt_tokens", 1, 0),
            ("of these from the prefix cache", "cached_tokens", 1, 0),
            ("KV-cache tokens a request", "kv_tokens", 1, 0),
        )
        found = []
        for told, name, factor, digits in figures:
            plain, pruned = getattr(self.plain, name), getattr(self.pruned, name)
            if plain is not None and pruned is not None:
                ratio = f"{pruned / plain:.2f}x" if plain else ""
                found.append([told, f"{factor * plain:.{digits}f}", f"{factor * pruned:.{digits}f}", ratio])
        if self.accuracy:
            from clasp_calib.report.tables import points, score

            of = self.accuracy
            found.append(["accuracy, %", score(of.plain, 1), score(of.pruned, 1), points(of.difference, 1)])
        return found

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class BenchReport:
    """What two servers did with the same requests."""

    runs: tuple[BenchRun, ...]
    """One for each concurrency."""
    budget: str
    """Of the server that prunes."""
    artifact: str
    """Id of the artifact."""
    model: str
    """Its directory or Hub id."""
    questions: int
    """That each run asked."""
    vllm: str
    """Version of vLLM."""
    command: tuple[str, ...] = field(repr=False)
    """That started both servers."""
    out: Path
    """Where the servers' logs, every answer and these numbers are."""

    HEADER = ("", "plain", "pruned", "ratio")

    def table(self) -> list[dict[str, Any]]:
        """One row for each concurrency and figure, ready for ``pandas.DataFrame``."""
        header = ("figure", *self.HEADER[1:])
        return [
            {"concurrency": run.concurrency, **dict(zip(header, row, strict=True))}
            for run in self.runs
            for row in run.rows()
        ]

    def to_markdown(self) -> str:
        """One table."""
        from clasp_calib.common.text_tables import markdown_table

        return markdown_table(*self._all())

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        rest = ("budget", "artifact", "model", "questions", "vllm", "command", "out")
        return {**{name: getattr(self, name) for name in rest}, "runs": [run.as_dict() for run in self.runs]}

    def _all(self) -> tuple[list[str], list[list[str]]]:
        rows = [[f"{row[0]}, {run.concurrency} at a time", *row[1:]] for run in self.runs for row in run.rows()]
        return list(self.HEADER), rows

    def _repr_html_(self) -> str:
        from clasp_calib.common.text_tables import html_table

        return html_table(*self._all(), f"budget {self.budget}, {self.questions} questions")
