"""What all slabs of a store have in common, and whether it is what was asked for."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import gcd
from pathlib import Path
from typing import Any, Self

import numpy as np

from clasp_calib.cache.precision import GROUP, Precision, Stored, precision_of
from clasp_calib.common.errors import CacheError

FORMAT = "4"
READABLE = ("3", FORMAT)
PAGE = 4096
MOST = 2**31
"""Of tokens, and of channels."""
RAGGED = "ragged"
"""Stands for the tokens of a store whose pictures differ in them."""


@dataclass(frozen=True)
class Form:
    """Size and precision of the slabs of a store."""

    channels: int
    precision: Precision
    tokens: int | None
    """Tokens of every picture, None where they differ."""

    @classmethod
    def of(cls, root: Path, meta: Mapping[str, str]) -> Self:
        """What the index's ``meta`` of the store at ``root`` says of it.

        Raises:
            CacheError: it says nothing that could be.
        """
        try:
            tokens = None if meta["tokens"] == RAGGED else int(meta["tokens"])
            form = cls(int(meta["channels"]), precision_of(meta["precision"]), tokens)
            if not (0 < form.channels < MOST and (tokens is None or 0 < tokens < MOST)):
                raise ValueError(f"{meta['tokens'][:20]} tokens of {meta['channels'][:20]} channels")
        except (KeyError, ValueError) as error:
            raise CacheError(
                f"the index of the cache {root} is damaged (what it says of all pictures: {error}); put a copy of it "
                "back, or use another directory and run cache-features again"
            ) from error
        return form

    def meta(self, encoder: str) -> dict[str, str]:
        """The index's ``meta`` of a new store of this form."""
        return {
            "format": FORMAT,
            "id": uuid.uuid4().hex,
            "encoder": encoder,
            "tokens": str(self.tokens or RAGGED),
            "channels": str(self.channels),
            "precision": self.precision.name,
        }

    @property
    def parts(self) -> tuple[tuple[int, np.dtype[Any]], ...]:
        """How many values one token has and of which type, for each part of `Stored` that there is."""
        values = (self.channels, self.precision.data)
        return (values, (-(-self.channels // GROUP), np.dtype("<f2"))) if self.precision.grouped else (values,)

    @property
    def token_bytes(self) -> int:
        """Bytes of one token, scales among them."""
        return sum(width * kind.itemsize for width, kind in self.parts)

    def stride(self, tokens: int) -> int:
        """Rows that a slab takes: its tokens, and up to a sixteenth more where that makes it end on a page."""
        return _stride(self.channels * self.precision.data.itemsize, tokens)

    def empty(self, layers: int, tokens: int) -> Stored:
        """Room for so many slabs that are about to be read."""
        return Stored(*(np.empty((layers, tokens, width), kind) for width, kind in self.parts))


@cache
def _stride(row_bytes: int, tokens: int) -> int:
    unit = PAGE // gcd(PAGE, row_bytes)
    padded = -(-tokens // unit) * unit
    return padded if (padded - tokens) * 16 <= tokens else tokens


def check_meta(root: Path, meta: Mapping[str, str], encoder: str | None, form: Form | None = None) -> None:
    """Check that the store at ``root`` can be read, and was made by this encoder and in this form; None is any.

    Raises:
        CacheError: it was not.
    """
    if not meta:
        raise CacheError(f"the cache {root} is empty; fill it with cache-features")
    if (found := meta.get("format")) not in READABLE:
        raise CacheError(
            f"the cache {root} has format {str(found)[:40]}, this version reads {' and '.join(READABLE)}; "
            "use the version that wrote it, or give another directory"
        )
    there = Form.of(root, meta)
    if missing := {"id", "encoder"} - meta.keys():
        raise CacheError(f"the index of the cache {root} is damaged: it lacks {', '.join(sorted(missing))}")
    if encoder is not None and meta["encoder"] != encoder:
        raise CacheError(
            f"the cache {root} was made with the encoder [{meta['encoder']}], asked for [{encoder}]; "
            "give the model, dtype and processor that it was made with, or another directory"
        )
    if form is None:
        return
    if (there.tokens, there.channels) != (form.tokens, form.channels):
        raise CacheError(
            f"the cache {root} holds {meta['tokens']} tokens of {meta['channels']} channels a layer, "
            f"asked for {form.tokens or RAGGED} of {form.channels}; give another directory"
        )
    if there.precision != form.precision:
        raise CacheError(
            f"the cache {root} keeps features as {there.precision.name}, asked for {form.precision.name}; "
            "give the precision that it has, or another directory"
        )
