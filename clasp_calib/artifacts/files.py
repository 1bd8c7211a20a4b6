"""Reading and writing an artifact directory, whole or not at all.

What is read may come from anybody: nothing in an artifact is executed, every file is bounded before it is read, and
whatever does not follow the format is refused with the name of the field.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from clasp_calib.artifacts.card import CARD, model_card
from clasp_calib.artifacts.consistency import check_content
from clasp_calib.artifacts.evidence import SCORES, TRIALS
from clasp_calib.artifacts.manifest import FORMAT, Manifest, hashed
from clasp_calib.common.errors import ArtifactError, InputError
from clasp_calib.common.fields import describe
from clasp_calib.common.given_files import read_given
from clasp_calib.common.hashing import sha256_json
from clasp_calib.common.strict_json import strict_json
from clasp_calib.router_labeling.router import Router
from clasp_calib.router_labeling.router_file import MOST_BYTES, read_router, router_bytes

if TYPE_CHECKING:
    from clasp_calib.artifacts.artifact import Artifact

MANIFEST = "artifact.json"
WEIGHTS = "weights.safetensors"
ROUTER = "router.safetensors"
STUDY = (TRIALS, SCORES)
FILES = (WEIGHTS, ROUTER, *STUDY, CARD)
"""Every file that a manifest may list; the first is always there."""
_PARTIAL = ".partial"
MANIFEST_BYTES = 16 << 20
_STUDY_BYTES = 256 << 20
_HEADER_BYTES = 1 << 16
"""What safetensors may add to the numbers; two tensors need some hundred bytes."""
_AGAIN = "fetch or make the artifact again"


class Content(NamedTuple):
    """The fields of an `Artifact`, in their order."""

    manifest: Manifest
    alphas: NDArray[np.float32]
    rhos: NDArray[np.float32]
    study: dict[str, bytes]
    router: Router | None


def write_artifact(artifact: "Artifact", directory: str | Path) -> "Artifact":
    """Write an artifact; what stood there before is replaced only once the new one is complete on the disk.

    Files in the directory that are not an artifact's are left alone.

    Returns:
        The artifact with its file hashes and id.

    Raises:
        InputError: the place cannot be written to, or holds something that is not an artifact.
    """
    directory = Path(directory)
    check_place(directory)
    weights = {"alpha": np.ascontiguousarray(artifact.alphas), "rho": np.ascontiguousarray(artifact.rhos)}
    router = {} if artifact.router is None else {ROUTER: router_bytes(artifact.router)}
    contents = {WEIGHTS: save(weights), **router, **artifact.study, CARD: model_card(artifact).encode()}
    files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    of = artifact.manifest
    manifest = of.model_copy(update={"format": FORMAT, "prompt_hash": hashed(of.prompt), "files": files, "id": None})
    manifest = manifest.model_copy(update={"id": _identity(manifest.model_dump(mode="json"))})
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False)
    contents[MANIFEST] = (text + "\n").encode()
    partial = directory / _PARTIAL
    try:
        if partial.exists():
            shutil.rmtree(partial)
        for name, content in contents.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(content)
        for name in contents:
            (directory / name).parent.mkdir(exist_ok=True)
            (partial / name).replace(directory / name)
        for name in FILES:
            if name not in contents:
                (directory / name).unlink(missing_ok=True)
        shutil.rmtree(partial)
    except OSError as error:
        raise InputError(f"cannot write the artifact to {directory} ({error}); give another place") from error
    return artifact.with_manifest(manifest)


def check_place(directory: str | Path) -> None:
    """Refuse a directory that an artifact cannot be written to: ask before hours of work.

    Raises:
        InputError: it is a file, or holds something that is not an artifact.
    """
    directory = Path(directory)
    if directory.is_dir():
        others = {path.name for path in directory.iterdir()}
        if others and not others & {MANIFEST, _PARTIAL}:
            raise InputError(f"{directory} is not empty and holds no artifact; give another place")
        links = [name for name in (_PARTIAL, "study") if (directory / name).is_symlink()]
        if links:
            raise InputError(f"{directory / links[0]} is a link, and writing would follow it; remove it")
    elif directory.exists():
        raise InputError(f"{directory} is a file; give a directory for the artifact")


def read_content(directory: str | Path) -> Content:
    """The fields of an artifact, verified; see `clasp_calib.artifacts.artifact.read_artifact`."""
    directory = Path(directory)
    manifest = read_manifest(directory)
    study = {name: _checked(directory, name, manifest) for name in STUDY if name in manifest.files}
    content = _checked(directory, WEIGHTS, manifest)
    try:
        weights = load(content)
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{directory / WEIGHTS} cannot be read as safetensors ({error}); {_AGAIN}") from error
    if set(weights) != {"alpha", "rho"}:
        raise ArtifactError(
            f"{directory / WEIGHTS} holds {', '.join(sorted(weights)) or 'nothing'}; expected alpha and rho; {_AGAIN}"
        )
    router = None
    if ROUTER in manifest.files:
        router = read_router(_checked(directory, ROUTER, manifest), str(directory / ROUTER))
    check_content(manifest, weights["alpha"], weights["rho"], router)
    return Content(manifest, weights["alpha"], weights["rho"], study, router)


def verify_files(directory: str | Path) -> dict[str, int]:
    """Read an artifact whole, its model card too, and give the bytes of every file of it.

    Raises:
        ArtifactError: see `read_content`.
    """
    directory = Path(directory)
    files = read_content(directory).manifest.files
    if CARD in files:
        _checked(directory, CARD, read_manifest(directory))
    return {name: (directory / name).stat().st_size for name in (MANIFEST, *(f for f in FILES if f in files))}


def read_manifest(directory: Path) -> Manifest:
    """The manifest alone, of the known format and as it was written.

    Raises:
        ArtifactError: see `read_content`.
    """
    path = directory / MANIFEST
    if not path.is_file():
        raise ArtifactError(
            f"no artifact at {directory} (there is no {MANIFEST}); make one with `clasp-calib search --budget 192`"
        )
    text = _bounded(directory, MANIFEST, MANIFEST_BYTES)
    try:
        content = strict_json(text)
    except ValueError as error:
        raise ArtifactError(f"{path} cannot be read as JSON ({error}); {_AGAIN}") from error
    found = content.get("format") if isinstance(content, dict) else None
    if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found <= FORMAT:
        newer = isinstance(found, int) and found > FORMAT
        advice = "; install a newer clasp-calib" if newer else ""
        raise ArtifactError(
            f"{path} is of format {found!r:.40}; this version of clasp-calib reads formats 1 to {FORMAT}{advice}"
        )
    if content.get("id") != _identity(content):
        raise ArtifactError(f"{path} does not match its own id: it was changed after it was written; {_AGAIN}")
    try:
        manifest = Manifest.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise ArtifactError(f"{path} does not follow format {found}: {describe(error)}; {_way_out(content)}") from error
    if WEIGHTS not in manifest.files or not set(manifest.files) <= set(FILES):
        raise ArtifactError(
            f"{path} lists the files {', '.join(manifest.files)[:1000] or 'none'}; format {found} has {WEIGHTS}, "
            f"and may have {', '.join(FILES[1:])}"
        )
    return manifest


def _way_out(content: dict[str, Any]) -> str:
    """What to do about a manifest that is as it was written, and not of this version's format."""
    if content.get("needs"):
        return f"it says that it needs clasp-calib {content['needs']!r:.40}: install that version, or a newer one"
    try:
        writers = {of["versions"]["clasp-calib"] for of in content["provenance"].values()}
        wrote = " and ".join(sorted(map(str, writers)))[:100] or "unknown"
    except (KeyError, TypeError, AttributeError):
        wrote = "unknown"
    return (
        f"another version of clasp-calib, maybe one in development, wrote it (it says {wrote}): use that version, or "
        "calibrate again with `clasp-calib search` and another --run"
    )


