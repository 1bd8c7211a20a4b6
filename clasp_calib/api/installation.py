"""What is installed here, what it can use, and what is missing for what."""

import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clasp_calib.cache.filesystem import filesystem_of, is_local

REQUIRED = (
    "clasp-calib",
    "torch",
    "transformers",
    "safetensors",
    "h5py",
    "numpy",
    "optuna",
    "pyarrow",
)
OPTIONAL = {
    "matplotlib": ("plots", "plots beside the tables of a report"),
    "sklearn": ("router", "training a router or a labeler (running one needs none)"),
    "datasets": ("datasets", "labelling saved datasets and datasets on the Hub"),
    "onnxruntime": ("embed", "labelling with a sentence embedding (--backend embedding)"),
    "vllm": ("vllm", "labelling with a language model in this process (--backend vllm), and serving artifacts"),
    "ray": ("ray", "searching on several machines (--engine ray)"),
}
"""Module -> the extra that brings it, and what it is for."""


def installation(run: Path) -> dict[str, Any]:
    """Versions, devices, disk and what is missing, of this machine and for a run directory that need not exist.

    Needs none of the packages that it looks for.
    """
    versions = {name: _version(name) for name in REQUIRED}
    place = run.resolve()
    while not place.exists():
        place = place.parent
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "versions": versions,
        "devices": _devices() if versions.get("torch") else [],
        "free_disk_bytes": shutil.disk_usage(place).free,
        "filesystem": filesystem_of(run),
        "local_filesystem": is_local(run),
        "embedded_model": _embedded(),
        "missing_optional": {
            name: f"{use}: pip install 'clasp-calib[{extra}]'"
            for name, (extra, use) in OPTIONAL.items()
            if find_spec(name) is None
        },
        "lacking": [name for name, found in versions.items() if found is None],
        "ready": None not in versions.values(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _devices() -> list[str]:
    import torch

    found = [f"cpu ({torch.get_num_threads()} threads)"]
    found += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    return found + (["mps"] if torch.backends.mps.is_available() else [])


def _embedded() -> bool:
    from clasp_calib.reference.model import MODEL

    return (MODEL / "config.json").is_file()
