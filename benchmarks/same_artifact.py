"""Show that a change moves no result: the artifact of a small calibration, before and after, byte for byte.

Run from the repository's root, with the commit to compare the working tree with:

    .venv/bin/python benchmarks/same_artifact.py HEAD~1

Both sides label, cache, search three times and evaluate on the embedded model, one thread each, one after the other.
The manifest's package versions may differ; every other byte of the artifact must not. Where a change is meant to change
the format, the entries of the manifest that differ are named.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

MANIFEST = "artifact.json"
ROOT = Path(__file__).parents[1]
COMMANDS = (
    ("quickstart", "--run", "run", "--pictures", "9", "5", "--budget", "128"),
    ("search", "--run", "run", "--budget", "40%", "--strategy", "race", "--per-class", "4"),
    ("search", "--run", "run", "--budget", "96", "--strategy", "grid", "--per-class", "2", "--refine", "coordinate"),
    ("search", "--run", "run", "--budget", "96", "--strategy", "two-step", "--per-class", "2"),
    ("evaluate", "--run", "run", "--timed", "0"),
)


def main() -> int:
    """Calibrate with both sides and compare what comes out."""
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    with tempfile.TemporaryDirectory() as place:
        before = Path(place) / "code"
        subprocess.run(["git", "worktree", "add", "--detach", before, sys.argv[1]], cwd=ROOT, check=True)
        try:
            sides = [calibrated(before, Path(place) / "before"), calibrated(ROOT, Path(place) / "after")]
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", before], cwd=ROOT, check=True)
    differing = changed(*sides)
    print(f"{len(sides[0])} files before, {len(sides[1])} after; differing: {', '.join(differing) or 'none'}")
    if MANIFEST in differing:
        manifests = [json.loads(side[MANIFEST]) for side in sides]
        print(f"of {MANIFEST}: {', '.join(changed(*manifests))}")
    return 1 if differing else 0


def changed(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Names whose values differ."""
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


def calibrated(code: Path, place: Path) -> dict[str, bytes]:
    """The files of the artifact that a version of the code makes, the manifest without versions and what they hash."""
    place.mkdir()
    variables = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    for command in COMMANDS:
        print(f"{place.name}: clasp-calib {' '.join(command)}", flush=True)
        words = [sys.executable, "-m", "clasp_calib.cli", *command]
        subprocess.run(words, cwd=place, env=variables, check=True, stdout=subprocess.DEVNULL)
    home = place / "run" / "artifact"
    files = {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}
    manifest = json.loads(files[MANIFEST])
    for provenance in manifest["provenance"].values():
        provenance["versions"] = None
    files[MANIFEST] = json.dumps({**manifest, "id": None}, indent=1).encode()
    return files


if __name__ == "__main__":
    sys.exit(main())
