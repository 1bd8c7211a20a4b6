"""Reading how labelers and routers err: from a table of counts, or from labels beside classes given by hand."""

from collections.abc import Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np

from clasp_calib.calib.studies.ablations import ROUTING
from clasp_calib.calib.studies.confusion import Confusion
from clasp_calib.common.errors import InputError
from clasp_calib.common.given_files import read_given
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.common.strict_json import strict_json
from clasp_calib.router_labeling.fallback import fallback_applies
from clasp_calib.router_labeling.measured import CONFUSIONS
from clasp_calib.router_labeling.taxonomy import packaged

EXPECTED = (
    'expected {"classes": [...], "counts": [[...], ...]} with a row of counts for each true class, or several of these '
    "by their names"
)
_MOST_BYTES = 16 << 20


def check_routed(ablation: str, given: Any) -> None:
    """Refuse confusions for an ablation that has no use for them.

    Raises:
        InputError: there are some, and it is not that of routing.
    """
    if given and ablation != ROUTING:
        raise InputError(
            f"confusions (--confusion) say how a router errs, which the ablation {ablation!r} does not vary; leave "
            f"them out, or choose {ROUTING!r}"
        )


def read_confusions(given: Mapping[str, Any] | Sequence[Any] | None) -> list[Confusion]:
    """Confusions of what is given.

    Args:
        given: JSON files, tables as `load_samples` takes them, or mappings with ``classes`` and ``counts``: a list, or
            a mapping of names to these. A table has columns ``class`` and ``gold_class``. What has no name of its own
            is called as its file.

    Raises:
        InputError: a file cannot be read or is no confusion, a table lacks a column, or two have one name.
    """
    if isinstance(given, str | Path):
        given = [given]
    named = given.items() if isinstance(given, Mapping) else [(None, one) for one in given or ()]
    found = [confusion for name, one in named for confusion in _read(name, one)]
    names = [one.name for one in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two confusions are called {twice[0]!r}; give each a name of its own, as in NAME=FILE")
    return found


def packaged_confusions(classes: Sequence[str]) -> list[Confusion]:
    """Those of this package's own labelers and router, as they were measured; none for other classes than the packaged.

    Args:
        classes: an artifact's.
    """
    source = packaged(CONFUSIONS)
    if not source.is_file() or not fallback_applies(classes):
        return []
    return _of_json(source, source.read_bytes(), None)


def _read(name: str | None, given: Any) -> list[Confusion]:
    if isinstance(given, Confusion):
        return [given]
    if isinstance(given, Mapping):
        if name is None:
            raise InputError("a confusion that is no file has no name; give a mapping of names to confusions")
        return [_of_counts(name, given, f"the confusion {name!r}")]
    path = Path(given) if isinstance(given, str | Path) else None
    if path is not None and path.suffix == ".json":
        return _of_json(path, read_given(path, _MOST_BYTES, "confusion"), name)
    samples = load_samples(given)
    return [_of_table(name or (samples.name if path is None else path.stem), samples)]


def _of_json(source: Path | Traversable, content: bytes, name: str | None) -> list[Confusion]:
    try:
        value = strict_json(content)
    except ValueError as error:
        raise InputError(f"{source} is no JSON ({error}); {EXPECTED}") from error
    if not isinstance(value, dict) or not value:
        raise InputError(f"{source} is no confusion; {EXPECTED}")
    if "counts" in value:
        return [_of_counts(name or Path(source.name).stem, value, str(source))]
    if name is not None and len(value) > 1:
        raise InputError(
            f"{source} holds the confusions {', '.join(value)}, which have names of their own; leave {name!r} out"
        )
    return [_of_counts(name or of, one, f"{source}: {of}") for of, one in value.items()]


def _of_counts(name: str, value: Any, where: str) -> Confusion:
    classes, counts = (value.get("classes"), value.get("counts")) if isinstance(value, Mapping) else (None, None)
    try:
        array = np.array(counts)
    except ValueError:  # Rows of several lengths.
        array = np.array(None)
    listed = isinstance(classes, list | tuple) and all(isinstance(label, str) for label in classes)
    if not listed or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{where} is no confusion of whole numbers; {EXPECTED}")
    return Confusion(name, tuple(map(str, classes or ())), array)


def _of_table(name: str, samples: Any) -> Confusion:
    """Of labels beside classes by hand; rows that kept a class of their own were not labelled, and say nothing."""
    table = samples.table
    if lacking := [column for column in ("class", "gold_class") if column not in table.column_names]:
        raise InputError(
            f"{samples.name} has no column {lacking[0]!r}; a confusion is read from labels (class) beside classes "
            f"given by hand (gold_class), or from JSON: {EXPECTED}"
        )
    columns = [name for name in ("class", "gold_class", "source") if name in table.column_names]
    rows = table.select(columns).to_pylist()
    pairs = [(row["gold_class"], row["class"]) for row in rows if row.get("source") != "gold"]
    pairs = [pair for pair in pairs if None not in pair]
    if not pairs:
        raise InputError(f"{samples.name} has no row with a class by a labeler and a gold_class; label it first")
    return Confusion.of_pairs(name, pairs)
