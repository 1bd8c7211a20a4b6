import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from clasp_calib.common.errors import InputError
from clasp_calib.common.samples import read_table, samples_of
from clasp_calib.reference.benchmark import FIRST_SEED, main, write_benchmark

FEW = {"calibration": 2, "selection": 1, "test": 2}


def test_the_table_is_a_sample_table_with_pictures(tmp_path: Path) -> None:
    path = write_benchmark(tmp_path, FEW)
    samples = samples_of(read_table(path), path.parent)
    assert {s.split for s in samples} == set(FEW)
    assert all(s.image and Image.open(s.image).size == (336, 336) for s in samples)
    assert all(len(s.answers) == 1 and s.metric == "exact" for s in samples)
    assert all(s.intent is None and s.label is None for s in samples)
    assert Image.open(tmp_path / "contact-sheet.png").width == 6 * 168


def test_splits_share_no_picture(tmp_path: Path) -> None:
    rows = pq.read_table(write_benchmark(tmp_path, FEW)).to_pylist()
    pictures = {split: {r["image"] for r in rows if r["split"] == split} for split in FEW}
    assert sum(map(len, pictures.values())) == len(set().union(*pictures.values())) == sum(FEW.values())


def test_the_same_draw_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_benchmark(tmp_path / name, FEW) for name in ("a", "b"))
    for file in sorted(p for p in first.parent.rglob("*") if p.is_file()):
        assert file.read_bytes() == (second.parent / file.relative_to(first.parent)).read_bytes()


def test_jsonl_says_what_parquet_says(tmp_path: Path) -> None:
    parquet = pq.read_table(write_benchmark(tmp_path / "a", FEW)).to_pylist()
    lines = write_benchmark(tmp_path / "b", FEW, "jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == parquet


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected splits of"):
        write_benchmark(tmp_path, {"validation": 1})
    with pytest.raises(InputError, match="one of parquet, jsonl"):
        write_benchmark(tmp_path, FEW, "csv")
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(InputError, match="give another place"):
        write_benchmark(blocked / "below", FEW)


def test_as_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "benchmark",
        str(tmp_path),
        "--format",
        "jsonl",
        "--calibration",
        "1",
        "--selection",
        "1",
        "--test",
        "1",
    ]
    monkeypatch.setattr("sys.argv", arguments)
    main()
    path = Path(capsys.readouterr().out.strip())
    assert path == tmp_path / "samples.jsonl"
    assert {json.loads(line)["split"] for line in path.read_text().splitlines()} == set(FIRST_SEED) - {"train"}
