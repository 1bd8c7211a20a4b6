"""``clasp-calib artifact``: look at, verify, compare and pass on calibrated artifacts."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clasp_calib.commands.models import load
from clasp_calib.commands.options import (
    DEFAULT_RUN,
    CacheOption,
    DeviceOption,
    DtypeOption,
    ImageRootOption,
    JsonOption,
    RunOption,
    SamplesOption,
    SeedOption,
)
from clasp_calib.commands.output import emit, say, show
from clasp_calib.commands.used_by import CheckedTyper, UnusedWith, UsedBy
from clasp_calib.common.errors import InputError
from clasp_calib.common.run_directory import RunDirectory

if TYPE_CHECKING:
    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.artifacts.difference import ClassChange, Difference, ScoreChange

app = CheckedTyper(no_args_is_help=True, help="Look at, verify, compare and pass on calibrated artifacts.")
DirectoryArgument = Annotated[
    Path | None, typer.Argument(help="Artifact directory; default: artifact/ of the run.", show_default=False)
]
NOT_AS_RECORDED = 1
WEIGHTS = {
    "same": "are those of the calibration",
    "other": "are others than those of the calibration",
    "untold": "cannot be compared with those of the calibration",
    "unrecorded": "are not recorded in the artifact",
}


@app.callback()
def artifact() -> None:
    """Look at, verify, compare and pass on calibrated artifacts."""


@app.command("show")
def show_artifact(
    directory: DirectoryArgument = None, run: RunOption = DEFAULT_RUN, as_json: JsonOption = False
) -> None:
    """Verify an artifact and print its contents.

    Example: clasp-calib artifact show --run my-run
    """
    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.artifacts.card import mixture, ratio, told_router
    from clasp_calib.artifacts.manifest import hashed
    from clasp_calib.artifacts.sureness import MEASURED_COLUMNS, measured_cells
    from clasp_calib.commands.sureness_tables import say_legend, show_sureness

    known = Artifact.load(directory or RunDirectory(run).artifact)
    manifest = known.manifest
    if as_json:
        quality = known.router and known.router.quality
        told = {"router_quality": quality and asdict(quality), "numbers": _numbers(known)}
        emit({**manifest.model_dump(mode="json"), **told})
        return
    say(f"{manifest.name} {manifest.version}, format {manifest.format}, id {(manifest.id or '')[:16]}")
    visual = manifest.shape.tokens_per_image or "a varying number of"
    say(
        f"for {manifest.model}: {manifest.shape.architecture}, {manifest.shape.text_layers} decoder layers, "
        f"{visual} visual tokens, fingerprint {manifest.fingerprint[:16]}"
    )
    say(f"checkpoint {manifest.checkpoint or 'not recorded'}, prompt {hashed(manifest.prompt)[:16]}")
    say(f"method {manifest.method}, profile {manifest.profile}, k-means seeded by {manifest.seeding}")
    say(f"router: {told_router(known.router)}")
    for entry in manifest.budgets:
        calibrated = entry.results.get("calibrated", {})
        show(
            f"budget {entry.name}: {entry.stages} tokens entering layers "
            f"{' / '.join(map(str, manifest.starts))}, {entry.a_layer} a layer on average",
            ["class", "mixture of vision layers", "rho", *MEASURED_COLUMNS, "test"],
            [
                [
                    label,
                    mixture(known.alpha(entry.name, label)),
                    ratio(known, entry.name, label),
                    *measured_cells(entry.choices[label]),
                    f"{calibrated[label].mean:.1%}" if label in calibrated else "-",
                ]
                for label in known.classes
            ],
        )
        show_sureness(entry, known.classes)
    if any(entry.decision for entry in manifest.budgets):
        say_legend()


@app.command()
def verify(
    directory: DirectoryArgument = None,
    model: Annotated[
        str | None, typer.Option(help="Model directory, Hub id or 'reference': check that the artifact fits it.")
    ] = None,
    recheck: Annotated[
        int | None,
        typer.Option(min=1, help="Measure N recorded scores again, on the samples and the cache."),
        UsedBy("model"),
    ] = None,
    run: RunOption = DEFAULT_RUN,
    samples: Annotated[SamplesOption, UsedBy("recheck")] = None,
    image_root: Annotated[ImageRootOption, UsedBy("recheck")] = None,
    cache: Annotated[CacheOption, UsedBy("recheck")] = None,
    device: Annotated[DeviceOption, UsedBy("model")] = "cpu",
    dtype: Annotated[DtypeOption, UsedBy("model")] = "float32",
    seed: Annotated[SeedOption, UsedBy("recheck")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Check hashes, format and numbers of an artifact, and with --model that it fits the model.

    Exit code 1 if the model's weights are not known to be those of the calibration, or if a score that is measured
    again differs from the recorded one.

    Example: clasp-calib artifact verify --run my-run
    """
    from clasp_calib.artifacts.artifact import read_artifact
    from clasp_calib.artifacts.files import verify_files
    from clasp_calib.artifacts.fits import check_fits
    from clasp_calib.artifacts.hub import locate_artifact

    place = locate_artifact(directory or RunDirectory(run).artifact)
    files = verify_files(place)
    known = read_artifact(place)
    wrong = False
    result: dict[str, Any] = {"artifact": place, "id": known.manifest.id, "files": files}
    lines = [[name, "as the manifest says", f"{size:,} bytes"] for name, size in files.items()]
    if model is not None:
        loaded, processor = load(model, device, dtype)
        weights = check_fits(known, loaded)
        result |= {"fits": model, "weights": weights}
        lines.append(["model", "has the artifact's shape", known.manifest.fingerprint[:16]])
        lines.append(["weights", WEIGHTS[weights], str(known.manifest.checkpoint or "-")])
        wrong = weights in ("other", "untold")
    if recheck:
        from clasp_calib.api.rechecking import recheck as measure
        from clasp_calib.common.places import Places
        from clasp_calib.common.sample_sources import load_samples

        of_run = RunDirectory(run)
        table = load_samples(samples or of_run.table, pictures=of_run.pictures, image_root=image_root)
        places = Places(features=cache or of_run.cache)
        again = measure(loaded, processor, known, table, recheck, run=places, seed=seed)
        differing = sum(not one.same for one in again)
        wrong |= differing > 0
        result["recheck"] = {
            "checked": len(again),
            "differing": [{**asdict(one.recorded), "measured": one.measured} for one in again if not one.same],
        }
        lines.append(["scores", f"{len(again) - differing} of {len(again)} as recorded", ""])
    if as_json:
        emit(result)
    else:
        show(f"{place}: {known.manifest.name} {known.manifest.version}", ["what", "", ""], lines)
    if wrong:
        raise typer.Exit(NOT_AS_RECORDED)


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(help="Artifact directory or org/name@version.")],
    second: Annotated[Path, typer.Argument(help="Artifact directory or org/name@version.")],
    as_json: JsonOption = False,
) -> None:
    """Show what changed from one artifact to another: settings, and for each class its mixture, rho and score.

    Example: clasp-calib artifact diff served my-run/artifact
    """
    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.artifacts.difference import difference

    found = difference(Artifact.load(first), Artifact.load(second))
    if as_json:
        emit(asdict(found))
        return
    lines = [*_told(found), *(_change(change) for change in found.changes if change.changed or change.gain)]
    for line in lines or ["nothing changed"]:
        say(line)


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="A new directory, or a file that ends in .json for the numbers alone.")],
    budget: Annotated[list[str] | None, typer.Option("--budget", help="Default: all budgets; repeatable.")] = None,
    directory: Annotated[
        Path | None,
        typer.Option("--artifact", help="Artifact directory or org/name@version; default: artifact/ of the run."),
    ] = None,
    run: RunOption = DEFAULT_RUN,
    as_json: JsonOption = False,
) -> None:
    """Write what a server needs: the chosen budgets without their study, or plain JSON for other languages.

    Example: clasp-calib artifact export served --run my-run
    """
    import json

    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.artifacts.files import write_artifact

    known = Artifact.load(directory or RunDirectory(run).artifact)
    chosen = known.only(budget or known.budgets)
    if out.suffix == ".json":
        try:
            out.write_text(json.dumps(_plain(chosen), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write {out} ({error}); give another place") from error
    else:
        chosen = write_artifact(chosen, out)
    if as_json:
        emit({"out": out, "budgets": chosen.budgets})
        return
    say(f"{', '.join(chosen.budgets)} written to {out}")


@app.command("set-router")
def set_router(
    directory: DirectoryArgument = None,
    router: Annotated[
        Path | None,
        typer.Option(help="A router file; default: router.safetensors of the run.", show_default=False),
        UnusedWith("remove"),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the artifact's router out instead.")] = False,
    run: RunOption = DEFAULT_RUN,
    as_json: JsonOption = False,
) -> None:
    """Put a router into an artifact, or take it out. A router finds the class of a question.

    Example: clasp-calib artifact set-router --run my-run
    """
    from clasp_calib.artifacts.artifact import read_artifact
    from clasp_calib.artifacts.card import told_router
    from clasp_calib.artifacts.files import write_artifact
    from clasp_calib.router_labeling.router_file import load_router

    place = directory or RunDirectory(run).artifact
    known = read_artifact(place)
    chosen = None if remove else load_router(router or RunDirectory(run).router)
    written = write_artifact(known.with_router(chosen), place)
    if as_json:
        entry = written.manifest.router
        emit({"artifact": place, "router": entry and entry.model_dump(), "id": written.manifest.id})
        return
    say(f"router of {place}: {told_router(written.router)}")


@app.command()
def bump(
    directory: DirectoryArgument = None,
    version: Annotated[
        str, typer.Option("--version", help="major, minor or patch, or a version such as 1.2.0.")
    ] = "patch",
    run: RunOption = DEFAULT_RUN,
    as_json: JsonOption = False,
) -> None:
    """Raise an artifact's version. Patch: measured again; minor: other numbers; major: another use.

    Example: clasp-calib artifact bump --run my-run --version minor
    """
    from clasp_calib.artifacts.artifact import read_artifact
    from clasp_calib.artifacts.files import write_artifact
    from clasp_calib.artifacts.versions import raised

    place = directory or RunDirectory(run).artifact
    known = read_artifact(place)
    before = known.manifest.version
    after = raised(before, version)
    written = write_artifact(known.with_manifest(known.manifest.model_copy(update={"version": after})), place)
    if as_json:
        emit({"artifact": place, "before": before, "version": after, "id": written.manifest.id})
        return
    say(f"{written.manifest.name} {before} -> {after}")


def _numbers(known: "Artifact") -> dict[str, dict[str, dict[str, Any]]]:
    return {
        name: {
            label: {
                "alpha": known.alpha(name, label),
                "rho": known.rho(name, label),
                "seeding": known.seeding(name, label),
                **({"relevance": kind} if (kind := known.relevance(name, label)) else {}),
                **({"downsample": share} if (share := known.downsample(name, label)) else {}),
                **({"selector": of.model_dump()} if (of := known.entry(name).choices[label].selector) else {}),
            }
            for label in known.classes
        }
        for name in known.budgets
    }


def _plain(known: "Artifact") -> dict[str, Any]:
    manifest = known.manifest
    named = ("name", "version", "model", "fingerprint", "prompt", "decoding")
    pruned = ("profile", "relevance", "starts", "raters", "positions", "features", "iterations")
    return {
        **manifest.model_dump(mode="json", include={*named, *pruned}),
        "budgets": {
            name: {"counts": known.counts(name), "classes": numbers} for name, numbers in _numbers(known).items()
        },
    }


def _told(found: "Difference") -> list[str]:
    return [
        *(f"{name}: {before} -> {after}" for name, (before, after) in found.settings.items()),
        *([f"router: {found.router[0]} -> {found.router[1]}"] if found.router else []),
        *(f"budget {name}: only in the first" for name in found.removed),
        *(f"budget {name}: only in the second" for name in found.added),
        *(f"budget {name}: {before} -> {after} tokens" for name, (before, after) in found.counts.items()),
    ]


def _change(change: "ClassChange") -> str:
    parts = []
    before, after = change.prototype
    if before != after:
        parts.append(f"prototype {before} -> {after}")
    if change.alpha_distance:
        parts.append(f"{change.alpha_distance:.0%} of the mixture moved")
    if not any(change.selector):  # Others have none of these.
        rho = [f"{rho:g}" for rho in change.rho]
        pairs = {"rho": rho, "seeding": change.seeding, "relevance": change.relevance}
        parts += [f"{name} {one} -> {other}" for name, (one, other) in pairs.items() if one != other]
    if change.downsample[0] != change.downsample[1]:
        before_, after_ = (f"{share:.0%}" if share else "100%" for share in change.downsample)
        parts.append(f"pictures of {before_} -> {after_} of their tokens")
    if change.selector[0] != change.selector[1]:
        parts.append("selector " + " -> ".join(of.short if of else "clasp" for of in change.selector))
    if change.gain:
        parts.append(_points(change.gain))
    return f"budget {change.budget}, {change.label}: {', '.join(parts)}"


def _points(gain: "ScoreChange") -> str:
    pairing = "" if gain.paired else " (not the same samples)"
    return f"{100 * gain.mean:+.1f} +- {100 * gain.half_width:.1f} points{pairing}"
