"""A store of format 3, which knew its shards' headers by libhdf5 alone: what its index lacks is found out."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from clasp_calib.cache.disk import DamagedError, open_plain
from clasp_calib.cache.form import Form
from clasp_calib.cache.old_headers import Described, described
from clasp_calib.cache.records import ShardRecord, chunks_of, reason_of
from clasp_calib.cache.shard import Shard
from clasp_calib.common.errors import CacheError

_NOT_NOW = re.compile(r"errno = (?:1|5|12|13|23|24|116)\b")
"""EPERM, EIO, ENOMEM, EACCES, ENFILE, EMFILE, ESTALE in libhdf5's words."""


def examined(
    root: Path, form: Form, meta: Mapping[str, str], records: Iterable[ShardRecord]
) -> dict[int, ShardRecord | str]:
    """What this format's index would say of shards, by number, or why their headers are not sound.

    Args:
        root: directory of the store.
        form: of its slabs.
        meta: of the index.
        records: what the index of format 3 says.

    Raises:
        CacheError: a file cannot be read now.
    """
    found: dict[int, ShardRecord | str] = {}
    there: dict[Path, ShardRecord] = {}
    for record in records:
        try:
            os.close(open_plain(root / record.file))
            there[root / record.file] = record
        except DamagedError as error:
            found[record.id] = str(error)
    try:
        for path, answer in described(there) if there else ():
            found[there[path].id] = _checked(path, there[path], answer, form, meta["id"])
    except OSError as error:
        raise CacheError(f"cannot look at the shards of {root} ({error}); mend that and run again") from error
    return found


def _checked(path: Path, record: ShardRecord, answer: Described | str, form: Form, owner: str) -> ShardRecord | str:
    if isinstance(answer, str):
        if _NOT_NOW.search(answer):
            raise CacheError(f"cannot read {path} ({answer}); mend that and run again: nothing was changed")
        return f"{path}: {answer}"
    if answer.owner != owner:
        return f"{path} belongs to another cache ({answer.owner}, the index is of {owner})"
    places = (answer.offset, answer.scale_offset, tuple(answer.layers))
    if places != (record.offset, record.scale_offset, record.layers):
        return f"{path} holds other layers than the index says, or in other places"
    try:
        known = record if record.offset else replace(record, chunks=chunks_of(answer.chunks))
        return replace(known, header=Shard(path, known, form).header())
    except ValueError as error:
        return f"{path}: {reason_of(error)}"
    except DamagedError as error:
        return str(error)
