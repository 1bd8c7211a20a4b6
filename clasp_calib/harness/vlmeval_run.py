"""VLMEvalKit's own ``run.py`` with the model ``clasp`` among those that it knows: a process of its own.

``python -m clasp_calib.harness.vlmeval_run SETTINGS ARGUMENTS...``; `clasp_calib.harness.vlmeval_launch` starts it.
"""

import json
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any

from clasp_calib.common.errors import ClaspError, InputError
from clasp_calib.common.replacing import replaced
from clasp_calib.harness.harness_options import HarnessOptions
from clasp_calib.harness.token_record import TokenRecord

NAME = "clasp"
_ANSWERS = (".pkl", ".xlsx", ".tsv", ".json", ".jsonl", ".csv")
MARK = "clasp_pruning.json"
"""Beside the answers: what pruned them."""


def main() -> int:
    """Run it; the exit code of the process."""
    settings: dict[str, Any] = json.loads(sys.argv[1])
    sys.argv = ["run.py", *sys.argv[2:]]
    try:
        _run(settings)
    except ClaspError as error:
        return _told(settings, str(error), 2)
    return 0


def _run(settings: dict[str, Any]) -> None:
    options = HarnessOptions(**settings["options"])
    record = TokenRecord({**settings["pruning"], "device": options.device})
    from vlmeval import run
    from vlmeval.config import supported_VLM

    from clasp_calib.harness.vlmeval_model import ClaspVLM, EndedRun

    arguments = run.parse_args()
    if NAME not in (arguments.model or ()):
        raise InputError(
            f"VLMEvalKit is asked for the models {', '.join(arguments.model or ()) or 'of a file'}, and not for "
            f"{NAME}; give --model {NAME} behind --"
        )
    if not arguments.data:
        raise InputError("VLMEvalKit is given no benchmark; name some with --data behind --, such as --data MMStar")
    home = Path(run.os.environ.get("MMEVAL_ROOT", arguments.work_dir)) / NAME
    _mark(home, settings["pruning"])
    supported_VLM[NAME] = partial(ClaspVLM, options, settings["max_new_tokens"], record)
    try:
        run.run_task(arguments)
    except EndedRun as ended:
        error = ended.__cause__
        assert error is not None
        if isinstance(error, ClaspError):
            raise error from None
        traceback.print_exception(error)
        sys.exit(_told(settings, f"{type(error).__name__}: {error}", 70))
    status = json.loads((home / "status.json").read_text())["datasets"]
    record.say()
    tokens = record.write(home) if record.requests else None
    datasets = {name: status.get(name, {}) for name in arguments.data}
    _tell(settings, {"directory": str(home), "datasets": datasets, "visual_tokens": tokens and str(tokens)})


def _mark(home: Path, pruning: dict[str, Any]) -> None:
    """Refuse a directory with answers of another model or pruning.

    ``run.py`` takes every answer that it finds there for one of this run, whether ``--reuse`` is given or not.
    """
    mark = home / MARK
    there = json.loads(mark.read_text()) if mark.exists() else None
    if there is None and any(path.suffix in _ANSWERS for path in home.glob("*_*")):
        raise InputError(f"{home} holds answers, and nothing says what pruned them; give another --work-dir behind --")
    if there is not None and there != pruning:
        names = [name for name in {**there, **pruning} if there.get(name) != pruning.get(name)]
        other = "; ".join(f"{name} {there.get(name)}, not {pruning.get(name)}" for name in names)
        raise InputError(
            f"{home} holds answers of another run ({other}), which VLMEvalKit would take for answers of this one; give "
            "another --work-dir behind --"
        )
    home.mkdir(parents=True, exist_ok=True)
    with replaced(mark) as partial_file:
        partial_file.write_text(json.dumps(pruning, indent=1) + "\n")


def _told(settings: dict[str, Any], error: str, code: int) -> int:
    _tell(settings, {"error": error})
    return code


def _tell(settings: dict[str, Any], result: dict[str, Any]) -> None:
    Path(settings["result"]).write_text(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
