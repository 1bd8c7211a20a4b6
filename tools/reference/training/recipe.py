"""What a training is made of in numbers: the recipes, and the sizes of the decoder."""

from dataclasses import dataclass

from tools.reference import shape

VALIDATION_SEED = 5_000_000
"""First seed of the scenes that training is watched with, the same in every recipe."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out.

    Stage n draws from ``seed + n``, the tower from ``tower_seed``: neighbouring seeds share streams, in other stages.
    """

    seed: int = 0
    tower_seed: int = 0
    size: str = "default"
    start: str = ""
    """Digest of the projector and decoder that joint training starts from; from oracle tokens if empty."""
    scenes: int = 30_000
    pictures: int = 12_000
    validation: int = 60
    checkpoint: int = 500
    many: int = 3
    """Times as many pictures in a batch as `joint.oracle_counts` and `joint.joint_counts` draw."""
    tower_steps: int = 2_000
    oracle_steps: int = 1_400
    projector_steps: int = 5_000
    joint_steps: int = 1_800
    joint_rate: float = 1.5e-3


RECIPES = {
    "full": Recipe(),
    "short": Recipe(
        pictures=6_000, checkpoint=200, many=1, oracle_steps=2_400, projector_steps=6_000, joint_steps=2_000
    ),
    "late": Recipe(pictures=4_000, checkpoint=200, many=1, joint_steps=1_000, joint_rate=1e-3),
    "tiny": Recipe(
        scenes=64,
        pictures=40,
        validation=4,
        checkpoint=2,
        many=1,
        tower_steps=3,
        oracle_steps=3,
        projector_steps=3,
        joint_steps=3,
    ),
}
"""By the name that the command line calls them."""
SAYS = {
    "full": "for a GPU (--device cuda --workers 3); the default",
    "short": "what one CPU core does in about an hour: half the pictures, a third of the batch",
    "late": "a thousand more steps of the joint stage, with --start-from a finished training",
    "tiny": "three steps a stage, to try it",
}
"""What each recipe is for."""
SIZES = {"default": shape.DEFAULT, "large": shape.LARGE}
"""Of the decoder, by name: the embedded model's, and one twice as wide."""
