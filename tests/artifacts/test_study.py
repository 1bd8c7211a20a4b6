"""The evidence behind an artifact: rows come back, are joined by budget, and refused when they are not ours."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_artifacts import made

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
