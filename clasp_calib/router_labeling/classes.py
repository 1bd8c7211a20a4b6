"""Which classes a calibration tells apart, and what says the class of a sample."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from clasp_calib.common.hashing import sha256_json
from clasp_calib.router_labeling.taxonomy import Taxonomy

LABELS = "class"
"""The column that labelling writes."""
ONE = "all"
"""The class of every sample where no classes are told apart."""


@dataclass(frozen=True)
class Classes:
    """The classes of a table of samples, in the order of an artifact's arrays."""

    names: tuple[str, ...]
    column: str | None
    """Of a sample table, whose values are the classes; ``None``: there is one class, and all samples are of it."""
    default: str | None
    """Where a router goes when it abstains, and samples without a value; ``None``: nowhere."""
    digest: str
    """Hex sha256 of what the classes are and where they come from; of a taxonomy its own."""
    intents: Mapping[str, str] = field(default_factory=dict)
    """Intent -> class, where a taxonomy merges intents into classes."""

    @property
    def recorded(self) -> dict[str, Any]:
        """The fields of an artifact's manifest that say it."""
        told = {"classes": self.names, "class_from": self.column, "default_class": self.default}
        return {**told, "taxonomy": dict(self.intents)}

    @classmethod
    def of_taxonomy(cls, taxonomy: Taxonomy) -> "Classes":
        """Those of a taxonomy, which samples were labelled by."""
        merged = {name: intent.class_ for name, intent in taxonomy.intents.items()}
        return cls(taxonomy.classes, LABELS, taxonomy.default_class, taxonomy.digest, merged)

    @classmethod
    def of_column(cls, column: str, values: Iterable[str], default: str | None = None) -> "Classes":
        """The different values of a column, and the default class if it is none of them, in alphabetical order."""
        names = sorted({*values, *([default] if default is not None else [])})
        digest = sha256_json({"column": column, "classes": names, "default": default})
        return cls(tuple(names), column, default, digest)

    @classmethod
    def one(cls) -> "Classes":
        """One class for everything."""
        return cls((ONE,), None, ONE, sha256_json({"column": None, "classes": [ONE], "default": ONE}))
