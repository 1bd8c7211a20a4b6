"""The run directory: one folder in which each command finds what the last one left."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clasp_calib.common.errors import InputError
from clasp_calib.common.given_files import check_regular, read_given
from clasp_calib.common.replacing import replaced
from clasp_calib.common.strict_json import strict_json

DEFAULT_RUN = Path("clasp-run")
MOST_SETTINGS = 64 << 20
"""Bytes of ``config.json``."""
_MEND = "mend or remove it"


class _Place:
    """What a run directory has under a name."""

    def __init__(self, name: str):
        self._name = name

    def __get__(self, run: "RunDirectory", _: object = None) -> Path:
        return run.root / self._name


@dataclass(frozen=True)
class RunDirectory:
    """Names of the files of one calibration run; nothing is created before it is written to."""

    root: Path = DEFAULT_RUN

    samples = _Place("samples.parquet")
    """The sample table that the run started from."""
    labels = _Place("labels.parquet")
    """The sample table with ``intent`` and ``class``."""
    labelling = _Place("labelling")
    """Journals of what language models answered."""
    router = _Place("router.safetensors")
    """The router that was trained on the labels."""
    sample = _Place("sample.parquet")
    """What was drawn of a large labelled table."""
    pictures = _Place("pictures")
    """Pictures that came within a dataset and not as files."""
    hints = _Place("pictures.parquet")
    """Which file holds which picture, so that it need not be read again to know."""
    cache = _Place("cache")
    """The feature cache."""
    study = _Place("study")
    """The search's trials."""
    artifact = _Place("artifact")
    """The calibrated artifact."""
    comparison = _Place("comparison")
    evaluation = _Place("evaluation")
    """Answers of pruning methods that were compared."""
    report = _Place("report")
    """Tables and plots."""
    errors = _Place("errors.log")
    """Tracebacks of what nobody foresaw."""

    def prepare(self) -> None:
        """Create the directory and check that it can be written to: do it before hours of work.

        Raises:
            InputError: the path is a file, or cannot be created or written to; or its ``config.json`` is damaged.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / ".write-probe"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise InputError(
                f"cannot write to the run directory {self.root} ({error.strerror}); "
                "give a directory that you may write to with --run"
            ) from error
        self.configuration()

    def record(self, command: str, configuration: dict[str, Any]) -> None:
        """Keep the configuration that ``command`` used in ``config.json``, and a line in ``log.jsonl``."""
        self.prepare()
        self._write({**self.configuration(), command: configuration})
        self.log(command=command, **configuration)

    @property
    def model(self) -> tuple[str, str] | None:
        """What the run's model is called, and where it is loaded from; ``None`` if no command was given one."""
        known = self.configuration().get("model")
        return (known["name"], known["source"]) if known else None

    def remember_model(self, name: str, source: str) -> None:
        """Keep what the run's model is called and where it lies, so that it need not be given again."""
        if self.model != (name, source):
            self._write({**self.configuration(), "model": {"name": name, "source": source}})

    @property
    def table(self) -> Path:
        """What commands read that are given no samples: the labelled ones, or those that `remember_table` was told."""
        known = self.configuration().get("table")
        return self.labels if self.labels.exists() or not isinstance(known, str) else Path(known)

    def remember_table(self, path: Path | None) -> None:
        """Keep where the samples of a run lie that nobody has labelled, if they were given, so that once is enough."""
        if path is not None and not self.labels.exists():
            from clasp_calib.common.sample_readers import absolute

            self._write({**self.configuration(), "table": absolute(path)})

    def configuration(self) -> dict[str, Any]:
        """What each command of this run was given; empty for a fresh directory.

        Raises:
            InputError: ``config.json`` is not a JSON object, or does not say what it should of the model.
        """
        path = self.root / "config.json"
        if not path.exists():
            return {}
        try:
            config = strict_json(read_given(path, MOST_SETTINGS, advice=_MEND), finite=False)
        except ValueError as error:
            raise InputError(f"{path} is not JSON ({error}); {_MEND}") from error
        if not isinstance(config, dict):
            raise InputError(f"{path} holds a {type(config).__name__}, expected an object; {_MEND}")
        model = config.get("model")
        if model is not None and not (
            isinstance(model, dict) and all(isinstance(model.get(key), str) for key in ("name", "source"))
        ):
            raise InputError(f"{path}: model is {model!r:.100}, expected an object with name and source; {_MEND}")
        return config

    def log(self, **event: Any) -> None:
        """Append one event to ``log.jsonl``."""
        line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **event}, default=str)
        path = self.root / "log.jsonl"
        if path.exists():
            check_regular(path, "log")
        with path.open("a") as file:
            file.write(line + "\n")

    def _write(self, config: dict[str, Any]) -> None:
        path = self.root / "config.json"
        with replaced(path) as partial:
            partial.write_text(json.dumps(config, indent=2, sort_keys=True, default=str) + "\n")
