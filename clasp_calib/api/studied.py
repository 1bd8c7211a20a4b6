"""What a study of an artifact begins with: the artifact, its budgets, and the samples to measure on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clasp_calib.common.settings import check_count, check_kind

if TYPE_CHECKING:
    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.artifacts.fits import Weights
    from clasp_calib.common.sample_set import Samples
    from clasp_calib.common.samples import Sample


@dataclass(frozen=True)
class StudyOptions:
    """What an artifact is measured on.

    Attributes:
        split: of the samples.
        per_class: samples of a class, at most; ``None`` takes all.
        seed: of which samples these are, of everything random, and of the bootstrap.
        strict: refuse a model that does not have the weights of the calibration, of which there is a warning otherwise.
        checkpoint: accept a model with other weights by their digest, as the warning names it.

    Raises:
        InputError: a value that cannot be used.
    """

    split: str = "test"
    per_class: int | None = None
    seed: int = 0
    strict: bool = field(default=False, kw_only=True)
    checkpoint: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse what would choose something else than it says."""
        for name, kind, expected in (
            ("split", str, "a name such as 'test'"),
            ("strict", bool, "True or False"),
            ("record", bool, "True or False"),
            ("checkpoint", str, "a digest, as the warning names it"),
        ):
            check_kind(name, getattr(self, name, None), kind, expected)
        for name, least in (("per_class", 1), ("seed", 0), ("solve_on", 1), ("timed", 0)):
            if (value := getattr(self, name, None)) is not None:
                check_count(name, value, least)


@dataclass(frozen=True)
class Studied:
    """An artifact, and what to measure it on."""

    artifact: "Artifact"
    home: Path | None
    """The directory that the artifact was read from, if it is the user's own and may be written to."""
    budgets: tuple[str, ...]
    samples: "Sequence[Sample]"
    """Of all splits."""
    digest: str
    """Of the samples, as an artifact records it."""
    chosen: "Mapping[str, Sequence[Sample]]"
    """Class -> its samples of the split that is measured."""
    weights: "Weights"
    """How the model's weights compare with those of the calibration."""

    @property
    def summary(self) -> dict[str, Any]:
        """What belongs together, for a log."""
        place = self.home or self.artifact.manifest.id
        return {"artifact": place, "samples": self.digest, "budgets": self.budgets}

    def identity(self, model: Any, processor: Any, threads: int) -> dict[str, Any]:
        """What decides answers but for pictures and method: model, processor, table, prompt, decoding, CPU threads."""
        from clasp_calib.artifacts.checkpoint_digest import weights_digest
        from clasp_calib.calib.scoring.model_settings import model_settings
        from clasp_calib.runtime.decoding import Greedy

        return {
            "weights": weights_digest(model),
            **model_settings(model, processor),
            "samples": self.digest,
            "prompt": self.artifact.manifest.prompt,
            "decoding": self.artifact.manifest.decoding.model_dump(),
            "generation": Greedy(model).settings,
            "dtype": str(model.dtype).removeprefix("torch."),
            # What computes on a GPU does not count on them.
            "threads": threads if model.device.type == "cpu" else None,
        }

    @property
    def questions(self) -> "list[Sample]":
        """The chosen samples of all classes."""
        return [sample for of in self.chosen.values() for sample in of]


def as_calibrated(samples: "Samples", artifact: "Artifact") -> "Samples":
    """Samples with the classes that the artifact's calibration would give them.

    Raises:
        InputError: see `clasp_calib.router_labeling.class_source.labelled`.
    """
    from clasp_calib.router_labeling.class_source import labelled
    from clasp_calib.router_labeling.classes import LABELS

    of = artifact.manifest
    if of.taxonomy and of.class_from == LABELS:
        return samples
    return labelled(samples, of.class_from, of.classes, of.default_class)


def other_table(artifact: "Artifact", budgets: Sequence[str], digest: str) -> bool:
    """Whether one of these budgets of an artifact was calibrated on another table than that of the digest."""
    made = artifact.manifest.provenance.items()
    return any(of.samples != digest for name, of in made if name in budgets)


def studied(
    model: Any,
    processor: Any,
    artifact: "Artifact | Path | str",
    samples: Any,
    budgets: Sequence[str | int] | str | int | None,
    options: StudyOptions,
    hints: Path | None = None,
) -> Studied:
    """Read everything, and check that it belongs together; for ``hints`` see `clasp_calib.common.contents.identified`.

    Raises:
        ArtifactError: the artifact cannot be read, is of another model, or lacks a budget.
        InputError: the samples cannot be used.
        ModelError: the processor is not the model's.
    """
    from clasp_calib.artifacts.artifact import Artifact, read_artifact
    from clasp_calib.artifacts.fits import check_fits
    from clasp_calib.artifacts.hub import locate_artifact
    from clasp_calib.calib.dataset import by_class, calibration_samples, of_split
    from clasp_calib.common.progress import note
    from clasp_calib.common.sample_sources import load_samples
    from clasp_calib.runtime.decoding import Greedy
    from clasp_calib.runtime.processor_check import check_processor
    from clasp_calib.runtime.schedule import parse_budgets

    check_processor(model, processor)
    home = None
    if isinstance(artifact, Artifact):
        known = artifact
    else:
        place = locate_artifact(artifact)
        known = read_artifact(place)
        home = place if place == Path(artifact) else None
    names = tuple(budget.name for budget in parse_budgets(budgets)) if budgets else known.budgets
    for name in names:
        known.entry(name)
    table = load_samples(samples)
    everything = calibration_samples(as_calibrated(table, known), known.classes, hints=hints)
    chosen = by_class(of_split(everything, options.split), known.classes, options.per_class, options.seed)
    weights = check_fits(known, model, strict=options.strict, checkpoint=options.checkpoint)
    Greedy(model).say(known.manifest.decoding.generation)
    if other_table(known, names, table.digest):
        note(
            f"note: {table.name} is not the table that the artifact was calibrated on, and the artifact does not hold "
            "which pictures those were; if some are among these, the scores flatter it"
        )
    return Studied(known, home, names, everything, table.digest, chosen, weights)
