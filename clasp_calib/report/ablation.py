"""An ablation as rows and for JSON."""

from typing import Any

from clasp_calib.artifacts.manifest import MACRO
from clasp_calib.calib.studies.comparison import Comparison
from clasp_calib.report.tables import points, score


def ablation_rows(compared: Comparison, base: str, digits: int = 1) -> tuple[list[str], list[list[str]]]:
    """Header and rows: of every setting the mean over classes, its paired difference to ``base``, and every class.

    The first row has the numbers of samples.

    Args:
        compared: the settings.
        base: the one that is subtracted.
        digits: decimals.
    """
    body = [["n", str(len(compared.samples)), "", *map(str, compared.counts)]]
    for name, of in compared.table().items():
        lead = "" if name == base else points(compared.difference(name, base)[MACRO], digits)
        by_class = [f"{100 * of[label].mean:.{digits}f}" for label in compared.classes]
        body.append([name, score(of[MACRO], digits), lead, *by_class])
    return ["setting", "score", f"minus {base}", *compared.classes], body


def ablation_json(compared: Comparison, base: str) -> dict[str, Any]:
    """Scores and differences of every setting, by class."""
    return {
        name: {
            "scores": {label: vars(i) for label, i in of.items()},
            "difference": {label: vars(i) for label, i in compared.difference(name, base).items()},
        }
        for name, of in compared.table().items()
    }