def limits(manifest: Manifest) -> dict[str, int]:
    """The most bytes that the other files of an artifact can need, of those that it has."""
    numbers = 4 * len(manifest.budgets) * len(manifest.classes) * (manifest.shape.vision_layers + 2)
    most = {WEIGHTS: numbers + _HEADER_BYTES, ROUTER: MOST_BYTES, CARD: MANIFEST_BYTES}
    return {name: most.get(name, _STUDY_BYTES) for name in FILES if name in manifest.files}


def _checked(directory: Path, name: str, manifest: Manifest) -> bytes:
    content = _bounded(directory, name, limits(manifest)[name])
    found, expected = hashlib.sha256(content).hexdigest(), manifest.files[name]
    if found != expected:
        raise ArtifactError(
            f"{directory / name} is damaged: its sha256 is {found[:12]}, the manifest says {expected[:12]}; {_AGAIN}"
        )
    return content


def _bounded(directory: Path, name: str, limit: int) -> bytes:
    """A file's bytes, if it lies where an artifact's file may and is no larger than it can be."""
    path = directory / name
    try:
        if not path.is_file():
            raise ArtifactError(f"{path} is missing; {_AGAIN}")
        home, target = directory.resolve(), path.resolve()
        # The Hub's cache keeps files under blobs/, beside snapshots/, and links to them.
        blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
        if not target.is_relative_to(home) and target.parent != blobs:
            raise ArtifactError(f"{path} is a link to {target}, outside of the artifact; {_AGAIN}")
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error}); {_AGAIN}") from error
    return read_given(path, limit, "file", ArtifactError, _AGAIN)


def _identity(manifest: dict[str, Any]) -> str:
    try:
        return sha256_json({key: value for key, value in manifest.items() if key != "id"})
    except ValueError as error:  # A lone surrogate has no UTF-8.
        raise ArtifactError(f"{MANIFEST} holds text that is not Unicode ({error}); {_AGAIN}") from error
