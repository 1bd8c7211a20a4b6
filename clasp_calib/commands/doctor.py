"""``clasp-calib doctor``."""

import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import typer

from clasp_calib.cache.filesystem import filesystem_of, maps_safely
from clasp_calib.commands.options import DEFAULT_RUN, JsonOption, RunOption
from clasp_calib.commands.output import emit, say, show
from clasp_calib.common.run_directory import RunDirectory

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
    "numba": ("fast", "summing cached layers in one pass, with the same bits"),
    "sklearn": ("router", "training a router (running one needs none)"),
    "datasets": ("datasets", "labelling saved datasets and datasets on the Hub"),
    "vllm": ("vllm", "labelling with a language model in this process (--backend vllm)"),
    "ray": ("ray", "searching on several machines (--engine ray)"),
}
"""Module -> the extra that brings it, and what it is for."""


def doctor(run: RunOption = DEFAULT_RUN, as_json: JsonOption = False) -> None:
    """Say what is installed, which devices there are, how much disk, and what is missing for what.

    Exits with 1 if something that every calibration needs is missing.

    Example: clasp-calib doctor
    """
    versions = {name: _version(name) for name in REQUIRED}
    missing = {
        name: f"{use}: pip install 'clasp-calib[{extra}]'"
        for name, (extra, use) in OPTIONAL.items()
        if find_spec(name) is None
    }
    devices = _devices() if versions.get("torch") else []
    model = _embedded()
    free = shutil.disk_usage(_existing(RunDirectory(run))).free
    mixing = _mixing() if versions.get("torch") and versions.get("numpy") else None
    lacking = [name for name, found in versions.items() if found is None]
    result = {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "versions": versions,
        "devices": devices,
        "free_disk_bytes": free,
        "filesystem": filesystem_of(run),
        "cached_layers_mixed_by": mixing,
        "embedded_model": model,
        "missing_optional": missing,
        "ready": not lacking,
    }
    if as_json:
        emit(result)
    else:
        rows = [["python", str(result["python"])], *([n, v or "missing"] for n, v in versions.items())]
        show("installed", ["package", "version"], rows)
        say(f"devices: {', '.join(devices) or 'none'}")
        safe = "" if maps_safely(run) else ", where a feature cache is portable and slower"
        say(f"free disk under {run}: {free / 2**30:.1f} GiB ({filesystem_of(run)}{safe})")
        say(f"cached layers are mixed by: {mixing or 'nothing, for lack of torch or numpy'}")
        say(f"embedded model: {'there' if model else 'missing'}")
        for name, use in missing.items():
            say(f"not installed: {name} - {use}")
        say("ready" if not lacking else f"missing: {', '.join(lacking)}; pip install clasp-calib")
    if lacking:
        raise typer.Exit(1)


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


def _mixing() -> str:
    """What sums cached layers: the compiled kernel, or torch and why."""
    from clasp_calib.cache.kernels import trouble

    return f"torch, more slowly than by numba ({found})" if (found := trouble()) else "numba"


def _embedded() -> bool:
    from clasp_calib.reference.model import MODEL

    return (MODEL / "config.json").is_file()


def _existing(run: RunDirectory) -> str:
    place = run.root.resolve()
    while not place.exists():
        place = place.parent
    return str(place)
