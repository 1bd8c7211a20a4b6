"""Which class a question belongs to, where nobody says it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clasp_calib.common.errors import InputError
from clasp_calib.router_labeling.fallback import by_rules, rules_apply

if TYPE_CHECKING:
    from clasp_calib.artifacts.artifact import Artifact

AUTO = "auto"
SHOWN = 12
"""Classes that a message names."""


def classes_of(questions: Sequence[str], artifact: "Artifact | None" = None) -> list[str]:
    """The class of every question.

    Args:
        questions: without picture and template.
        artifact: its router answers; where it has one class, that is the answer. If it has the packaged classes and no
            router, or there is no artifact, the packaged keyword rules answer; where none of them applies, it is the
            taxonomy's default class.

    Raises:
        InputError: the artifact has several classes of its own, and no router.
    """
    if artifact is not None and artifact.router is not None:
        return [artifact.router.route(question).label for question in questions]
    if artifact is not None and len(artifact.classes) == 1:
        return [*artifact.classes] * len(questions)
    if artifact is not None and not rules_apply(artifact.classes):
        names = ", ".join(artifact.classes[:SHOWN]) + (", ..." if len(artifact.classes) > SHOWN else "")
        column = artifact.manifest.class_from
        given = f" --class-from {column}" if column and not artifact.manifest.taxonomy else " --taxonomy FILE"
        raise InputError(
            f"classes='auto': this artifact has classes of its own ({names}) and no router that tells them apart, and "
            "keyword rules know only the packaged ones; name the class (--class, classes=), or train a router with "
            f"`clasp-calib train-router TABLE{given}` and put it in with `clasp-calib artifact set-router`"
        )
    return [by_rules(question) for question in questions]
