"""What a shard of format 3 says of itself, asked of libhdf5 in a process of its own.

One wrong bit in a header can keep libhdf5 busy for ever or make it crash, so this file is also a program: it is given
paths of shards, a line each, and answers each with a line of JSON. It is ended where it takes too much time or memory.
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

SECONDS = 5
"""Of the processor's time, for one shard; a sound header takes milliseconds."""
MEMORY = 2**31
"""Bytes, above what it needs to begin with."""


class Described(NamedTuple):
    """What libhdf5 finds in a shard."""

    owner: str
    """``id`` of its cache."""
    layers: tuple[int, ...]
    offset: int
    """Where its values begin; 0 in a portable one."""
    scale_offset: int | None
    chunks: dict[str, list[tuple[int, int]]]
    """Of a portable one: see `clasp_calib.cache.records.ShardRecord`."""


def described(paths: Iterable[Path]) -> Iterator[tuple[Path, Described | str]]:
    """What shards say of themselves, or why that cannot be known; one that ends its process is tried twice.

    Raises:
        OSError: no process can be started.
    """
    left, again = list(paths), False
    while left:
        with _process() as (ask, answers):
            for path in tuple(left):
                with contextlib.suppress(BrokenPipeError):
                    ask(path)
                if not (answer := answers.readline()):
                    if again:
                        yield left.pop(0), "libhdf5 does not come to an end with its header, or crashes"
                    again = not again
                    break
                found, again = json.loads(answer), False
                yield left.pop(0), found if isinstance(found, str) else Described(*found)


@contextlib.contextmanager
def _process() -> Iterator[Any]:
    words = [sys.executable, "-P", __file__, str(SECONDS)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            if child.stdout.readline() != b"ready\n":
                raise OSError(f"{sys.executable} cannot be started to look at headers")

            def ask(path: Path, into: Any = child.stdin) -> None:
                into.write(json.dumps(os.fspath(path)).encode() + b"\n")
                into.flush()

            yield ask, child.stdout
        finally:
            child.kill()
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()


def _describe(opened: Any, path: str) -> Described:
    with opened(path, "r", locking=False) as file:
        layers = file.get("x", file).attrs["layers"]
        of = tuple(map(int, layers))
        if "x" in file:
            scales = file["scale"].id.get_offset() if "scale" in file else None
            return Described(str(file.attrs["id"]), of, file["x"].id.get_offset(), scales, {})
        chunks: dict[str, list[tuple[int, int]]] = {}
        for name in sorted(file):
            # Scales stand behind the values: `<key>.scale` sorts after `<key>`.
            of_key = chunks.setdefault(name.removesuffix(".scale"), [])
            for layer in range(len(of)):
                chunk = file[name].id.get_chunk_info_by_coord((layer, 0, 0))
                of_key.append((chunk.byte_offset, chunk.size))
        return Described(str(file.attrs["id"]), of, 0, None, chunks)


def _answer_all() -> None:
    from h5py import File

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("ready", flush=True)
    for line in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        until = int(used.ru_utime + used.ru_stime) + int(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_CPU, (until, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        try:
            answer: Any = _describe(File, json.loads(line))
        except Exception as error:  # Whatever libhdf5 finds wrong.
            answer = (
                f"it is not readable as HDF5 ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
            )
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _answer_all()
