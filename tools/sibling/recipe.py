"""What a training of the sibling is made of in numbers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out. ``scenes``, ``pictures`` and ``validation`` count those of one grid."""

    seed: int = 0
    scenes: int = 4_000
    pictures: int = 700
    validation: int = 20
    checkpoint: int = 100
    tower_steps: int = 1_400
    merger_steps: int = 3_000
    joint_steps: int = 1_000
    joint_rate: float = 1.5e-3


RECIPES = {
    "full": Recipe(),
    "tiny": Recipe(scenes=12, pictures=12, validation=2, checkpoint=2, tower_steps=2, merger_steps=2, joint_steps=3),
}
"""By the name that the command line calls them: what one CPU core does in about an hour, and some steps a stage."""
