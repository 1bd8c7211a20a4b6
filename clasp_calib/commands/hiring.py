"""The crew that options ask for."""

from typing import Any

from clasp_calib.crew.crew import Crew, Engine, workers_for


class Wanted:
    """What is asked for, before there is a model.

    Raises:
        InputError: it does not go together.
    """

    def __init__(self, workers: int | None, threads: int, engine: Engine, ray_address: str | None) -> None:
        self._workers, self._others = workers, (threads, engine, ray_address)
        Crew(workers or 1, *self._others)

    def crew(self, model: Any) -> Crew:
        """The crew for a model: on this machine as many processes as fit, unless their number was given."""
        fitting = workers_for(model) if self._workers is None and self._others[1] == "local" else 1
        return Crew(self._workers or fitting, *self._others)
