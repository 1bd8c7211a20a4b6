"""Reading and writing an artifact directory, whole or not at all, and checking that it fits a model."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.artifacts.manifest import FORMAT, Manifest
from clasp_calib.artifacts.model_shape import model_shape
from clasp_calib.common.errors import ArtifactError, InputError
from clasp_calib.common.hashing import sha256_file, sha256_json

MANIFEST = "artifact.json"
WEIGHTS = "weights.safetensors"
_PARTIAL = ".partial"


def write_artifact(artifact: Artifact, directory: Path) -> Artifact:
    """Write an artifact; what stood there before is replaced only once the new one is complete on the disk.

    Other files in the directory, such as a model card, are left alone.

    Returns:
        The artifact with its file hashes and id.

    Raises:
        InputError: the place cannot be written to, or holds something that is not an artifact.
    """
    check_place(directory)
    partial = directory / _PARTIAL
    try:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        weights = {"alpha": np.ascontiguousarray(artifact.alphas), "rho": np.ascontiguousarray(artifact.rhos)}
        (partial / WEIGHTS).write_bytes(save(weights))
        files = {WEIGHTS: sha256_file(partial / WEIGHTS)}
        manifest = artifact.manifest.model_copy(update={"files": files, "id": None})
        manifest = manifest.model_copy(update={"id": _identity(manifest.model_dump(mode="json"))})
        text = json.dumps(manifest.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False)
        (partial / MANIFEST).write_text(text + "\n", encoding="utf-8")
        for name in (WEIGHTS, MANIFEST):
            (partial / name).replace(directory / name)
        partial.rmdir()
    except OSError as error:
        raise InputError(f"cannot write the artifact to {directory} ({error}); give another place") from error
    return artifact.with_manifest(manifest)


def check_place(directory: Path) -> None:
    """Refuse a directory that an artifact cannot be written to: ask before hours of work.

    Raises:
        InputError: it is a file, or holds something that is not an artifact.
    """
    if directory.is_dir():
        others = {path.name for path in directory.iterdir()}
        if MANIFEST not in others and others - {WEIGHTS, _PARTIAL}:
            raise InputError(f"{directory} is not empty and holds no artifact; give another place")
    elif directory.exists():
        raise InputError(f"{directory} is a file; give a directory for the artifact")


def read_artifact(directory: Path) -> Artifact:
    """Read and verify an artifact.

    Raises:
        ArtifactError: it is missing, of an unknown format, damaged, or was edited by hand.
    """
    path = directory / MANIFEST
    if not path.is_file():
        raise ArtifactError(
            f"no artifact at {directory} (there is no {MANIFEST}); make one with `clasp-calib search --budget 192`"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON ({error}); fetch or make the artifact again") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise ArtifactError(f"{path} is of format {found!r}; this version of clasp-calib reads format {FORMAT}")
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ArtifactError(f"{path} does not follow format {FORMAT}: {where}: {first['msg']}") from error
    if manifest.id != _identity(content):
        raise ArtifactError(
            f"{path} does not match its own id: it was changed after it was written; fetch or make it again"
        )
    if set(manifest.files) != {WEIGHTS}:
        raise ArtifactError(
            f"{path} lists the files {', '.join(manifest.files) or 'none'}; format {FORMAT} has {WEIGHTS} alone"
        )
    _verify(directory / WEIGHTS, manifest.files[WEIGHTS])
    try:
        weights = load_file(directory / WEIGHTS)
        return Artifact(manifest, weights["alpha"], weights["rho"])
    except (SafetensorError, KeyError) as error:
        raise ArtifactError(
            f"{directory / WEIGHTS} does not hold alpha and rho ({error}); fetch or make the artifact again"
        ) from error


def check_fits(artifact: Artifact, config: Any) -> None:
    """Refuse a model that the artifact was not made for.

    Args:
        artifact: the artifact.
        config: the model's transformers configuration.

    Raises:
        ArtifactError: naming every shape that differs.
    """
    given = model_shape(config)
    if given.fingerprint != artifact.manifest.fingerprint:
        differences = "; ".join(artifact.manifest.shape.differences(given))
        raise ArtifactError(
            f"the artifact was calibrated for {artifact.manifest.model}, and this model differs "
            f"({differences}); use the model that it was made for, or calibrate this one"
        )


def _identity(manifest: dict[str, Any]) -> str:
    return sha256_json({key: value for key, value in manifest.items() if key != "id"})


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _verify(path: Path, expected: str) -> None:
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; fetch or make the artifact again")
    if (found := sha256_file(path)) != expected:
        raise ArtifactError(
            f"{path} is damaged: its sha256 is {found[:12]}, the manifest says {expected[:12]}; "
            "fetch or make the artifact again"
        )
