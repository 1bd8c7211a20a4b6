"""Pictures in the size that an artifact shows those of a class in."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.common.media import Media


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

    The processors of Idefics3 and SmolVLM enlarge them again unless they are told ``do_resize=False``.

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
    from clasp_calib.common.media import ResizedPicture
    from clasp_calib.common.progress import note_once
    from clasp_calib.runtime.pictures import load_picture
    from clasp_calib.runtime.smaller_pictures import as_sized

    known = artifact if isinstance(artifact, Artifact) else Artifact.load(artifact)
    shown = shown_smaller(model, processor, images, known.downsample(budget, class_))
    told = ", ".join(f"{name}={value}" for name, value in as_sized(processor).items())
    if told and any(isinstance(one, ResizedPicture) for one in shown):
        note_once(f"give {told} to the {type(processor).__name__} with these pictures, or it enlarges them again")
    return [load_picture(one, processor) for one in shown]


def shown_smaller(model: Any, processor: Any, images: Any, share: float | None) -> "list[Media]":
    """Pictures with at most a share of their tokens, not opened yet; ``None`` leaves them as they are.

    Raises:
        BudgetError: a picture cannot be made small enough.
        InputError: a picture cannot be read, or is a video.
    """
    from clasp_calib.calib.scoring.sizes import Sizes
    from clasp_calib.common.samples import Sample
    from clasp_calib.runtime.model_inputs import several

    asked = Sample("the question", "", several(images))
    return [one.picture for one in Sizes(model, processor).shown(asked, share).alone]
