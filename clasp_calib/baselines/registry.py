"""The methods by name."""

from clasp_calib.baselines.fastervlm import FasterVLM
from clasp_calib.baselines.fastv import FastV
from clasp_calib.baselines.method import Method
from clasp_calib.common.errors import InputError

METHODS: dict[str, type[Method]] = {method.name: method for method in (FasterVLM, FastV)}


def method(name: str) -> Method:
    """The method of this name, with its paper's knobs.

    Raises:
        InputError: there is none.
    """
    if name not in METHODS:
        raise InputError(f"there is no method {name!r}; choose from {', '.join(METHODS)}")
    return METHODS[name]()
