"""The one list of methods: where each is defined, and what the tests may ask of it there."""

from dataclasses import dataclass

from clasp_calib.baselines.registry import METHODS, method

BUDGET = "40%"
LLAVA, NEXT, QWEN = "llava", "llava_next", "qwen2_5_vl"
EVERYWHERE = (LLAVA, NEXT, QWEN)


@dataclass(frozen=True)
class MethodCase:
    name: str
    models: tuple[str, ...] = EVERYWHERE
    order: str = "rising"
    """Whether kept tokens keep their order."""
    needs_cache: bool = False
    """Whether tokens that were generated would rate visual ones, if all were computed anew for each."""

    @property
    def method(self):
        return method(self.name)


CASES = [
    MethodCase("fastervlm"),
    MethodCase("fastv", needs_cache=True),
]
PAIRS = [(case, model) for case in CASES for model in case.models]
REFUSED = [(case, model) for case in CASES for model in EVERYWHERE if model not in case.models]
assert {case.name for case in CASES} == set(METHODS)
