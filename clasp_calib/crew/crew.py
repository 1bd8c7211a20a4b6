"""Who is asked: this process, others on this machine, or a Ray cluster. The answers are the same."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from clasp_calib.common.errors import InputError
from clasp_calib.common.settings import check_count

if TYPE_CHECKING:
    from clasp_calib.crew.tasks import ToolRecipe, Workers

Engine = Literal["local", "ray"]
PROCESS = 2**29
"""Bytes that a process takes before it loads a model."""


@dataclass(frozen=True)
class Crew:
    """Who scores, in a search and wherever else an artifact is measured.

    Attributes:
        workers: processes on this machine; one is this process itself. On a processor give one a core; where memory is
            too small for so many copies of the model, give threads.
        threads: that each worker computes with. They decide the last bits of a score, so the default is the same for
            every crew, and on a processor scores of another number are not taken up.
        engine: ``"local"``, or ``"ray"`` for the machines of a Ray cluster, which takes as many workers as it has
            room for.
        devices: of torch, such as ``("cuda:0", "cuda:1")``, which workers on this machine take in turn, at least one
            each; none is that of the model. They are of the model's kind, since only on devices of one kind scores are
            the same. A text is one device.
        ray_address: of a running cluster (``auto``, ``HOST:PORT``, ``ray://HOST:PORT``); ``None`` starts one on this
            machine that ends with the call.

    Raises:
        InputError: an unknown engine, a number below one, devices that are no names, or an option that the engine does
            not use.
    """

    workers: int = 1
    threads: int = 1
    engine: Engine = "local"
    ray_address: str | None = None
    devices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.engine not in get_args(Engine):
            raise InputError(f"unknown engine {self.engine!r}; expected local or ray (--engine, or engine of Crew)")
        for name, value in (("workers", self.workers), ("threads", self.threads)):
            check_count(f"{name} (--{name})", value, 1)
        object.__setattr__(self, "devices", _names(self.devices))
        if self.engine == "ray" and self.workers > 1:
            raise InputError(
                f"--workers {self.workers} is for --engine local; a Ray cluster takes as many as it has room for: "
                "leave it out (workers of Crew)"
            )
        if self.engine == "local" and self.ray_address is not None:
            raise InputError(
                f"--ray-address {self.ray_address} is for --engine ray; add it, or leave the address out "
                "(ray_address and engine of Crew)"
            )
        if self.engine == "ray" and self.devices:
            raise InputError(
                f"--devices {','.join(self.devices)} is for --engine local; Ray gives each task a device of its own: "
                "leave it out (devices of Crew)"
            )
        object.__setattr__(self, "workers", max(self.workers, len(self.devices)))

    @property
    def alone(self) -> bool:
        """Whether this process does all the scoring."""
        return self.engine == "local" and self.workers == 1 and not self.devices

    def check_reaches(self, model: Any) -> None:
        """Make sure that other processes can load the model, and score as it does, before hours of work.

        Raises:
            InputError: the model exists in memory only, or the devices are of another kind than its own.
        """
        if self.alone:
            return
        kind = model.device.type
        if any(name.partition(":")[0] != kind for name in self.devices):
            raise InputError(
                f"the devices {', '.join(self.devices)} (--devices) are not all of the kind of the model's own, {kind},"
                " and scores of two kinds differ; load the model on one of them (such as --device cuda), or give others"
            )
        if _loads_again(model):
            return
        source = model.config._name_or_path or "memory"
        raise InputError(
            f"other processes cannot load this model: it comes from {source!r}, which is neither a directory nor a "
            "model of the Hub; save it with save_pretrained and load it from there, or use one worker (--workers 1 "
            "without --engine, or Crew())"
        )


def _names(devices: Any) -> tuple[str, ...]:
    """Devices, each by its name.

    Raises:
        InputError: they are none.
    """
    names = (devices,) if isinstance(devices, str) else tuple(devices) if isinstance(devices, Sequence) else None
    # A comma parts names on the command line, and stands in none.
    if names is None or not all(isinstance(name, str) and name.strip() and "," not in name for name in names):
        raise InputError(
            f"devices (--devices) is {devices!r:.100}; expected names such as ('cuda:0', 'cuda:1') "
            "(--devices cuda:0,cuda:1)"
        )
    return names


def workers_for(model: Any, threads: int = 1) -> int:
    """How many processes of this machine should score: as many as have cores and memory; one on a GPU.

    Our choice: they share out a quarter of the memory that is free, so that a search is no burden to what else runs.

    Args:
        model: that each of them loads.
        threads: that each of them computes with.
    """
    if model.device.type != "cpu" or not _loads_again(model):
        return 1
    import torch

    size: int = PROCESS + sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(int(torch.get_num_threads()) // threads, free // 4 // size))


def _loads_again(model: Any) -> bool:
    """Whether other processes can load the model from where it came from."""
    source = model.config._name_or_path
    return Path(source or "/dev/null").is_dir() or bool(getattr(model.config, "_commit_hash", None))


def crew_for(crew: Crew, tool: Any, recipe: "Callable[[], ToolRecipe]") -> "Workers":
    """The workers of a long call.

    Args:
        crew: what was asked for.
        tool: what tasks are done with in this process.
        recipe: tells how to make the same elsewhere; asked only if others work.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """
    if crew.engine == "ray":
        from clasp_calib.crew.ray_workers import RayWorkers

        return RayWorkers(recipe(), crew.ray_address)
    from clasp_calib.crew.local_workers import InProcess, Processes

    return InProcess(tool, crew.threads) if crew.alone else Processes(recipe(), crew.workers, crew.devices)
