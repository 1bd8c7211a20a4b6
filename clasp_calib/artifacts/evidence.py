"""``study/``: the evidence behind an artifact, as Parquet. A server does not read it; an auditor does.

``trials.parquet`` has a row for each candidate of each class and budget, ``scores.parquet`` one for each test sample
under each setting.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from clasp_calib.common.errors import ArtifactError

if TYPE_CHECKING:
    import pyarrow as pa

    from clasp_calib.artifacts.artifact import Artifact

TRIALS = "study/trials.parquet"
SCORES = "study/scores.parquet"
MOST_ROWS = 4_000_000
"""Our choice: the whole of VQAv2's validation under seven settings and two budgets is 3 million."""
_LONGEST = 65536
"""Characters of a text; sample ids may be anything, but no books."""
_DECODED = 1 << 30
"""Bytes of the pages of a file, as it says itself."""
_BATCH = 65536


@dataclass(frozen=True, slots=True)
class Trial:
    """How far one candidate came."""

    budget: str
    label: str
    candidate: str
    prototype: str
    rho: float
    state: Literal["chosen", "finalist", "rejected"]
    """``finalist`` is of format 1."""
    calibration_samples: int
    """On which it was measured."""
    calibration: float
    """Mean score over these."""
    selection: float | None
    """In format 1: mean score over samples of another split, of candidates that came so far."""


@dataclass(frozen=True, slots=True)
class SampleScore:
    """What one setting scored on one sample of the test split."""

    budget: str
    setting: str
    label: str
    sample: str
    picture: int
    """Number of the picture; equal for questions about one picture."""
    score: float


Row = TypeVar("Row", Trial, SampleScore)


def trials(artifact: "Artifact") -> list[Trial]:
    """All trials; empty if the artifact holds none.

    Raises:
        ArtifactError: the file does not hold what it should.
    """
    return _rows(artifact, TRIALS, Trial)


def sample_scores(artifact: "Artifact") -> list[SampleScore]:
    """All scores of test samples; empty if nothing was evaluated.

    Raises:
        ArtifactError: the file does not hold what it should.
    """
    return _rows(artifact, SCORES, SampleScore)


def with_trials(artifact: "Artifact", rows: Sequence[Trial]) -> "Artifact":
    """The artifact with these trials in place of all of their budgets."""
    return _replaced(artifact, TRIALS, Trial, trials(artifact), rows)


def with_scores(artifact: "Artifact", rows: Sequence[SampleScore]) -> "Artifact":
    """The artifact with these scores in place of all of their budgets."""
    return _replaced(artifact, SCORES, SampleScore, sample_scores(artifact), rows)


def joined(later: "Artifact", earlier: "Artifact | None") -> "Artifact":
    """``later``, with the rows of an earlier artifact for budgets that it has no trials of.

    Scores of a budget that was searched again are dropped: they were of the settings before.
    """
    if earlier is None:
        return later
    searched = {row.budget for row in trials(later)}
    later = with_trials(later, [row for row in trials(earlier) if row.budget not in searched] + trials(later))
    scores = [row for row in sample_scores(earlier) if row.budget not in searched] + sample_scores(later)
    return with_scores(later, scores) if scores else later


def _replaced(artifact: "Artifact", name: str, row: type[Row], old: list[Row], new: Sequence[Row]) -> "Artifact":
    budgets = {one.budget for one in new}
    return artifact.with_study(name, _encode([r for r in old if r.budget not in budgets] + list(new), row))


def _schema(row: type[Row]) -> "pa.Schema":
    import pyarrow as pa

    kinds: dict[Any, pa.DataType] = {str: pa.string(), int: pa.int64(), float: pa.float64(), float | None: pa.float64()}
    return pa.schema([(f.name, kinds.get(f.type, pa.string())) for f in fields(row)])


def _encode(rows: Sequence[Row], row: type[Row]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(one) for one in rows], _schema(row)), sink)
    return sink.getvalue()


def _rows(artifact: "Artifact", name: str, row: type[Row]) -> list[Row]:
    content = artifact.study.get(name)
    if content is None:
        return []
    import pyarrow as pa

    try:
        return list(_read(content, row))
    except (pa.ArrowException, OSError, ValueError) as error:  # Text that is not UTF-8 is a ValueError.
        raise ArtifactError(f"{name} cannot be read as Parquet ({error}); fetch or make the artifact again") from error


def _read(content: bytes, row: type[Row]) -> Iterator[Row]:
    """Row by row: a small file may hold many, and long texts many times, so it is never decoded as a whole.

    Raises:
        ValueError: other columns, or more than a study can have.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(row)
    texts = [field.name for field in schema if field.type == pa.string()]
    found = pq.read_schema(io.BytesIO(content))
    if not found.equals(schema):
        told = [", ".join(f"{field.name} {field.type}" for field in fields) for fields in (found, schema)]
        raise ValueError(f"it has the columns {told[0][:2000]}; expected {told[1]}")
    # The texts of a column stay in a dictionary: each is decoded once, however often it stands.
    file = pq.ParquetFile(io.BytesIO(content), read_dictionary=texts)
    of = file.metadata
    # A row takes a byte at least: what differs between rows is not compressed to less.
    most = min(MOST_ROWS, max(len(content), _BATCH))
    decoded = sum(of.row_group(n).total_byte_size for n in range(of.num_row_groups))
    if not 0 <= of.num_rows <= most or not 0 <= decoded <= _DECODED:
        raise ValueError(f"it claims {of.num_rows} rows in {decoded} bytes; expected at most {most} in {_DECODED}")
    rows = 0
    for batch in file.iter_batches(_BATCH):
        rows += len(batch)
        if rows > most:
            raise ValueError(f"it has more than {most} rows")
        yield from (row(*values) for values in zip(*map(_values, batch.columns), strict=True))


def _values(column: Any) -> list[Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(column.type):
        return list(column.to_pylist())
    if (pc.max(pc.binary_length(column.dictionary)).as_py() or 0) > 4 * _LONGEST:
        raise ValueError(f"it holds a text of more than {_LONGEST} characters")
    texts = column.dictionary.to_pylist()
    return [None if place is None else texts[place] for place in column.indices.to_pylist()]
