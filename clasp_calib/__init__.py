"""Offline calibration of class-adaptive layer fusion and dual-stage visual token pruning (CLASP)."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "clasp", "prune"]


def __getattr__(name: str) -> Any:
    """``clasp`` and ``prune``, loaded on first use: they import torch."""
    if name in ("clasp", "prune"):
        return getattr(import_module("clasp_calib.runtime.pruner"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
