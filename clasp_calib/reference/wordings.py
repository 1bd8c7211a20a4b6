"""Ways to ask: the wordings of every family of questions, with their placeholders, from ``assets/wordings.json``.

``TRAIN`` is for training. ``HELD_OUT`` is never seen in training: only calibration, selection, test and challenge ask
in its forms. They mostly use the words of the training forms, in other sentences; a quarter are a word away from one.
"""

import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path

_FILE = json.loads((Path(__file__).parent / "assets" / "wordings.json").read_text(encoding="utf-8"))
_FAMILIES: Mapping[str, Mapping[str, list[str]]] = _FILE["families"]

HELD_OUT: Mapping[str, tuple[str, ...]] = {family: tuple(forms["held_out"]) for family, forms in _FAMILIES.items()}
"""Family of questions -> its wordings outside training."""
_KEPT_BACK = frozenset(form for forms in HELD_OUT.values() for form in forms)


def _trained(forms: Mapping[str, list[str]]) -> tuple[str, ...]:
    indirect = (f"{opening} {form}." for opening, form in product(_FILE["openings"], forms["indirect"]))
    return tuple(form for form in dict.fromkeys((*forms["direct"], *indirect)) if form not in _KEPT_BACK)


TRAIN: Mapping[str, tuple[str, ...]] = {family: _trained(forms) for family, forms in _FAMILIES.items()}
"""Wordings of training: the direct ones, and every opening with every indirect one; none twice."""
