"""``clasp-calib cache``: look at, check, mend, trim and export a feature cache."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from clasp_calib.commands.options import DEFAULT_RUN, CacheOption, ImageRootOption, JsonOption, RunOption, SamplesOption
from clasp_calib.commands.output import emit, say
from clasp_calib.commands.used_by import CheckedTyper
from clasp_calib.common.progress import note
from clasp_calib.common.run_directory import RunDirectory

app = CheckedTyper(no_args_is_help=True, help="Look at, check, mend, trim and export a feature cache.")


@app.command()
def info(run: RunOption = DEFAULT_RUN, cache: CacheOption = None, as_json: JsonOption = False) -> None:
    """Print what a cache holds: pictures, layers, sizes, encoder.

    Example: clasp-calib cache info --run my-run
    """
    from clasp_calib.cache.maintenance import contents
    from clasp_calib.cache.precision import PIXELS

    known = contents(_place(run, cache))
    if as_json:
        emit(vars(known))
        return
    tokens = "a varying number of" if known.tokens is None else known.tokens
    if known.precision == PIXELS.name:
        say(f"pixels of {known.pictures} pictures")
    else:
        say(f"{known.pictures} pictures; {tokens} tokens of {known.channels} channels a layer in {known.precision}")
        for layer, pictures in known.layers.items():
            say(f"layer {layer}: {pictures} pictures")
    say(
        f"{known.bytes_used / 2**20:.1f} MiB in {known.shards} shards of together "
        f"{known.bytes_reserved / 2**20:.1f} MiB"
    )
    say(f"encoder: {known.encoder}")


@app.command()
def verify(run: RunOption = DEFAULT_RUN, cache: CacheOption = None, as_json: JsonOption = False) -> None:
    """Read everything and compare it with its checksums; exit code 1 if anything is damaged.

    Example: clasp-calib cache verify --run my-run
    """
    from clasp_calib.cache.maintenance import bring_up_to_date
    from clasp_calib.cache.store import FeatureStore

    bring_up_to_date(_place(run, cache))
    with FeatureStore.open(_place(run, cache)) as store:
        found = list(store.verify())
        if strays := store.opened.strays():
            note(
                f"{len(strays)} shards, such as {strays[0]}, are not in the index: a writer is at work, was killed, or "
                "the index has lost its end; what is in them counts as not cached"
            )
    if as_json:
        emit({"damaged": [vars(damage) for damage in found]})
    for damage in [] if as_json else found:
        say(f"layer {damage.layer} of picture {damage.key} in {damage.shard}: {damage.reason}")
    if not as_json:
        say(
            f"{len(found)} damaged slabs"
            + (f"; mend: clasp-calib cache repair --run {run}{_also('--cache', cache)}" if found else "")
        )
    if found:
        raise typer.Exit(1)


@app.command()
def repair(run: RunOption = DEFAULT_RUN, cache: CacheOption = None, as_json: JsonOption = False) -> None:
    """Forget what is damaged, so that the next cache-features encodes just that again; no file is deleted.

    Example: clasp-calib cache repair --run my-run
    """
    from clasp_calib.cache.writer import FeatureWriter

    with FeatureWriter.reopen(_place(run, cache)) as store:
        dropped = store.drop_damaged()
    if as_json:
        emit({"dropped": [vars(damage) for damage in dropped]})
        return
    pictures = len({damage.key for damage in dropped})
    say(f"{len(dropped)} damaged slabs of {pictures} pictures forgotten")
    if dropped:
        say(
            f"encode them again: clasp-calib cache-features --run {run}{_also('--out', cache)} (with the model and "
            "samples as before)"
        )


@app.command()
def gc(
    run: RunOption = DEFAULT_RUN,
    cache: CacheOption = None,
    samples: SamplesOption = None,
    image_root: ImageRootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget the pictures that no sample uses; shards that become empty are removed.

    Example: clasp-calib cache gc --run my-run
    """
    from clasp_calib.cache.maintenance import collect_garbage
    from clasp_calib.cache.picture_files import distinct_pictures
    from clasp_calib.common.sample_sources import load_samples
    from clasp_calib.common.samples import pictures_of

    directory = RunDirectory(run)
    given = load_samples(samples or directory.table, pictures=directory.pictures, image_root=image_root)
    pictures = pictures_of(given)
    forgotten, freed = collect_garbage(_place(run, cache), distinct_pictures(p for _, p in pictures).keys())
    if as_json:
        emit({"forgotten": forgotten, "bytes_freed": freed})
        return
    say(f"{forgotten} pictures forgotten, {freed / 2**20:.1f} MiB given back; other room is used again")


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="Directory for safetensors, file for kerchunk.")],
    kind: Annotated[Literal["safetensors", "kerchunk"], typer.Option("--format", help="What to write.")],
    run: RunOption = DEFAULT_RUN,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the features to safetensors, or write a manifest of where in the shards they are.

    Example: clasp-calib cache export --run my-run --format kerchunk --out features.json
    """
    from clasp_calib.cache.maintenance import export_manifest, export_safetensors

    write = export_manifest if kind == "kerchunk" else export_safetensors
    slabs = write(_place(run, cache), out)
    if as_json:
        emit({"out": out, "slabs": slabs})
        return
    say(f"{slabs} slabs in {out}")


def _also(option: str, cache: Path | None) -> str:
    return f" {option} {cache}" if cache else ""


def _place(run: Path, cache: Path | None) -> Path:
    return cache or RunDirectory(run).cache
