"""Recorded scores of an artifact, measured again."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from clasp_calib.api.studied import as_calibrated
from clasp_calib.common.places import Places, hints_of
from clasp_calib.common.settings import check_count

if TYPE_CHECKING:
    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.calib.studies.recheck import Rechecked


def recheck(
    model: Any,
    processor: Any,
    artifact: "Artifact | Path | str",
    samples: Any,
    count: int,
    *,
    run: str | Path | Places | None = None,
    seed: int = 0,
) -> "list[Rechecked]":
    """Measure ``count`` of the recorded scores of the calibrated setting again, over all budgets.

    On the same kind of machine in the same dtype all should agree. Elsewhere rounding may flip an answer whose two best
    tokens are nearly equally likely.

    Args:
        model: the model that the artifact was calibrated for.
        processor: the model's.
        artifact: an artifact with recorded scores, its directory, or ``org/name@version``.
        samples: those that it was evaluated on, as `load_samples` takes them.
        count: how many; all if there are fewer.
        run: run directory, whose feature cache is used, and filled with what is measured; without one the vision tower
            runs.
        seed: of the choice.

    Raises:
        ArtifactError: the artifact is of another model, or records no scores.
        InputError: a sample that it records is not among these, or ``count`` is below 1.
        CacheError: a picture or a layer is not cached.
        ModelError: the processor is not the model's.
    """
    from clasp_calib.api.featured import filled
    from clasp_calib.api.undisturbed import undisturbed
    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.artifacts.fits import check_fits
    from clasp_calib.calib.dataset import calibration_samples
    from clasp_calib.calib.scoring.feature_sources import open_source
    from clasp_calib.calib.studies.evaluation import evaluator_for, layers_used, shown_by
    from clasp_calib.calib.studies.recheck import measure_again, some_recorded
    from clasp_calib.common.sample_sources import load_samples
    from clasp_calib.runtime.decoding import Greedy
    from clasp_calib.runtime.processor_check import check_processor

    check_count("count", count, 1)
    check_processor(model, processor)
    known = artifact if isinstance(artifact, Artifact) else Artifact.load(artifact)
    table = calibration_samples(as_calibrated(load_samples(samples), known), known.classes, hints=hints_of(run))
    check_fits(known, model)
    Greedy(model).say(known.manifest.decoding.generation)
    chosen = some_recorded(known, table, count, seed)
    asked = [sample for _, sample in chosen]
    with undisturbed(model):
        shown = shown_by(model, processor, known, asked, sorted({row.budget for row, _ in chosen}))
        places = filled(model, processor, shown, run, layers_used(model, known))
        source = open_source(places.features, model, processor)
        return measure_again(evaluator_for(model, processor, known, shown, source), model, known, chosen)
