"""Families of questions: their intents and the ways to ask them, with placeholders, from ``assets/families.json``.

``TRAIN`` is for training. ``HELD_OUT`` is never seen in training: only calibration, selection, test and challenge ask
in its forms. They mostly use the words of the training forms, in other sentences; a quarter are a word away from one.
"""

import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

_FILE: Mapping[str, Any] = json.loads((Path(__file__).parent / "assets" / "families.json").read_text(encoding="utf-8"))
_FAMILIES: Mapping[str, Mapping[str, Any]] = _FILE["families"]

INTENT: Mapping[str, tuple[str, str]] = {family: (of["intent"], of["class"]) for family, of in _FAMILIES.items()}
"""Family -> gold intent and its class."""
HELD_OUT: Mapping[str, tuple[str, ...]] = {family: tuple(forms["held_out"]) for family, forms in _FAMILIES.items()}
"""Family -> its wordings outside training."""
_KEPT_BACK = frozenset(form for forms in HELD_OUT.values() for form in forms)


def _trained(forms: Mapping[str, Any]) -> tuple[str, ...]:
    indirect = (f"{opening} {form}." for opening, form in product(_FILE["openings"], forms["indirect"]))
    return tuple(form for form in dict.fromkeys((*forms["direct"], *indirect)) if form not in _KEPT_BACK)


TRAIN: Mapping[str, tuple[str, ...]] = {family: _trained(forms) for family, forms in _FAMILIES.items()}
"""Wordings of training: the direct ones, and every opening with every indirect one; none twice."""
