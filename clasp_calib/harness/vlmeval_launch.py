"""Handing over to VLMEvalKit, which has no plug-ins: its ``run.py`` in a process that knows the model ``clasp``."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.common.errors import ComputationError, InputError
from clasp_calib.common.settings import check_count
from clasp_calib.harness.harness_options import HarnessOptions
from clasp_calib.harness.way_choice import check_way

LONGEST = 1024
"""Tokens of an answer. Our choice: benchmarks of VLMEvalKit say none, and its own models differ."""
_NOT_PRUNING = ("device", "batch_size", "strict")


@dataclass(frozen=True)
class VlmevalRun:
    """What VLMEvalKit did."""

    directory: Path
    """Where its files are."""
    datasets: Mapping[str, Mapping[str, Any]]
    """Benchmark -> what VLMEvalKit's ``status.json`` says of it, such as ``metrics`` or ``error_message``."""
    visual_tokens: Path | None
    """JSON with the visual tokens of every request; None if all answers were there."""

    @property
    def failed(self) -> dict[str, str]:
        """Benchmark -> why it has no scores, where it was to have some."""
        return {
            name: str(reason)
            for name, status in self.datasets.items()
            if (reason := status.get("error_message") or status.get("skip_reason") or _unfinished(status))
            and reason != "mode_infer"
        }


def run_vlmevalkit(
    options: HarnessOptions,
    arguments: Sequence[str],
    *,
    max_new_tokens: int = LONGEST,
    stdout: TextIO | None = None,
) -> VlmevalRun:
    """Score a pruned model with VLMEvalKit.

    Answers are kept in ``clasp/`` of VLMEvalKit's ``--work-dir``; a killed run goes on with those. Beside them are what
    pruned them (``clasp_pruning.json``) and the visual tokens of every request.

    Args:
        options: the model and what prunes it.
        arguments: of VLMEvalKit's ``run.py``, such as ``["--data", "MMStar", "--model", "clasp"]``.
        max_new_tokens: longest answer.
        stdout: where its standard output goes; by default to ours.

    Raises:
        ClaspError: options cannot be used; VLMEvalKit is not installed; it is asked for another model or for no
            benchmark; the directory holds answers of another pruning; or an answer fails.
    """
    check_count("max_new_tokens", max_new_tokens, 1)
    check_way(options)
    if find_spec("vlmeval") is None:
        raise InputError(
            "VLMEvalKit is not installed; pip install 'clasp-calib[vlmevalkit]', and see docs/guide/vlmevalkit.md for "
            "what may be in the way"
        )
    pruning = {name: value for name, value in asdict(options).items() if name not in _NOT_PRUNING}
    if options.artifact is not None:
        pruning["artifact_id"] = Artifact.load(options.artifact).manifest.id
    with tempfile.TemporaryDirectory() as place:
        result = Path(place) / "result.json"
        settings = {
            "options": asdict(options),
            "pruning": pruning | {"max_new_tokens": max_new_tokens},
            "max_new_tokens": max_new_tokens,
            "result": str(result),
        }
        words = [sys.executable, "-m", "clasp_calib.harness.vlmeval_run", json.dumps(settings), *arguments]
        code = subprocess.run(words, stdout=stdout, check=False).returncode
        told = json.loads(result.read_text()) if result.exists() else {}
    if code == 2 and "error" in told:
        raise InputError(told["error"])
    if code or "error" in told:
        raise ComputationError(
            f"VLMEvalKit ended with {code} ({told.get('error', 'see what it printed')}); answers that were kept stay: "
            "give the same command again to go on"
        )
    if "directory" not in told:  # It printed its own help.
        return VlmevalRun(Path(), {}, None)
    tokens = told["visual_tokens"]
    return VlmevalRun(Path(told["directory"]), told["datasets"], tokens and Path(tokens))


def _unfinished(status: Mapping[str, Any]) -> str | None:
    return None if status.get("status") == "done" else "it was not finished"
