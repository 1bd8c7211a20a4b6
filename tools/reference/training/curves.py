"""The training log as curves: loss over steps, one panel a stage."""

import json
from pathlib import Path


def plot_curves(log: Path, path: Path) -> None:
    """Draw the losses in ``log.jsonl`` as a PNG."""
    from matplotlib.figure import Figure

    losses: dict[str, dict[int, float]] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if "loss" in event:
            losses.setdefault(event["stage"], {})[event["step"]] = event["loss"]
    figure = Figure(figsize=(3.2 * len(losses), 2.6), layout="constrained")
    panels = figure.subplots(1, len(losses), squeeze=False)[0]
    for axes, (stage, points) in zip(panels, losses.items(), strict=True):
        axes.plot(*zip(*sorted(points.items()), strict=True))
        axes.set(title=stage, xlabel="step", yscale="log")
    panels[0].set_ylabel("loss (running mean)")
    figure.savefig(path, dpi=110)
