"""What commands that measure an artifact begin with: the artifact, its budgets, the questions, and the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clasp_calib.commands.models import load
from clasp_calib.common.run_directory import RunDirectory

if TYPE_CHECKING:
    from clasp_calib.common.samples import Sample


@dataclass(frozen=True)
class Opened:
    """An artifact of a run and what to measure it on."""

    directory: RunDirectory
    place: Path
    artifact: Any
    budgets: tuple[str, ...]
    table: Path
    everything: "Sequence[Sample]"
    """The samples of all splits."""
    chosen: "Mapping[str, Sequence[Sample]]"
    """By class, those of the split."""
    model: Any
    processor: Any

    @property
    def questions(self) -> "list[Sample]":
        """The chosen samples of all classes."""
        return [sample for of in self.chosen.values() for sample in of]


def opened(
    run: Path,
    artifact: Path | None,
    budget: Sequence[str] | None,
    samples: Path | None,
    split: str,
    model: str,
    device: str,
    dtype: str,
    per_class: int | None,
    limit: int | None,
    seed: int,
) -> Opened:
    """Read everything, and check that it belongs together.

    Raises:
        ClaspError: something is missing, or is of another model.
    """
    from clasp_calib.artifacts.artifact import read_artifact
    from clasp_calib.artifacts.files import check_fits
    from clasp_calib.artifacts.hub import locate_artifact
    from clasp_calib.calib.dataset import by_class, load_samples, of_split
    from clasp_calib.runtime.schedule import parse_budget

    directory = RunDirectory(run)
    directory.prepare()
    place = artifact or directory.artifact
    known = read_artifact(locate_artifact(place))
    names = tuple(parse_budget(b).name for b in budget) if budget else tuple(known.budgets)
    for name in names:
        known.entry(name)
    table = samples or directory.labels
    everything = load_samples(table, known.classes, limit)
    chosen = by_class(of_split(everything, split), known.classes, per_class, seed)
    loaded, processor = load(model, device, dtype)
    check_fits(known, loaded.config)
    return Opened(directory, place, known, names, table, everything, chosen, loaded, processor)
