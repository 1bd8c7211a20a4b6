"""Drawing calibration, selection and test samples from a large labelled table."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from clasp_calib.calib.dataset import UNLABELLED, require
from clasp_calib.calib.lookalikes import warn_of_lookalikes
from clasp_calib.calib.sampling import Drawn, draw
from clasp_calib.common.contents import grouped
from clasp_calib.common.places import Places, hints_of
from clasp_calib.common.row_blocks import cells_of, column_of
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.router_labeling.class_source import ClassSource

if TYPE_CHECKING:
    from clasp_calib.common.sample_set import Samples
    from clasp_calib.router_labeling.taxonomy import Taxonomy


def draw_samples(
    samples: Any,
    *,
    per_class: int = 2000,
    balanced: bool = True,
    taxonomy: "Taxonomy | str | Path | None" = None,
    class_from: str | None = None,
    default_class: str | None = None,
    seed: int = 0,
    run: str | Path | Places | None = None,
) -> "tuple[Samples, Drawn]":
    """Draw samples and divide them by picture: no picture is in two splits.

    The same samples and seed always give the same draw; see `clasp_calib.calib.sampling.draw`.

    Args:
        samples: labelled, as `load_samples` takes them.
        per_class: calibration samples of a class; selection and test get half as many each.
        balanced: as many of each class; otherwise as many in all, as the classes come.
        taxonomy: the one that they were labelled with.
        class_from: instead, a column whose values are the classes.
        default_class: the class of samples without a value there.
        seed: of the draw.
        run: run directory, which remembers which pictures are the same.

    Returns:
        What was drawn, in the order of the samples, with their ``split``; and counts of it.

    Raises:
        InputError: samples without a class, or with one of another taxonomy; a picture that cannot be read, or that is
            in two splits.
    """
    source = ClassSource(taxonomy, class_from, default_class)
    table = load_samples(samples)
    given = source.labelled(table)
    classes = source.classes(given.labels).names
    require(
        given,
        "class",
        [given[row] for row, label in enumerate(given.labels) if label is None],
        UNLABELLED,
    )
    hints = hints_of(run)
    drawn = draw(grouped(given, hints), classes, per_class, balanced, seed)
    splits = column_of((drawn.splits.get(each) for each in cells_of(table.table["id"])), pa.string())
    rows = table.table.drop_columns(["split"]) if "split" in table.table.column_names else table.table
    chosen = table.with_table(rows.append_column("split", splits).filter(splits.is_valid()))
    warn_of_lookalikes(chosen, hints)
    return chosen, drawn
