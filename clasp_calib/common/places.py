"""Where a call reads and keeps things: in a run directory, at places of their own, or nowhere."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from clasp_calib.common.errors import InputError
from clasp_calib.common.run_directory import RunDirectory


@dataclass(frozen=True)
class Places:
    """Where features are read, and where what is made is kept. What has no place is kept in memory, or not at all.

    Attributes:
        root: run directory, for its configuration and log.
        features: feature cache; ``None`` runs the vision tower on the pictures.
        study: directory of a search's scores.
        artifact: directory of the artifact.
        comparison: directory of the answers of a comparison.
        evaluation: directory of the scores of an evaluation or an ablation, until it ends.
        report: directory of tables and plots.
        storage: Optuna's storage, such as ``sqlite:///FILE``; by default a file in the study's directory.
    """

    root: Path | None = None
    features: Path | None = None
    study: Path | None = None
    artifact: Path | None = None
    comparison: Path | None = None
    evaluation: Path | None = None
    report: Path | None = None
    storage: str | None = None

    def __post_init__(self) -> None:
        """Take texts for directories too."""
        for name in {field.name for field in fields(self)} - {"storage"}:
            if isinstance(given := getattr(self, name), str):
                object.__setattr__(self, name, Path(given))

    @classmethod
    def of(cls, run: "str | Path | Places | None", **others: Any) -> "Places":
        """The places of a run directory, which is made; some of them may be ``others``. The report's directory is made.

        Raises:
            InputError: the directory cannot be made or written to.
        """
        if isinstance(run, Places):
            if run.report is not None:
                try:
                    run.report.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise InputError(f"cannot make {run.report} ({error}); give the report another place") from error
            return run
        if run is None:
            return cls(**others)
        directory = RunDirectory(Path(run))
        directory.prepare()
        directory.report.mkdir(exist_ok=True)
        own = {name: getattr(directory, name) for name in ("study", "artifact", "comparison", "evaluation", "report")}
        return cls(**{"root": directory.root, "features": directory.cache, **own, **others})

    def record(self, command: str, **configuration: Any) -> None:
        """Keep in the run directory, if there is one, what was asked for."""
        if self.root is not None:
            RunDirectory(self.root).record(command, configuration)


def hints_of(run: str | Path | Places | None) -> Path | None:
    """Where a run directory, if there is one, remembers which pictures are the same; nothing is made."""
    root = run.root if isinstance(run, Places) else run
    return None if root is None else RunDirectory(Path(root)).hints
