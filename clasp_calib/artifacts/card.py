"""``README.md`` of an artifact: a model card for the Hub, made from the manifest and the numbers alone."""

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

from clasp_calib.artifacts.manifest import MACRO, Manifest, Score
from clasp_calib.artifacts.sureness import LEGEND, MEASURED_COLUMNS, SURE_COLUMNS, advice, measured_cells, sure_rows
from clasp_calib.common.pruning_options import REDUNDANCY
from clasp_calib.common.text_tables import markdown_cell
from clasp_calib.router_labeling.router import Router

if TYPE_CHECKING:
    from clasp_calib.artifacts.artifact import Artifact

CARD = "README.md"
HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")


def model_card(artifact: "Artifact") -> str:
    """The card as Markdown; the same artifact always gives the same text."""
    from jinja2 import Environment, StrictUndefined

    source = files("clasp_calib.artifacts").joinpath("card.md.jinja").read_text(encoding="utf-8")
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    manifest = artifact.manifest
    return environment.from_string(source).render(
        manifest=manifest,
        classes=markdown_cell(", ".join(artifact.classes)),
        served_class=json.dumps(artifact.classes[0], ensure_ascii=False) if len(artifact.classes) > 1 else None,
        base_model=manifest.model if HUB_ID.match(manifest.model) else None,
        budgets=[
            {
                "entry": entry,
                "choices": [_choice(artifact, entry.name, label) for label in artifact.classes],
                "settings": list(entry.results),
                "results": _results(manifest, entry.results),
                "sure": [list(map(markdown_cell, row)) for row in sure_rows(entry, artifact.classes)],
                "advice": advice(entry, artifact.classes),
            }
            for entry in manifest.budgets
        ],
        measured_columns=MEASURED_COLUMNS,
        sure_columns=SURE_COLUMNS,
        legend=LEGEND,
        router=told_router(artifact.router),
        routes=artifact.router is not None,
        sure=any(entry.decision for entry in manifest.budgets),
        measured=any(entry.results for entry in manifest.budgets),
    )


def mixture(alpha: Sequence[float]) -> str:
    """A mixture as text: ``0.50 x 3 + 0.50 x 5``."""
    return " + ".join(f"{weight:.2f} x {layer}" for layer, weight in enumerate(alpha) if weight)


def ratio(artifact: "Artifact", budget: str, label: str) -> str:
    """A class's ratio as text, and what it says otherwise than the paper or the whole artifact: ``0.25, farthest``.

    Where another selector is in the place of the dual-stage selection, its name and its knobs.
    """
    seeding, choice = artifact.seeding(budget, label), artifact.entry(budget).choices[label]
    smaller = choice.downsample and f"pictures of {choice.downsample:.0%}"
    if selector := artifact.selector(budget, label):
        return f"{selector.short}, {smaller}" if smaller else selector.short
    told = [f"{artifact.rho(budget, label):g}", "" if seeding == REDUNDANCY else seeding, choice.relevance, smaller]
    return ", ".join(str(part) for part in told if part)


def told_router(router: Router | None) -> str:
    """A router in a few words."""
    return "none" if router is None else str(router)


def _choice(artifact: "Artifact", budget: str, label: str) -> list[str]:
    choice = artifact.entry(budget).choices[label]
    alpha = artifact.alpha(budget, label)
    told = [markdown_cell(choice.prototype), mixture(alpha), ratio(artifact, budget, label)]
    return [markdown_cell(label), *told, *measured_cells(choice)]


def _results(manifest: Manifest, results: dict[str, dict[str, Score]]) -> list[list[str]]:
    labels = [label for label in (*manifest.classes, MACRO) if any(label in scores for scores in results.values())]
    body = []
    for label in labels:
        (count, *_) = [of[label].samples for of in results.values() if label in of]
        body.append([markdown_cell(label), str(count), *(_score(of.get(label)) for of in results.values())])
    return body


def _score(score: Score | None) -> str:
    return "-" if score is None else f"{100 * score.mean:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]"
