"""An artifact's recorded scores measured again, on some of the samples that it was evaluated on."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.artifacts.evidence import SampleScore, sample_scores
from clasp_calib.artifacts.manifest import CALIBRATED
from clasp_calib.calib.scoring.evaluator import Evaluator
from clasp_calib.calib.studies.evaluation import calibrated_setting
from clasp_calib.common.errors import ArtifactError, InputError
from clasp_calib.common.progress import track
from clasp_calib.common.samples import Sample


@dataclass(frozen=True)
class Rechecked:
    """One recorded score beside the one that was measured now."""

    recorded: SampleScore
    measured: float

    @property
    def same(self) -> bool:
        """Whether they agree."""
        return self.recorded.score == self.measured


def some_recorded(
    artifact: Artifact, samples: Sequence[Sample], count: int, seed: int
) -> list[tuple[SampleScore, Sample]]:
    """Some of the recorded scores of the calibrated setting, each with its sample.

    Args:
        artifact: with the scores of an evaluation.
        samples: those that it was evaluated on, or more.
        count: how many; all if there are fewer.
        seed: of the choice.

    Raises:
        ArtifactError: the artifact records no scores.
        InputError: a sample that it records is not among these.
    """
    recorded = [row for row in sample_scores(artifact) if row.setting == CALIBRATED]
    if not recorded:
        raise ArtifactError("the artifact records no scores to check; run `clasp-calib evaluate` on its test split")
    chosen = random.Random(seed).sample(recorded, min(count, len(recorded)))
    by_id = {sample.id: sample for sample in samples}
    missing = [row.sample for row in chosen if row.sample not in by_id]
    if missing:
        raise InputError(
            f"the artifact was evaluated on the sample {missing[0]!r}, which is not in the table; "
            "give the table that it was evaluated on with --samples"
        )
    return [(row, by_id[row.sample]) for row in chosen]


def measure_again(
    evaluator: Evaluator, model: Any, artifact: Artifact, chosen: Sequence[tuple[SampleScore, Sample]]
) -> list[Rechecked]:
    """Measure recorded scores again.

    Args:
        evaluator: as of `clasp_calib.calib.studies.evaluation.evaluator_for`.
        model: the model that the artifact was made for.
        artifact: with the scores of an evaluation.
        chosen: as of `some_recorded`.
    """
    settings = {budget: calibrated_setting(model, artifact, budget) for budget in artifact.budgets}
    found = []
    for row, sample in track(chosen, "answering", len(chosen)):
        setting = settings[row.budget]
        (score,) = evaluator.scores(sample, [setting.candidates[row.label]], setting.pruning).score
        found.append(Rechecked(row, score))
    return found
