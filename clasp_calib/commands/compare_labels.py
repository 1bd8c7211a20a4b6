"""``clasp-calib compare-labels``."""

from pathlib import Path
from typing import Annotated

import typer

from clasp_calib.commands.options import JsonOption
from clasp_calib.commands.output import emit, say, show


def compare_labels(
    first: Annotated[Path, typer.Argument(help="A labelled table.")],
    second: Annotated[Path, typer.Argument(help="Another labelling of the same questions.")],
    as_json: JsonOption = False,
) -> None:
    """Show how far two labellings of the same questions agree: share, Cohen's kappa, count variance, confusions.

    Example: clasp-calib compare-labels my-run/labels.parquet my-run/labels.parquet
    """
    from clasp_calib.common.sample_sources import load_samples
    from clasp_calib.router_labeling.agreement import compare_labels as compared

    found = compared(load_samples(first), load_samples(second))
    confused = sorted(((n, a, b) for (a, b), n in found.pairs.items() if a != b), reverse=True)
    if as_json:
        confusions = [{"first": a, "second": b, "rows": n} for n, a, b in confused]
        emit({k: v for k, v in vars(found).items() if k != "pairs"} | {"confusions": confusions})
        return
    kappa = "undefined" if found.kappa is None else f"{found.kappa:.3f}"
    say(f"{found.rows} rows: agreement {found.agreement:.1%}, Cohen's kappa {kappa}")
    say(f"count variance {found.count_variance:.2f} (percent squared)")
    if confused:
        show("where they differ", ["first", "second", "rows"], [[a, b, str(n)] for n, a, b in confused])
