"""Pictures in the size that an artifact shows those of a class in."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

    from clasp_calib.artifacts.artifact import Artifact


def resized(
    model: Any,
    processor: Any,
    images: Any,
    artifact: "Artifact | Path | str",
    *,
    budget: str | int,
    class_: str,
) -> "Sequence[Image.Image]":
    """Pictures as `clasp` expects those of a class with ``smaller=True``; as they are where the class has its own size.

    Args:
        model: the model that the artifact was calibrated for.
        processor: the model's.
        images: a picture, as a path or of PIL, or a list of them.
        artifact: an artifact, its directory, or ``org/name@version``.
        budget: one of the artifact's.
        class_: of the question.

    Returns:
        Every picture, upright and in RGB, to give to the processor.

    Raises:
        ArtifactError: the artifact cannot be read, or has no such budget or class.
        BudgetError: a picture cannot be made small enough.
        InputError: a picture cannot be read, or is a video.
    """
    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.calib.scoring.sizes import Sizes
    from clasp_calib.common.samples import Sample
    from clasp_calib.runtime.model_inputs import several
    from clasp_calib.runtime.pictures import load_picture

    known = artifact if isinstance(artifact, Artifact) else Artifact.load(artifact)
    asked = Sample("the question", "", several(images))
    shown = Sizes(model, processor).shown(asked, known.downsample(budget, class_))
    return [load_picture(one.picture, processor) for one in shown.alone]
