"""What an ablation takes apart: an artifact at one of its budgets, on a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Pruning
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.selectors import as_recorded

FULL = "calibrated"
"""The setting that the others are compared with."""


@dataclass(frozen=True)
class Subject:
    """What is taken apart: an artifact at one of its budgets, on a model."""

    model: Any
    """Or its configuration."""
    artifact: Artifact
    budget: str

    @property
    def adapter(self) -> Adapter:
        """Of the model."""
        return adapter_for(self.model)

    @property
    def layers(self) -> tuple[int, ...]:
        """Vision layers that the artifact mixes, and the model's own."""
        used = {layer for layer in range(self.adapter.vision_layers + 1) if self.artifact.alphas[..., layer].any()}
        return tuple(sorted({*used, self.adapter.own_layer}))

    @property
    def pruning(self) -> Pruning:
        """As calibrated."""
        return Pruning(schedule_for(self.model, self.budget, artifact=self.artifact), self.artifact.pruning)

    def candidates(
        self, alpha: Mapping[str, Sequence[float]] | None = None, rho: Mapping[str, float] | None = None
    ) -> dict[str, Candidate]:
        """Class -> candidate: as calibrated, or with other mixtures or ratios; with these no other selector chooses.

        Raises:
            ArtifactError: a selector has other knobs than the budget solves them to.
        """
        classes = self.artifact.classes
        alpha = alpha or {label: self.artifact.alpha(self.budget, label) for label in classes}
        seeding = {label: self.artifact.seeding(self.budget, label) for label in classes}
        chosen, selectors = self.artifact.entry(self.budget).choices, dict.fromkeys(classes)
        if rho is None:
            selectors |= {
                label: as_recorded(self.artifact.selector(self.budget, label), self.model, self.budget)
                for label in classes
            }
            rho = {label: self.artifact.rho(self.budget, label) for label in classes}
        return {
            label: Candidate(
                FULL,
                tuple(alpha[label]),
                rho[label],
                seeding[label],
                chosen[label].relevance,
                chosen[label].downsample,
                selectors[label],
            )
            for label in classes
        }

    def one_layer(self, layer: int) -> tuple[float, ...]:
        """The mixture that is one layer."""
        return tuple(float(i == layer) for i in range(self.adapter.vision_layers + 1))

    @property
    def own(self) -> dict[str, tuple[float, ...]]:
        """The model's own layer, for every class."""
        return dict.fromkeys(self.artifact.classes, self.one_layer(self.adapter.own_layer))
