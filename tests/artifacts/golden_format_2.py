"""Writes the golden artifact of format 2, which is made anew only as long as no version has written that format."""

from pathlib import Path

import numpy as np
from made_artifacts import CHOICE, CLASSES, VERDICT, made
from made_routers import made_router

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.artifacts.checkpoint_digest import Checkpoint
from clasp_calib.artifacts.choices import Alternative, ChoiceRule, ClassChoice, mean_regret
from clasp_calib.artifacts.evidence import SampleScore, Trial, with_scores, with_trials
from clasp_calib.artifacts.files import write_artifact
from clasp_calib.artifacts.manifest import Decoding, Measured, Score

PLACE = Path(__file__).parent / "golden" / "format-2"


def golden() -> Artifact:
    """An artifact in which every field of the format holds something."""
    cautious = VERDICT.model_copy(
        update={"gain": 0.0, "low": 0.0, "high": 0.0, "worse": 0.0, "much_worse": 0.0, "own": None, "settle": None}
        | {"leader": "deep/rho=0.7"}
    )
    unsearched = ClassChoice(prototype="own", candidates=1, evaluations=0, calibration=None)
    kept = CHOICE.model_copy(update={"prototype": "own", "verdict": cautious, "posterior": None})
    choices = {"object": CHOICE.model_copy(update={"seeding": "k-center"}), "text": kept, "default": unsearched}
    decision = ChoiceRule(method="pooled", regret=mean_regret(choices.values()), cautious=0.3, budgets=("50%",))
    results = {"calibrated": {"text": Score(mean=0.5, low=0.25, high=0.75, samples=2)}}
    measured = Measured(
        samples="1" * 64, split="test", seed=3, checkpoint=Checkpoint(kind="memory", digest="d" * 64, dtype="float32")
    )
    one = Alternative(prototype="deep", layers=(1, 3), weights=(0.5, 0.5), rho=0.7, seeding="farthest")
    artifact = made("8", "50%", checkpoint=Checkpoint(kind="files", digest="c" * 64))
    eight, half = artifact.manifest.budgets
    eight = eight.model_copy(
        update={"choices": choices, "decision": decision, "alternatives": {"global": dict.fromkeys(CLASSES, one)}}
        | {"results": results, "measured": measured}
    )
    half = half.model_copy(update={"decision": half.decision.model_copy(update={"method": "james-stein"})})
    decoding = Decoding(do_sample=False, max_new_tokens=16, generation={"repetition_penalty": "1.1"})
    manifest = artifact.manifest.model_copy(update={"budgets": (eight, half), "decoding": decoding})
    alphas = np.zeros_like(artifact.alphas)
    alphas[..., 3], rhos = 1, np.ones_like(artifact.rhos)
    alphas[0, 0], rhos[1, 1] = (0, 0.5, 0, 0.5, 0), 0.7
    artifact = Artifact(manifest, alphas, rhos).with_router(made_router())
    artifact = with_trials(
        artifact,
        [
            Trial("8", "object", "deep/rho=0.7", "deep", 0.7, "chosen", 20, 0.5, None),
            Trial("8", "object", "own/rho=1", "own", 1.0, "rejected", 16, 0.25, None),
        ],
    )
    return with_scores(
        artifact,
        [SampleScore("8", "calibrated", "text", sample, 0, score) for sample, score in (("a", 1.0), ("b", 0.0))],
    )


if __name__ == "__main__":
    written = write_artifact(golden(), PLACE)
    (PLACE / "id.txt").write_text(f"{written.manifest.id}\n")
