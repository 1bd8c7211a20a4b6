"""Who is asked to score: this process, others on this machine, or a Ray cluster. The answers are the same."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from clasp_calib.common.errors import InputError

if TYPE_CHECKING:
    from clasp_calib.calib.scoring.evaluator import Evaluator
    from clasp_calib.search.tasks import EvaluatorRecipe, Workers

Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class Crew:
    """Who scores candidates in a search.

    Attributes:
        workers: processes on this machine; one is this process itself.
        threads: that each worker computes with; ``None`` shares out what torch would take, and is one on a cluster.
        engine: ``"local"``, or ``"ray"`` for the machines of a Ray cluster, which takes as many workers as it has
            room for.
        ray_address: of a running cluster (``auto``, ``HOST:PORT``, ``ray://HOST:PORT``); ``None`` starts one on this
            machine that ends with the search.

    Raises:
        InputError: an unknown engine, a number below one, or an option that the engine does not use.
    """

    workers: int = 1
    threads: int | None = None
    engine: Engine = "local"
    ray_address: str | None = None

    def __post_init__(self) -> None:
        if self.engine not in get_args(Engine):
            raise InputError(f"unknown engine {self.engine!r}; expected local or ray (--engine, or engine of Crew)")
        for name, value in (("workers", self.workers), ("threads", self.threads)):
            if value is not None and value < 1:
                raise InputError(f"--{name} {value} is too few; expected at least 1 ({name} of Crew)")
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

    @property
    def alone(self) -> bool:
        """Whether this process does all the scoring."""
        return self.engine == "local" and self.workers == 1

    def threads_each(self, available: int) -> int:
        """Threads of each worker, where torch would take so many for one process."""
        return self.threads or (1 if self.engine == "ray" else max(1, available // self.workers))

    def check_reaches(self, model: Any) -> None:
        """Make sure that other processes can load the model, before hours of work.

        Raises:
            InputError: the model exists in memory only.
        """
        source = model.config._name_or_path
        if self.alone or Path(source or "/dev/null").is_dir() or getattr(model.config, "_commit_hash", None):
            return
        raise InputError(
            f"other processes cannot load this model: it comes from {source or 'memory'!r}, which is neither a "
            "directory nor a model of the Hub; save it with save_pretrained and load it from there, or use one "
            "worker (without --workers and --engine, or Crew())"
        )


def crew_for(crew: Crew, evaluator: "Evaluator", recipe: "EvaluatorRecipe") -> "Workers":
    """The workers of a search.

    Args:
        crew: what was asked for.
        evaluator: of this process.
        recipe: to make the same elsewhere.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """
    if crew.engine == "ray":
        from clasp_calib.search.ray_workers import RayWorkers

        return RayWorkers(recipe, crew.ray_address)
    from clasp_calib.search.local_workers import InProcess, Processes

    return InProcess(evaluator, crew.threads) if crew.alone else Processes(recipe, crew.workers)
