"""What must agree within an artifact: its manifest, its arrays and its router."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from clasp_calib.artifacts.manifest import Manifest, RouterEntry
from clasp_calib.common.errors import ArtifactError
from clasp_calib.router_labeling.router import Router

CONVEX = 1e-5
"""How far the sum of a mixture in float32 may lie from 1."""


def check_content(
    manifest: Manifest, alphas: NDArray[np.float32], rhos: NDArray[np.float32], router: Router | None
) -> None:
    """Refuse arrays or a router that the manifest does not speak of; arguments as the fields of an artifact.

    Raises:
        ArtifactError: saying what differs.
    """
    expected = (len(manifest.budgets), len(manifest.classes), manifest.shape.vision_layers + 1)
    if alphas.shape != expected or rhos.shape != expected[:2]:
        raise ArtifactError(
            f"the arrays have shapes {alphas.shape} and {rhos.shape}; "
            f"the manifest speaks of {expected} and {expected[:2]}"
        )
    if alphas.dtype != np.float32 or rhos.dtype != np.float32:
        raise ArtifactError(f"the arrays are {alphas.dtype} and {rhos.dtype}; expected float32")
    if not bool(np.isfinite(alphas).all() and np.isfinite(rhos).all()):
        raise ArtifactError("the arrays hold numbers that are not finite")
    if bool((alphas < 0).any()) or bool((np.abs(alphas.sum(-1) - 1) > CONVEX).any()):
        raise ArtifactError("a mixture is not convex: its weights must be non-negative and sum to 1")
    if bool((rhos < 0).any() or (rhos > 1).any()):
        raise ArtifactError("a rho lies outside [0, 1]")
    if router is not None:
        check_router(router, manifest.classes, [p.taxonomy for p in manifest.provenance.values()])
    if manifest.router != (None if router is None else router_entry(router)):
        raise ArtifactError("router: the manifest and the router's file do not say the same")


def check_router(router: Router, classes: Sequence[str], taxonomies: Iterable[str]) -> None:
    """Refuse a router that was trained for another artifact: ask before hours of work.

    Args:
        router: the router.
        classes: the artifact's.
        taxonomies: hex sha256 of the taxonomies that the labels of the artifact's budgets follow.

    Raises:
        ArtifactError: the classes or the taxonomies differ.
    """
    if router.classes != tuple(classes):
        raise ArtifactError(
            f"router: it knows the classes {', '.join(router.classes)}, and the artifact {', '.join(classes)}; "
            "train it on labels of the artifact's taxonomy"
        )
    others = sorted(set(taxonomies) - {router.taxonomy})
    if others:
        raise ArtifactError(
            f"router: its labels follow the taxonomy {router.taxonomy[:12]}, and the artifact's {others[0][:12]}; "
            "train it on labels of that one"
        )


def router_entry(router: Router) -> RouterEntry:
    """What a manifest says of a router."""
    training = router.training
    return RouterEntry(
        kind="ngrams+words" if router.network else "ngrams",
        taxonomy=router.taxonomy,
        threshold=router.threshold,
        labels=training.labels,
        rows=training.rows,
    )
