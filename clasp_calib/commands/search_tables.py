"""What ``clasp-calib search`` prints: its plans, and what it chose."""

from pathlib import Path
from typing import TYPE_CHECKING

from clasp_calib.commands.output import emit, say, show

if TYPE_CHECKING:
    from clasp_calib.artifacts.artifact import Artifact


def show_plans(plans: list[dict[str, object]], path: Path, edited: bool, as_json: bool) -> None:
    """What each budget's search would do and cost, and where the space lies."""
    if as_json:
        emit({"space": path, "plans": plans})
        return
    for entry in plans:
        show("plan", ["", ""], [[name, _listed(value)] for name, value in entry.items()])
    say(f"the space in {path} {'stays as it is' if edited else 'is new'}: edit it and give it back with --space")


def _listed(value: object) -> str:
    if isinstance(value, dict):
        value = [f"{name}: {', '.join(f'{n} {split}' for split, n in of.items())}" for name, of in value.items()]
    if not isinstance(value, list | tuple):
        return str(value)
    parts = list(map(str, value))
    return ("; " if any("," in part for part in parts) else ", ").join(parts)


def show_budget(artifact: "Artifact", budget: str) -> None:
    """What was chosen for each class at a budget."""
    from clasp_calib.artifacts.card import ratio
    from clasp_calib.artifacts.sureness import MEASURED_COLUMNS, measured_cells
    from clasp_calib.commands.sureness_tables import show_sureness
    from clasp_calib.runtime.schedule import parse_budget

    entry = artifact.entry(parse_budget(budget).name)
    show(
        f"budget {entry.name}: {entry.stages} tokens, {entry.a_layer} a layer on average",
        ["class", "mixture", "rho", *MEASURED_COLUMNS],
        [
            [label, choice.prototype, ratio(artifact, entry.name, label), *measured_cells(choice)]
            for label in artifact.classes
            for choice in [entry.choices[label]]
        ],
    )
    show_sureness(entry, artifact.classes)
