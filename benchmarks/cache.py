"""How far the feature cache is from the disk and the memory below it: ratios within one run.

    python benchmarks/cache.py [--pictures 40] [--rounds 9] [--directory DIR]

Writes about 1 GB to the directory (default: a temporary one) and removes it. A slab is one layer of one picture of
CLIP ViT-L/14-336: 576 x 1024 float16, 1.18 MB. Every method is timed beside its baseline in each round; printed are
the median ratio of speeds and the range, by CPU time for what is in the page cache, by wall time for what waits for
the disk.

Physical limits. A read from the page cache is one copy, so nothing that hands out a copy can beat preadv of the same
bytes: the limit is 1. A checksum is a pass more over what was copied, which is in a cache of the processor by then. The
fused sum widens to float32 and adds: about 12 bytes of traffic more for each value and layer. A write is one copy into
the page cache and one pass of the checksum over it.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.cache.form import Form
from clasp_calib.cache.mixing import mixtures
from clasp_calib.cache.precision import PRECISIONS, Stored
from clasp_calib.cache.store import FeatureStore
from clasp_calib.cache.writer import FeatureWriter

LAYERS, TOKENS, CHANNELS, CHOSEN, BATCH = tuple(range(8)), 576, 1024, 4, 8
KEYS = [f"{number:064x}" for number in range(10_000)]
Pick = tuple[list[int], list[int]]


def ratios(name: str, baseline: Callable[[Pick], None], method: Callable[[Pick], None], setting) -> None:
    """Print how fast ``method`` is beside ``baseline`` on the same random pictures and layers."""
    clock = time.process_time if setting.clock == "cpu" else time.perf_counter
    chance, found = random.Random(0), []
    for warm in (True, *[False] * setting.rounds):
        pick = (chance.sample(range(setting.pictures), BATCH), sorted(chance.sample(LAYERS, CHOSEN)))
        # The baseline before and after, so that neither profits from what the other left in the processor's caches.
        times = []
        for function in (baseline, method, baseline):
            setting.before()
            start = clock()
            function(pick)
            times.append(clock() - start)
        if not warm:
            found.append((times[0] + times[2]) / 2 / times[1])
    print(f"  {name:58} {statistics.median(found):5.2f}  [{min(found):.2f} .. {max(found):.2f}]", flush=True)
    setting.results[name] = round(statistics.median(found), 3)


def fill(root: Path, pictures: int, precision: str) -> FeatureStore:
    noise = torch.Generator().manual_seed(0)
    with FeatureWriter(root, "benchmark", LAYERS, Form(CHANNELS, PRECISIONS[precision], TOKENS)) as store:
        for number in range(pictures):
            made = torch.randn(len(LAYERS), TOKENS, CHANNELS, generator=noise)
            store.put([KEYS[number]], [PRECISIONS[precision].encode(made)])
    return FeatureStore.open(root)


@contextmanager
def unchecked() -> Iterator[None]:
    """Take whatever is read for what was written."""

    def nothing(*_: object) -> bytes:
        return b""

    with (
        mock.patch("clasp_calib.cache.shard.checksums", nothing),
        mock.patch("clasp_calib.cache.records.IndexEntry.checksum", nothing),
    ):
        yield


def reads(place: Path, setting) -> None:
    store = fill(place / "float16", setting.pictures, "float16")
    cold(store, setting)
    opened = store.opened
    extents = {
        (number, layer): (opened.shard(entry.shard)._descriptor, *opened.shard(entry.shard).extents(entry, at)[0])
        for number in range(setting.pictures)
        for layer, (entry, at) in opened.places(KEYS[number]).items()
    }
    out = store.form.empty(BATCH * CHOSEN, TOKENS)
    buffers = [slab.data.cast("B") for slab in out.data_LTC]

    def preadv(pick: Pick) -> None:
        for at, (number, layer) in enumerate((n, k) for n in pick[0] for k in pick[1]):
            descriptor, start, _ = extents[number, layer]
            os.preadv(descriptor, [buffers[at]], start)

    def read(pick: Pick) -> None:
        for at, number in enumerate(pick[0]):
            for k, layer in enumerate(pick[1]):
                entry, position = opened.places(KEYS[number])[layer]
                opened.shard(entry.shard).read(entry, position, out.at(slice(at * CHOSEN + k, at * CHOSEN + k + 1)))

    def read_unchecked(pick: Pick) -> None:
        with unchecked():
            read(pick)

    weights_ML = np.full((1, CHOSEN), 1 / CHOSEN, np.float32)

    def fused(pick: Pick) -> None:
        for number in pick[0]:
            store.fused(KEYS[number], pick[1], weights_ML)

    def fused_unchecked(pick: Pick) -> None:
        with unchecked():
            fused(pick)

    def summed(pick: Pick) -> None:
        for _ in pick[0]:
            mixtures(lambda layer: out.at(slice(layer, layer + 1)), weights_ML, store.precision, (TOKENS, CHANNELS))

    print(
        f"\nwarm, {BATCH} pictures x {CHOSEN} of {len(LAYERS)} layers; speed beside preadv of the same bytes, CPU time"
    )
    ratios("read and checked", preadv, read, setting)
    ratios("read, the check left out", preadv, read_unchecked, setting)
    ratios("fused, float32 out", preadv, fused, setting)
    ratios("fused, the check left out", preadv, fused_unchecked, setting)
    ratios("fused, beside fused with the check left out", fused_unchecked, fused, setting)
    ratios("the sum alone", preadv, summed, setting)
    for name in ("bfloat16", "int8"):
        other = fill(place / name, setting.pictures, name)

        def fused_other(pick: Pick, other: FeatureStore = other) -> None:
            for number in pick[0]:
                other.fused(KEYS[number], pick[1], weights_ML)

        ratios(f"fused from {name}, beside preadv of float16", preadv, fused_other, setting)
        shutil.rmtree(other.root)
    others(place, preadv, store, setting)
    shutil.rmtree(store.root)


def others(place: Path, preadv: Callable[[Pick], None], store: FeatureStore, setting) -> None:
    """The same pictures and layers from what is usually used."""
    (place / "npy").mkdir()
    (place / "safetensors").mkdir()
    chunked = h5py.File(place / "plain.h5", "w")
    plain = chunked.create_dataset(
        "x", (setting.pictures, len(LAYERS), TOKENS, CHANNELS), "<f2", chunks=(1, 1, TOKENS, CHANNELS)
    )
    for number in range(setting.pictures):
        features = store.read(KEYS[number], LAYERS).numpy()
        plain[number] = features
        np.save(place / "npy" / f"{number}.npy", features)
        save_file({str(k): features[k] for k in LAYERS}, place / "safetensors" / f"{number}.safetensors")
    out = np.empty((BATCH, CHOSEN, TOKENS, CHANNELS), np.float16)

    def by_h5py(pick: Pick) -> None:
        for at, number in enumerate(pick[0]):
            for k, layer in enumerate(pick[1]):
                out[at, k] = plain[number, layer]

    def by_npy(pick: Pick) -> None:
        for at, number in enumerate(pick[0]):
            out[at] = np.load(place / "npy" / f"{number}.npy", mmap_mode="r")[pick[1]]

    def by_safetensors(pick: Pick) -> None:
        for at, number in enumerate(pick[0]):
            with safe_open(place / "safetensors" / f"{number}.safetensors", "np") as file:
                for k, layer in enumerate(pick[1]):
                    out[at, k] = file.get_tensor(str(layer))

    ratios("HDF5, chunk a slab: ds[i, l]", preadv, by_h5py, setting)
    ratios("npy a picture, mapped", preadv, by_npy, setting)
    ratios("safetensors a picture", preadv, by_safetensors, setting)
    try:
        import zarr
    except ImportError:
        print("  Zarr: not installed, not measured")
    else:
        array = zarr.create_array(
            place / "zarr", shape=plain.shape, dtype="f2", chunks=(1, 1, TOKENS, CHANNELS), compressors=None
        )
        for number in range(setting.pictures):
            array[number] = plain[number]

        def by_zarr(pick: Pick) -> None:
            for at, number in enumerate(pick[0]):
                for k, layer in enumerate(pick[1]):
                    out[at, k] = array[number, layer]

        ratios("Zarr v3, chunk a slab, no codec", preadv, by_zarr, setting)
        shutil.rmtree(place / "zarr")
    chunked.close()
    (place / "plain.h5").unlink()
    for name in ("npy", "safetensors"):
        shutil.rmtree(place / name)


def cold(store: FeatureStore, setting) -> None:
    """Out of the page cache (a cache below a virtual machine may remain)."""
    os.sync()
    opened = store.opened
    files = {opened.shard(entry.shard).path for key in store.pictures() for entry, _ in opened.places(key).values()}
    plain = {path: os.open(path, os.O_RDONLY) for path in files}

    def drop() -> None:
        for descriptor in plain.values():
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def loop(pick: Pick) -> None:
        for number in pick[0]:
            places = opened.places(KEYS[number])
            for layer in pick[1]:
                shard = opened.shard(places[layer][0].shard)
                [(start, size)] = shard.extents(*places[layer])
                os.pread(plain[shard.path], size, start)

    def prefetched(pick: Pick) -> None:
        store.prefetch((KEYS[number] for number in pick[0]), pick[1])
        for number in pick[0]:
            for layer in pick[1]:
                opened.slab(*opened.places(KEYS[number])[layer])

    print("\ncold; speed beside a plain pread loop of the same bytes, wall time")
    setting.clock, setting.before = "wall", drop
    ratios("prefetch of the batch, then read and checked", loop, prefetched, setting)
    setting.clock, setting.before = "cpu", lambda: None


def writes(place: Path, setting) -> None:
    made = [
        Stored(np.random.default_rng(n).standard_normal((len(LAYERS), TOKENS, CHANNELS), np.float32).astype(np.float16))
        for n in range(BATCH)
    ]
    print(f"\nwrites, batches of {BATCH} x {len(LAYERS)} slabs; speed beside append of the same bytes, wall time")
    turns = 3
    for durability in ("process", "power"):
        found: dict[str, list[float]] = {"without the final fsync": [], "with it": []}
        for turn in range(setting.rounds):
            times: dict[str, tuple[float, float]] = {}
            for name in ("append", "store") if turn % 2 else ("store", "append"):
                os.sync()
                start = time.perf_counter()
                if name == "append":
                    with (place / "append").open("wb", buffering=0) as file:
                        for _ in range(turns):
                            for stored in made:
                                file.write(stored.data_LTC.data.cast("B"))
                        middle = time.perf_counter()
                        os.fsync(file.fileno())
                    (place / "append").unlink()
                else:
                    form, options = Form(CHANNELS, PRECISIONS["float16"], TOKENS), FeatureOptions(durability=durability)
                    store = FeatureWriter(place / "w", "e", LAYERS, form, options)
                    store.reserve(KEYS[: turns * BATCH + 1])  # a full shard would be synced at once
                    for part in range(turns):
                        store.put(KEYS[part * BATCH : (part + 1) * BATCH], made)
                    middle = time.perf_counter()
                    store.close()
                times[name] = middle - start, time.perf_counter() - start
                shutil.rmtree(place / "w", ignore_errors=True)
            for at, kind in enumerate(found):
                found[kind].append(times["append"][at] / times["store"][at])
        for kind, values in found.items():
            name = f"durability {durability}, {kind}"
            print(f"  {name:58} {statistics.median(values):5.2f}  [{min(values):.2f} .. {max(values):.2f}]", flush=True)
            setting.results[name] = round(statistics.median(values), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--json", type=Path, help="write the medians to this file")
    setting = parser.parse_args()
    setting.clock, setting.before, setting.results = "cpu", lambda: None, {}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=setting.directory) as place:
        reads(Path(place), setting)
        writes(Path(place), setting)
    if setting.json:
        setting.json.write_text(json.dumps(setting.results, indent=1) + "\n")


if __name__ == "__main__":
    main()
