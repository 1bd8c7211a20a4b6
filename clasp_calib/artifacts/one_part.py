"""One part of a calibration alone, as an artifact of its own: its mixtures, or what selects its tokens."""

from typing import Any

import numpy as np

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.artifacts.choices import ClassChoice
from clasp_calib.artifacts.manifest import BudgetEntry
from clasp_calib.common.errors import InputError
from clasp_calib.common.settings import one_of

FUSION, RATIO = "fusion", "ratio"
PARTS = {
    FUSION: "the mixtures of vision layers, with rho = 1 and without other selectors",
    RATIO: "the ratios and selectors, on the model's own vision layer",
}
"""As in ``ablate parts``, and the paper's Table 10."""


def one_part(artifact: Artifact, part: str) -> Artifact:
    """The artifact that has one part of a calibration, and otherwise what a model does by default.

    What rates tokens and how large pictures are shown are the model's own. The evidence for the calibration's choices
    is none for these, so it is left out.

    Args:
        artifact: the calibration.
        part: one of `PARTS`.

    Raises:
        InputError: there is no such part, or the calibration rates no tokens, so that rho means nothing.
    """
    one_of("part", part, PARTS)
    of = artifact.manifest
    if not artifact.pruning.rated:
        raise InputError(
            "the artifact was calibrated without a relevance (relevance none), so rho means nothing and it has no parts"
        )
    alphas, rhos = artifact.alphas, artifact.rhos
    if part == FUSION:
        rhos = np.ones_like(rhos)
    else:
        alphas = np.zeros_like(alphas)
        alphas[..., of.shape.vision_feature_layer] = 1
    made = {
        "name": f"{of.name}, {part} alone",
        "budgets": tuple(_entry(entry, part) for entry in of.budgets),
        "provenance": {
            name: one.model_copy(update={"strategy": f"{part} alone, of {of.id or 'an artifact'}"})
            for name, one in of.provenance.items()
        },
        "id": None,
    }
    return Artifact(of.model_copy(update=made), alphas, rhos, router=artifact.router)


def _entry(entry: BudgetEntry, part: str) -> BudgetEntry:
    nothing: dict[str, Any] = {"decision": None, "alternatives": {}, "results": {}, "measured": None}
    choices = {label: _choice(choice, part) for label, choice in entry.choices.items()}
    return entry.model_copy(update={**nothing, "choices": choices})


def _choice(choice: ClassChoice, part: str) -> ClassChoice:
    return ClassChoice(
        prototype=choice.prototype if part == FUSION else "own",
        seeding=choice.seeding,
        selector=choice.selector if part == RATIO else None,
        candidates=1,
        evaluations=0,
        calibration=None,
    )
