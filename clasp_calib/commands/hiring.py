"""The crew that options ask for."""

from typing import Any

from clasp_calib.crew.crew import Crew, Engine, workers_for


class Wanted:
    """What is asked for, before there is a model.

    Raises:
        InputError: it does not go together.
    """

    def __init__(
        self, workers: int | None, threads: int, engine: Engine, ray_address: str | None, devices: str | None
    ) -> None:
        several = tuple(name.strip() for name in devices.split(",")) if devices else ()
        self._workers, self._others = workers, (threads, engine, ray_address, several)
        Crew(workers or 1, *self._others)

    def crew(self, model: Any) -> Crew:
        """The crew for a model: on this machine as many processes as fit, unless their number was given."""
        threads, engine, _, devices = self._others
        fitting = workers_for(model, threads) if self._workers is None and engine == "local" and not devices else 1
        return Crew(self._workers or fitting, *self._others)
