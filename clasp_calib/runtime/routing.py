"""Which class a question belongs to, where nobody says it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clasp_calib.common.errors import InputError
from clasp_calib.router_labeling.fallback import fallback_applies, packaged_router
from clasp_calib.router_labeling.language import is_not_english
from clasp_calib.router_labeling.router import Router

if TYPE_CHECKING:
    from clasp_calib.artifacts.artifact import Artifact

AUTO = "auto"
NOT_ENGLISH = "the packaged router knows English only, and is asked what is not: name the class, or train a router"
SHOWN = 12
"""Classes that a message names."""


def router_of(artifact: "Artifact | None" = None) -> Router | None:
    """What names the classes of questions: the artifact's router, or else the packaged one.

    Returns:
        None where there is no choice: the artifact has one class.

    Raises:
        InputError: the artifact has several classes of its own, and no router.
    """
    if artifact is None:
        return packaged_router()
    if artifact.router is not None or len(artifact.classes) == 1:
        return artifact.router
    if fallback_applies(artifact.classes):
        return packaged_router()
    names = ", ".join(artifact.classes[:SHOWN]) + (", ..." if len(artifact.classes) > SHOWN else "")
    column = artifact.manifest.class_from
    given = f" --class-from {column}" if column and not artifact.manifest.taxonomy else " --taxonomy FILE"
    raise InputError(
        f"classes='auto': this artifact has classes of its own ({names}) and no router that tells them apart, and the "
        "packaged router knows only the packaged ones; name the class (--class, classes=), or train a router with "
        f"`clasp-calib train-router TABLE{given}` and put it in with `clasp-calib artifact set-router`"
    )


def classes_of(questions: Sequence[str], artifact: "Artifact | None" = None) -> list[str]:
    """The class of every question.

    Args:
        questions: without picture and template.
        artifact: its router answers, see `router_of`; where it has one class, that is the answer.

    Raises:
        InputError: the artifact has several classes of its own, and no router.
    """
    router = router_of(artifact)
    if router is None:
        (label,) = artifact.classes if artifact else ()
        return [label] * len(questions)
    own = artifact is not None and artifact.router is not None
    if not own and any(map(is_not_english, questions)):
        from clasp_calib.common.progress import note_once

        note_once(NOT_ENGLISH)
    return [router.route(question).label for question in questions]
