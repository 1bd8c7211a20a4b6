"""Peak memory and time of reading files as large as VQAv2's and COCO's training parts.

Run from the repository's root:

    .venv/bin/python benchmarks/large_readers.py [--scale 1]

The files are made up in the published layouts: 443,757 questions about 82,783 pictures with ten answers each, and five
captions for each of 82,783 pictures. The pictures are empty files, since reading only looks whether they are there.
Each reading is a process of its own, and the peak is what the kernel counts of it (``ru_maxrss``): of the rows alone,
of `load_samples`, which keeps them, and of `label` with keyword rules.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PICTURES, QUESTIONS, CAPTIONS = 82_783, 443_757, 5
WORDS = ("yes", "no", "red", "2", "left", "a dog", "tennis", "pizza", "on the table", "wood", "nothing", "frisbee")
KINDS = ("is the", "what is this", "how many", "what color is the", "none of the above")
READ = """
import json, resource, sys, time
from pathlib import Path
from clasp_calib.api.labelling import label
from clasp_calib.common.sample_readers import SampleSource, reader_for
from clasp_calib.common.sample_sources import load_samples
source, how = sys.argv[1:]
begun = time.perf_counter()
if how == "rows":
    chosen = reader_for(Path(source), {})
    rows = sum(1 for _ in chosen.reader.rows(SampleSource(chosen.text)))
elif how == "load_samples":
    rows = len(load_samples(source))
else:
    rows = len(label(source, run=how))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"rows": rows, "seconds": round(time.perf_counter() - begun, 1), "peak_mb": round(peak)}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1, help="part of the full size")
    scale = parser.parse_args().scale
    with tempfile.TemporaryDirectory() as temporary:
        home, chance = Path(temporary), random.Random(0)
        names = [f"COCO_train2014_{number:012d}.jpg" for number in range(1, round(PICTURES * scale) + 1)]
        (home / "train2014").mkdir()
        for name in names:
            (home / "train2014" / name).touch()
        vqa = write_vqa(home, round(QUESTIONS * scale), len(names), chance)
        coco = write_captions(home, names, chance)
        for source in (vqa, coco):
            size = sum(Path(path).stat().st_size for path in source.split("+")) / 1e6
            for how in ("rows", "load_samples", "label"):
                done = subprocess.run(
                    [sys.executable, "-c", READ, source, str(home / how) if how == "label" else how],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                told = {"files": "+".join(Path(path).name for path in source.split("+")), "mb": round(size), "how": how}
                print(json.dumps(told | json.loads(done.stdout)), flush=True)


def write_vqa(home: Path, questions: int, pictures: int, chance: random.Random) -> str:
    """The two files, in one order, as the published ones."""
    asked = [(10 * number + number % 5, 1 + number % pictures) for number in range(questions)]
    head = {"info": {}, "task_type": "Open-Ended", "data_type": "mscoco", "license": {}, "data_subtype": "train2014"}
    rows = (
        {"image_id": image, "question": f"What is the {chance.choice(WORDS)} in {key} doing there?", "question_id": key}
        for key, image in asked
    )
    _write(home / "questions.json", head, {"questions": rows})
    annotated = (
        {
            "question_type": chance.choice(KINDS),
            "multiple_choice_answer": chance.choice(WORDS),
            "answers": [
                {
                    "answer": f"{chance.choice(WORDS)} {chance.randrange(2000)}",
                    "answer_confidence": "yes",
                    "answer_id": n,
                }
                for n in range(1, 11)
            ],
            "image_id": image,
            "answer_type": "other",
            "question_id": key,
        }
        for key, image in asked
    )
    _write(home / "annotations.json", {"info": {}, "data_subtype": "train2014"}, {"annotations": annotated})
    return f"{home / 'questions.json'}+{home / 'annotations.json'}"


def write_captions(home: Path, names: list[str], chance: random.Random) -> str:
    """One file."""
    images = (
        {"license": 5, "file_name": name, "coco_url": f"http://images.cocodataset.org/train2014/{name}", "id": number}
        for number, name in enumerate(names, 1)
    )
    captions = (
        {"image_id": 1 + n % len(names), "id": n, "caption": f"A {' '.join(chance.choices(WORDS, k=8))} number {n}."}
        for n in range(CAPTIONS * len(names))
    )
    _write(home / "captions.json", {"info": {}}, {"images": images, "annotations": captions})
    return str(home / "captions.json")


def _write(path: Path, head: dict[str, Any], arrays: dict[str, Iterable[dict[str, Any]]]) -> None:
    def parts() -> Iterator[str]:
        yield json.dumps(head)[:-1]
        for key, rows in arrays.items():
            yield f', "{key}": ['
            for number, row in enumerate(rows):
                yield (", " if number else "") + json.dumps(row)
            yield "]"
        yield "}"

    with path.open("w") as file:
        file.writelines(parts())


if __name__ == "__main__":
    main()
