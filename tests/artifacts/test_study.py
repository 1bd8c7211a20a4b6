"""The evidence behind an artifact: rows come back, are joined by budget, and refused when they are not ours."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_artifacts import made

from clasp_calib.artifacts import evidence
from clasp_calib.artifacts.artifact import read_artifact
from clasp_calib.artifacts.evidence import (
    SCORES,
    TRIALS,
    SampleScore,
    Trial,
    joined,
    sample_scores,
    trials,
    with_scores,
    with_trials,
)
from clasp_calib.artifacts.files import write_artifact
from clasp_calib.common.errors import ArtifactError


def trial(budget, label="text", state="chosen"):
    return Trial(budget, label, "deep/rho=0.5", "deep", 0.5, state, 12, 0.25, None if state == "rejected" else 0.75)


def score(budget, value=1.0, sample="a"):
    return SampleScore(budget, "calibrated", "text", sample, 0, value)


def test_rows_come_back_from_the_disk(tmp_path):
    rows = [trial("8"), trial("8", "object", "rejected")]
    artifact = with_scores(with_trials(made("8"), rows), [score("8"), score("8", 0.0, "b")])
    write_artifact(artifact, tmp_path / "a")
    read = read_artifact(tmp_path / "a")
    assert trials(read) == rows
    assert sample_scores(read) == [score("8"), score("8", 0.0, "b")]
    assert sorted(read.manifest.files) == ["README.md", SCORES, TRIALS, "weights.safetensors"]
    write_artifact(made("8"), tmp_path / "a")
    assert not (tmp_path / "a" / TRIALS).exists()
    assert trials(made("8")) == sample_scores(made("8")) == []


def test_rows_of_a_budget_take_the_place_of_its_old_ones():
    artifact = with_trials(made("8", "6"), [trial("8", "object"), trial("6")])
    assert trials(with_trials(artifact, [trial("8")])) == [trial("6"), trial("8")]


def test_a_budget_that_is_searched_again_loses_its_old_scores():
    earlier = with_scores(with_trials(made("8", "6"), [trial("8"), trial("6")]), [score("8"), score("6")])
    later = joined(with_trials(made("6", "8"), [trial("8", "object")]), earlier)
    assert trials(later) == [trial("6"), trial("8", "object")]
    assert sample_scores(later) == [score("6")]
    assert joined(earlier, None) is earlier
    assert SCORES not in joined(with_trials(made("8"), [trial("8")]), made("6")).study


def test_other_files_in_their_place_are_refused():
    broken = made("8").with_study(TRIALS, b"PAR1")
    with pytest.raises(ArtifactError, match=r"study/trials\.parquet cannot be read as Parquet"):
        trials(broken)
    sink = io.BytesIO()
    text = pa.array([b"\xff"]).view(pa.string())
    pq.write_table(pa.table({"budget": text}), sink)
    with pytest.raises(ArtifactError, match="cannot be read as Parquet"):
        trials(made("8").with_study(TRIALS, sink.getvalue()))
    sink = io.BytesIO()
    pq.write_table(pa.table({"budget": [1]}), sink)
    with pytest.raises(ArtifactError, match=r"has the columns budget int64; expected budget string, label string"):
        trials(made("8").with_study(TRIALS, sink.getvalue()))


def encoded(columns, **how):
    """A study's file of these columns, as its schema wants them."""
    schema = pq.read_schema(io.BytesIO(with_scores(made("8"), [score("8")]).study[SCORES]))
    sink = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), sink, **how)
    return sink.getvalue()


def columns_of(rows, text="a"):
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), [text]).cast(pa.string())
    return {
        **dict.fromkeys(("budget", "setting", "label", "sample"), texts),
        "picture": pa.array(np.zeros(rows, np.int64)),
        "score": pa.array(np.zeros(rows)),
    }


@pytest.mark.parametrize("rows", [5_000_000, 200_000])
def test_many_rows_in_a_small_file_are_refused_before_they_are_read(rows):
    content = encoded(columns_of(rows), compression="zstd")
    assert len(content) < 200_000
    begun = pa.total_allocated_bytes()
    with pytest.raises(ArtifactError, match=f"it claims {rows} rows in .* bytes; expected at most \d+ in"):
        sample_scores(made("8").with_study(SCORES, content))
    assert pa.total_allocated_bytes() - begun < 1 << 20


@pytest.mark.slow
def test_a_long_text_that_stands_very_often_is_refused_without_being_repeated():
    content = encoded(columns_of(3000, "x" * 300_000), compression="zstd")
    assert len(content) < 100_000
    with pytest.raises(ArtifactError, match="it holds a text of more than 65536 characters"):
        sample_scores(made("8").with_study(SCORES, content))


def test_pages_that_decode_to_very_much_are_refused_by_what_the_file_says(monkeypatch):
    texts = pa.array([f"{n:05}" + "x" * 30_000 for n in range(400)])
    content = encoded({**columns_of(400), "sample": texts}, compression="zstd", use_dictionary=False)
    assert len(content) < 400_000
    monkeypatch.setattr(evidence, "_DECODED", 1 << 20)
    with pytest.raises(ArtifactError, match=r"it claims 400 rows in 12\d+ bytes; expected at most .* in 1048576"):
        sample_scores(made("8").with_study(SCORES, content))


@pytest.mark.parametrize("how", [{}, {"use_dictionary": False}, {"row_group_size": 2}, {"version": "1.0"}])
def test_rows_are_read_however_they_are_encoded(how):
    rows = [SampleScore("8", "calibrated", "text", f"s{n}", n % 3, n / 7) for n in range(10)]
    columns = {name: [getattr(row, name) for row in rows] for name in SampleScore.__slots__}
    assert sample_scores(made("8").with_study(SCORES, encoded(columns, **how))) == rows
