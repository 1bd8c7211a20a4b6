"""What names the class of a question where an artifact brings no router: the packaged one, for the packaged classes."""

from collections.abc import Collection
from functools import cache

from clasp_calib.router_labeling.labelers import Scheme, load_scheme
from clasp_calib.router_labeling.router import Router
from clasp_calib.router_labeling.router_file import read_router
from clasp_calib.router_labeling.taxonomy import packaged


@cache
def packaged_scheme() -> Scheme:
    """Read once: compiling the rules takes longer than labelling thousands of questions."""
    return load_scheme()


@cache
def packaged_router() -> Router:
    """Read once. `tools/labels/router.py` trained it, and ``docs/results/labels.md`` says how good it is."""
    return read_router(packaged("assets/router.safetensors").read_bytes(), "the packaged router")


def fallback_applies(classes: Collection[str]) -> bool:
    """Whether the packaged router leads to classes that there are."""
    return {*packaged_scheme().taxonomy.classes} <= {*classes}
