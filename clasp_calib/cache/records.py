"""What an index says of shards and pictures, taken at its word in nothing: what is out of bounds is a ValueError.

A file of a cache lies inside its directory under a name that follows from its number.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from clasp_calib.cache.form import Form

ABSENT = bytes(8)
"""Stands for the checksum of a slab that was dropped. Of 2^64 slabs one has it in earnest, and is encoded again."""
SLAB_BYTES = 2**31
"""More than any picture's layer takes: what is read is read whole."""
SHARD_NAME = re.compile(r"shard-(\d{5,9})\.h5")

_STRICT = ConfigDict(strict=True, extra="forbid")
_Count = Annotated[int, Field(ge=1, lt=2**48)]
_Place = Annotated[int, Field(ge=0, lt=2**48)]
_Number = Annotated[int, Field(ge=1, lt=10**9)]
_Layers = Annotated[tuple[Annotated[int, Field(ge=0, lt=10**6)], ...], Field(min_length=1, max_length=4096)]
_Key = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-][0-9A-Za-z_.-]{0,199}$")]


def shard_name(number: int) -> str:
    """The file name of a shard."""
    return f"shard-{number:05d}.h5"


def chunks_of(value: Any) -> Any:
    """`ShardRecord.chunks` from JSON, whose lists are tuples here."""
    return {key: tuple(map(tuple, found)) for key, found in value.items()}


def reason_of(error: Exception) -> str:
    """What is wrong with a record, in a few words: the first thing that was found."""
    if not isinstance(error, ValidationError):
        return str(error)[:300]
    first = error.errors()[0]
    return ": ".join([*(".".join(map(str, first["loc"])) for _ in first["loc"][:1]), first["msg"]])[:300]


@dataclass(frozen=True, config=_STRICT)
class ShardRecord:
    """What the index knows of a shard."""

    id: _Number
    file: str
    """Its name in the cache's directory, `shard_name` of its number."""
    offset: _Place
    """Byte at which the values begin; 0 where ``chunks`` tell."""
    scale_offset: _Place | None
    """Byte at which the scales begin, None where there are none."""
    rows: _Count
    """Tokens that it has room for, in all layers together."""
    layers: _Layers
    header: Annotated[bytes, Field(min_length=8, max_length=8)] | None = None
    """xxh3-64, big endian, of everything in the file but features; None where that was never found sound."""
    chunks: Mapping[str, tuple[tuple[_Place, _Place], ...]] | None = None
    """Only of portable shards that format 3 wrote: by picture, first byte and bytes of each layer's values, then of
    each layer's scales."""

    @model_validator(mode="after")
    def _named_by_its_number(self) -> Self:
        if self.file != shard_name(self.id):
            raise ValueError(f"shard {self.id} is in {self.file!r}, expected {shard_name(self.id)} and nothing outside")
        if len(set(self.layers)) < len(self.layers):
            raise ValueError(f"shard {self.id} has a layer twice")
        return self


@dataclass(frozen=True, config=_STRICT)
class IndexEntry:
    """One picture in one shard."""

    key: _Key
    shard: _Number
    row: _Place
    """Where its first slab begins, counted in tokens."""
    tokens: _Count
    origin: Annotated[str, Field(max_length=2**20)]
    """What `clasp_calib.cache.origin.Origin` says of the tokens, as JSON."""
    checksums: bytes
    """8 bytes a layer of the shard, in its order; `ABSENT` for one that is not there."""

    def checksum(self, position: int) -> bytes:
        """The checksum of the layer at ``position``."""
        return self.checksums[8 * position : 8 * position + 8]

    def has(self, position: int) -> bool:
        """Whether the layer at ``position`` is there."""
        return self.checksum(position) != ABSENT

    def held(self, layers: Sequence[int]) -> dict[int, int]:
        """Layer -> position of the slabs that are there, of a shard with these layers."""
        return {layer: position for position, layer in enumerate(layers) if self.has(position)}

    def with_checksums(self, changed: Mapping[int, bytes]) -> "IndexEntry":
        """The same with other checksums at some positions."""
        found = [changed.get(at, self.checksum(at)) for at in range(len(self.checksums) // 8)]
        return replace(self, checksums=b"".join(found))

    def inside(self, record: ShardRecord, form: Form) -> "IndexEntry":
        """The same, if the shard has room for it.

        Raises:
            ValueError: it has not, or the entry is of another form.
        """
        whole = f"the entry of picture {self.key} in {record.file}"
        if form.tokens not in (None, self.tokens):
            raise ValueError(f"{whole} has {self.tokens} tokens, the cache {form.tokens}")
        if len(self.checksums) != 8 * len(record.layers):
            raise ValueError(f"{whole} has {len(self.checksums)} bytes of checksums for {len(record.layers)} layers")
        if self.tokens * form.token_bytes > SLAB_BYTES:
            raise ValueError(f"{whole} has {self.tokens} tokens, more than any picture")
        if self.row + len(record.layers) * form.stride(self.tokens) > record.rows:
            raise ValueError(f"{whole} reaches over the end of its {record.rows} rows")
        return self
