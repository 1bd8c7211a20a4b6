"""The one list of methods: where each is defined, and what the tests may ask of it there."""

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1] / "runtime"))

from architectures import CASES as MODELS, together

from clasp_calib.baselines.cdpruner import CDPruner
from clasp_calib.baselines.fitprune import MOST
from clasp_calib.baselines.hawk import Hawk
from clasp_calib.baselines.registry import METHODS, method

BUDGET = "40%"
LLAVA, NEXT, QWEN = "llava", "llava_next", "qwen2_5_vl"
EVERYWHERE = (LLAVA, NEXT, QWEN)


def similarity(image):
    """In place of a text tower: something that differs from cell to cell."""
    return torch.sin(torch.arange(image.layout.cells) * 1.7)


@dataclass(frozen=True)
class MethodCase:
    name: str
    models: tuple[str, ...] = EVERYWHERE
    calibrated: bool = False
    """Whether the number of tokens depends on the image."""
    forgets: bool = False
    """Whether tokens are dropped from the cache as well, which only generated tokens notice."""

    @property
    def method(self):
        made = {"cdpruner": CDPruner(similarity=similarity), "hawk": Hawk(weights=(0.4, 0.3, 0.0, 0.3))}
        return made.get(self.name) or method(self.name)

    def apply(self, made, budget=BUDGET, **settings):
        """The context of the method at a budget on the model of an architecture's case."""
        if self.calibrated and budget != "100%":
            return _calibrated(self, made.name, budget)(made.model(), native="default", **settings)
        return self.method(made.model(), budget=budget, **settings)


@cache
def _calibrated(case, name, budget):
    made = MODELS[name]
    images = [made.row(seed, 1, 1, 1) for seed in range(40)]
    with torch.no_grad():
        solved, spread = case.method.calibrated(made.model(), images, budget)
    assert spread.images == (MOST if case.name == "fitprune" else 40)
    return solved


CASES = [
    MethodCase("random-input"),
    MethodCase("grid"),
    MethodCase("pooling"),
    MethodCase("tome", (LLAVA,)),
    MethodCase("fastv"),
    MethodCase("prumerge", (LLAVA, NEXT), calibrated=True),
    MethodCase("prumerge+", (LLAVA, NEXT), calibrated=True),
    MethodCase("hired", (LLAVA, NEXT)),
    MethodCase("visionzip"),
    MethodCase("ficoco-v", (LLAVA,)),
    MethodCase("fastervlm"),
    MethodCase("divprune"),
    MethodCase("vispruner"),
    MethodCase("cdpruner"),
    MethodCase("holov"),
    MethodCase("pyramiddrop"),
    MethodCase("sparsevlm"),
    MethodCase("sparsevlm-v2"),
    MethodCase("dart"),
    MethodCase("btp"),
    MethodCase("vscan"),
    MethodCase("hiprune"),
    MethodCase("scope"),
    MethodCase("prunesid"),
    MethodCase("hawk"),
    MethodCase("fitprune", calibrated=True),
    MethodCase("mustdrop", (LLAVA,), calibrated=True, forgets=True),
]
REFUSED = [(case, model) for case in CASES for model in EVERYWHERE if model not in case.models]
__all__ = ["BUDGET", "CASES", "MODELS", "NEXT", "REFUSED", "together"]
assert {case.name for case in CASES} == set(METHODS)
