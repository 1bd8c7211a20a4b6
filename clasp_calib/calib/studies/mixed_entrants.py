"""Entrants that are given the calibration's mixture of vision layers too, so that choosing tokens is compared alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from clasp_calib.artifacts.manifest import CALIBRATED
from clasp_calib.baselines.registry import METHODS
from clasp_calib.calib.studies.contest import MIXED, SELECTION, WHOLE, Entrant
from clasp_calib.calib.studies.own_entrants import AsSet, AtRandom
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.tower import fused_tower

Apply = Callable[[Any, Sample, int], AbstractContextManager[Any]]
Alphas = Mapping[str, tuple[float, ...]]
"""Class -> weights of the tower's layers."""


@dataclass(frozen=True)
class Mixed:
    """Prune as another does, where tokens are made of a mixture of the tower's layers.

    Attributes:
        of: how the other prunes.
        alphas: the mixtures.
    """

    of: Apply
    alphas: Alphas

    @contextmanager
    def __call__(self, model: Any, sample: Sample, seed: int) -> Iterator[Any]:
        """See `Entrant.apply`."""
        alpha_BL = torch.tensor([self.alphas[str(sample.label)]])
        with fused_tower(model, adapter_for(model), alpha_BL), self.of(model, sample, seed) as run:
            yield run


def with_mixture(entrants: Sequence[Entrant]) -> list[Entrant]:
    """What is added to entrants: each once more, with the calibration's mixture of a sample's class.

    Methods that merge tokens inside the tower are left out: its layers then differ in their number of tokens.

    Args:
        entrants: as they take part without the mixture, a calibration at each budget among them.
    """
    found = []
    for calibrated in entrants:
        if calibrated.method != CALIBRATED or not isinstance(calibrated.apply, AsSet):
            continue
        alphas = {label: candidate.alpha for label, candidate in calibrated.apply.setting.candidates.items()}
        found += [
            replace(
                entrant,
                method=entrant.method + MIXED,
                budget=calibrated.budget,
                apply=_mixed(entrant.apply, alphas),
                knobs={**entrant.knobs, "alpha": alphas},
                mixed=True,
            )
            for entrant in entrants
            if _takes_mixture(entrant) and entrant.budget in (calibrated.budget, WHOLE)
        ]
    return found


def _takes_mixture(entrant: Entrant) -> bool:
    kind = METHODS.get(entrant.method)
    return entrant.method not in (CALIBRATED, SELECTION) and not (kind and kind.merges_in_tower)


def _mixed(apply: Apply, alphas: Alphas) -> Apply:
    if not isinstance(apply, AsSet | AtRandom):
        return Mixed(apply, alphas)
    candidates = {label: replace(one, alpha=alphas[label]) for label, one in apply.setting.candidates.items()}
    return replace(apply, setting=replace(apply.setting, candidates=candidates))
