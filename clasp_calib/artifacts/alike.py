"""Whether the same questions can be put to two artifacts alike."""

from collections.abc import Iterable, Iterator
from typing import Any

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.artifacts.manifest import Manifest
from clasp_calib.common.errors import ArtifactError
from clasp_calib.router_labeling.classes import LABELS

_SHOWN = 5
"""Classes or intents that a message names."""


def check_alike(name: str, artifact: Artifact, first: Artifact) -> None:
    """Refuse an artifact whose questions are put, answered or classed in another way than those of the first.

    Raises:
        ArtifactError: naming all that differs.
    """
    if told := "; ".join(_differences(artifact.manifest, first.manifest)):
        raise ArtifactError(
            f"the artifact {name!r} cannot stand beside the first, for they differ in their {told}; calibrate it again "
            "under the settings of the first, or compare it alone"
        )


def _differences(own: Manifest, first: Manifest) -> Iterator[str]:
    if alone := {*own.classes} ^ {*first.classes}:
        yield f"classes (only one of them has {_some(alone)})"
    elif moved := dict(own.taxonomy.items() ^ first.taxonomy.items()):
        yield f"taxonomy (at {_some(moved)})"
    mine, others = _compared(own), _compared(first)
    for what in mine:
        if mine[what] != others[what]:
            yield f"{what} ({mine[what]!r:.200}, not {others[what]!r:.200})"
    decoded = own.decoding.generation, first.decoding.generation
    if None not in decoded and decoded[0] != decoded[1]:
        yield "decoding.generation ({!r:.200}, not {!r:.200})".format(*decoded)


def _compared(of: Manifest) -> dict[str, Any]:
    labelled = of.taxonomy and of.class_from == LABELS
    return {
        "class_from": of.class_from,
        # Samples that were labelled have a class, whatever this is.
        "default_class": None if labelled else of.default_class,
        "prompt": of.prompt,
        "decoding.do_sample": of.decoding.do_sample,
        "decoding.max_new_tokens": of.decoding.max_new_tokens,
    }


def _some(names: Iterable[str]) -> str:
    every = sorted(names)
    return ", ".join(map(repr, every[:_SHOWN])) + (", ..." if len(every) > _SHOWN else "")
