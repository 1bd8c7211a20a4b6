"""Who works: the machines of a Ray cluster. Every task is a Ray task; one whose machine dies is given to another.

All machines must see the model, the cache and the pictures under the same paths.
"""

import logging
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from clasp_calib.common.errors import InputError, StudyError
from clasp_calib.crew.tasks import ATTEMPTS, Result, Task, ToolRecipe, do_by_recipe

KNOCK = 10.0
"""Seconds after which a cluster that does not answer is not there."""


class RayWorkers:
    """Works on a Ray cluster.

    Args:
        recipe: of the tool.
        address: of a running cluster (``auto``, ``HOST:PORT``, ``ray://HOST:PORT``); ``None`` starts one on this
            machine that ends with the call.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, recipe: ToolRecipe, address: str | None):
        try:
            import ray
        except ImportError as error:
            raise InputError("--engine ray needs Ray; install it: pip install 'clasp-calib[ray]'") from error
        self._ray = ray
        self._joined = not ray.is_initialized()
        if self._joined:
            _reach(address)
            ended = signal.getsignal(signal.SIGTERM)
            try:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise InputError(f"no Ray cluster at {address!r} ({error}); give its --ray-address") from error
            if threading.current_thread() is threading.main_thread():
                # Ray has put its own in its place, which tells nobody how to go on.
                signal.signal(signal.SIGTERM, ended or signal.SIG_DFL)
        gpus = 1 if recipe.device.startswith("cuda") else 0
        remote = ray.remote(num_cpus=recipe.threads, num_gpus=gpus, max_retries=ATTEMPTS)
        self._do: Any = remote(do_by_recipe)
        self._recipe = ray.put(recipe)
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        room = resources.get("GPU", 0) if gpus else resources.get("CPU", 1) / recipe.threads
        self.count = max(1, int(room))

    def do(self, tasks: Sequence[Task[Any, Result]]) -> Iterator[tuple[int, Result]]:
        """Each task's number with its result, as they come.

        Raises:
            StudyError: a task's workers died too often.
        """
        pending = {self._do.remote(self._recipe, task): number for number, task in enumerate(tasks)}
        while pending:
            (done,), _ = self._ray.wait(list(pending), num_returns=1)
            number = pending.pop(done)
            try:
                result: Result = self._ray.get(done)
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except self._ray.exceptions.RayError as error:
                raise StudyError(
                    f"the cluster lost a task ({error}); what was done is kept: give the command again"
                ) from error
            yield number, result

    def close(self) -> None:
        """Leave the cluster."""
        if self._joined:
            self._ray.shutdown()


def _reach(address: str | None) -> None:
    """Knock before Ray does, which waits for minutes where nobody answers."""
    place, found, port = (address or "").removeprefix("ray://").rpartition(":")
    if found and port.isdigit():
        try:
            socket.create_connection((place, int(port)), timeout=KNOCK).close()
        except OSError as error:
            raise InputError(f"no Ray cluster at {address!r} ({error}); give its --ray-address") from error
