"""Peak memory and time of `label` (keyword rules) and `sample` on a large table, in Parquet and JSONL.

Run from the repository's root:

    .venv/bin/python benchmarks/large_tables.py [--rows 1000000] [--pictures 200000] [--directory DIR] [--code DIR]

The table is made up: ids, questions of many kinds, each different, one answer each, and the paths of small pictures of
different content, five rows a picture. Each command runs in a process of its own, and the peak is what the kernel
counts of it (``ru_maxrss``). DIR keeps what was made for the next call.
"""

import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
QUESTIONS = (
    "What color is the {} next to the door?",
    "How many {} are there in the picture?",
    "What is written on the {}?",
    "Is there a {} in this image?",
    "What is to the left of the {}?",
    "What is the person with the {} doing?",
    "Where was this picture of a {} taken?",
    "What is the {} used for?",
    "Is the {} larger than the tree, or is it the other way around?",
    "Describe the {}.",
)
THINGS = ("bus", "sign", "cup", "dog", "lamp", "bicycle", "window", "shirt", "plate", "boat", "chair")
ANSWERS = ("yes", "no", "red", "2", "on the table", "a man with a hat")
PER_CLASS = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--pictures", type=int, default=200_000)
    parser.add_argument("--directory", type=Path, help="for the table and its pictures; default: a temporary one")
    parser.add_argument("--code", type=Path, default=ROOT, help="a checkout whose package is measured")
    parser.add_argument("--formats", nargs="+", default=["parquet", "jsonl"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = given.directory or Path(temporary)
        write_pictures(place / "pictures", given.pictures)
        for suffix in given.formats:
            table = write_table(place / f"table-{given.rows}-{given.pictures}.{suffix}", given.rows, given.pictures)
            for found in measured(table, Path(temporary) / f"run-{suffix}", given.code):
                print(json.dumps({"rows": given.rows, "pictures": given.pictures, "format": suffix, **found}))


def measured(table: Path, run: Path, code: Path = ROOT, per_class: int = PER_CLASS) -> Iterator[dict[str, Any]]:
    """Command, peak in MB and seconds of `label` and then of `sample`."""
    for command in (["label", table], ["sample", "--per-class", per_class]):
        words = [sys.executable, "-m", "clasp_calib.cli", *map(str, command), "--run", str(run), "--json"]
        seconds, peak = peak_of(words, code)
        yield {"command": command[0], "peak MB": round(peak / 1e6), "seconds": round(seconds, 1)}


def peak_of(words: list[str], code: Path) -> tuple[float, int]:
    """Seconds and peak resident memory in bytes of a process of its own."""
    variables = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    began = time.monotonic()
    process = subprocess.Popen(words, cwd=code, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    told = process.stderr.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}: {told[-2000:]}")
    return time.monotonic() - began, used.ru_maxrss * 1024


def picture_path(number: int) -> str:
    return f"pictures/{number % 1000:03d}/{number:09d}.png"


def write_pictures(directory: Path, pictures: int) -> None:
    """Noise of 8 x 8 pixels, each picture in a file."""
    done = directory / f".{pictures}"
    if done.exists():
        return
    for folder in range(min(1000, pictures)):
        (directory / f"{folder:03d}").mkdir(parents=True, exist_ok=True)
    for number in range(pictures):
        noise = random.Random(number).randbytes(8 * 24)
        rows = b"".join(b"\0" + noise[begin : begin + 24] for begin in range(0, len(noise), 24))
        header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
        chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
        png = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
        (directory.parent / picture_path(number)).write_bytes(png)
    done.touch()


def write_table(path: Path, rows: int, pictures: int) -> Path:
    """A table of made-up questions, Parquet or JSONL."""
    if path.exists():
        return path
    partial = path.with_name(f"partial-{path.name}")
    if path.suffix == ".jsonl":
        with partial.open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in made_up(rows, pictures))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {"id": pa.string(), "image": pa.string(), "question": pa.string(), "answers": pa.list_(pa.string())}
        source = made_up(rows, pictures)
        with pq.ParquetWriter(partial, pa.schema(kinds)) as writer:
            for begin in range(0, rows, 50_000):
                block = [next(source) for _ in range(min(50_000, rows - begin))]
                writer.write_table(pa.Table.from_pylist(block, pa.schema(kinds)))
    return partial.rename(path)


def made_up(rows: int, pictures: int) -> Iterator[dict[str, Any]]:
    for number in range(rows):
        thing = f"{THINGS[number // 7 % len(THINGS)]} {number}"
        yield {
            "id": f"question-{number:09d}",
            "image": picture_path(number * pictures // rows),
            "question": QUESTIONS[number % len(QUESTIONS)].format(thing),
            "answers": [ANSWERS[number % len(ANSWERS)]],
        }


if __name__ == "__main__":
    main()
