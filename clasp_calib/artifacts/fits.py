"""Whether a model is the one that an artifact was calibrated for: its shape must be, and its weights should."""

from typing import TYPE_CHECKING, Any, Literal
from warnings import warn

from clasp_calib.artifacts.checkpoint_digest import Checkpoint, checkpoint_of
from clasp_calib.artifacts.model_shape import model_shape
from clasp_calib.common.errors import ArtifactError, ClaspWarning

if TYPE_CHECKING:
    from clasp_calib.artifacts.artifact import Artifact

Weights = Literal["same", "other", "untold", "unrecorded"]
"""How a model's weights compare with those of the calibration: ``untold`` if the digests are of different kinds,
``unrecorded`` if the artifact names none, as those of format 1 do."""
LEAST = 12
"""Characters of a digest that name a checkpoint."""


def check_shape(artifact: "Artifact", config: Any, called: str = "the artifact") -> None:
    """Refuse a model of another shape than the artifact was made for.

    Args:
        artifact: the artifact.
        config: the model's transformers configuration.
        called: what the message calls the artifact.

    Raises:
        ArtifactError: naming every shape that differs.
    """
    given = model_shape(config)
    if given.fingerprint != artifact.manifest.fingerprint:
        differences = "; ".join(artifact.manifest.shape.differences(given))
        raise ArtifactError(
            f"{called} was calibrated for {artifact.manifest.model}, and this model differs "
            f"({differences}); use the model that it was made for, or calibrate this one"
        )


def check_fits(
    artifact: "Artifact",
    model: Any,
    *,
    strict: bool = False,
    checkpoint: str | None = None,
    called: str = "the artifact",
) -> Weights:
    """Refuse a model of another shape, and warn once of one with other weights.

    Args:
        artifact: the artifact.
        model: a transformers model.
        strict: refuse other weights, and those that cannot be compared.
        checkpoint: the digest, or its first 12 characters or more, of other weights that are accepted without a word.
        called: what messages call the artifact.

    Returns:
        How the weights compare.

    Raises:
        ArtifactError: another shape; or, if ``strict``, weights that are not known to be the same.
    """
    check_shape(artifact, model.config, called)
    recorded = artifact.manifest.checkpoint
    if recorded is None:
        if strict:
            raise ArtifactError(
                f"{called} names no checkpoint (format {artifact.manifest.format}), so it cannot be told whether "
                "the model has its weights; calibrate again, or leave strict (--strict) out"
            )
        return "unrecorded"
    given = checkpoint_of(model)
    if given == recorded:
        return "same"
    if checkpoint is None or len(checkpoint) < LEAST or not given.digest.startswith(checkpoint):
        told = _told(
            f"{called} was calibrated with the checkpoint {recorded} of {artifact.manifest.model}",
            recorded,
            given,
            checkpoint,
        )
        if strict:
            raise ArtifactError(told)
        warn(told, ClaspWarning, stacklevel=3)
    return "other" if given.comparable(recorded) else "untold"


def _told(calibrated: str, recorded: Checkpoint, given: Checkpoint, accepted: str | None) -> str:
    of = f"{calibrated}, and this model has {given}"
    meant = f"; {accepted!r} was accepted" if accepted else ""
    if not given.comparable(recorded):
        of = f"cannot tell whether this model has the weights of the calibration: {of}, which is of another kind"
    return (
        f"{of}{meant}; use the model that it was made for, or calibrate this one; if you measured that the artifact "
        f"suits it, accept it by name: checkpoint={given.digest[:16]!r} (--checkpoint {given.digest[:16]})"
    )
