"""Offline calibration of class-adaptive layer fusion and dual-stage visual token pruning (CLASP).

Every public name is loaded when it is first used, so that ``import clasp_calib`` costs next to nothing. The stub beside
this file lists them.
"""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    alias.name: str(node.module)
    for node in ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
}
"""Public name -> the module that holds it."""
__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    home = import_module(_HOMES[name])
    # Of a package, a name may be a module that nobody has imported yet.
    found = getattr(home, name, None) or import_module(f"{home.__name__}.{name}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """All public names, loaded or not."""
    return [*__all__, "__version__"]
