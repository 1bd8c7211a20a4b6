"""One server of vLLM's, started, asked the same questions at several concurrencies, and ended."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from clasp_calib.common.errors import ServingError
from clasp_calib.common.progress import note, progress
from clasp_calib.common.samples import Sample
from clasp_calib.serving.chat_load import ChatServer, Load, chat_bodies
from clasp_calib.serving.vllm_server import check_alive, running, unpruned

RESETTABLE = "VLLM_SERVER_DEV_MODE"
"""Lets a server be told to empty its caches."""

DYING = 5.0
"""Seconds between the end of a server's connections and its own, at most. Our choice."""


@dataclass(frozen=True)
class Loads:
    """What one server did."""

    version: str
    """Of vLLM."""
    warm_up: Load
    runs: tuple[Load, ...]
    """One for each concurrency."""


@dataclass(frozen=True)
class LoadTest:
    """What each server is asked.

    Attributes:
        samples: questions, in their order.
        instruction: what stands behind each.
        longest: tokens of an answer.
        concurrency: requests in flight, one run each. Before a run the server's caches are emptied.
        wait: seconds until a server must be healthy.
        place: directory of its log.
    """

    samples: tuple[Sample, ...]
    instruction: str
    longest: int
    concurrency: tuple[int, ...]
    wait: float
    place: Path

    def __call__(
        self,
        name: str,
        command: Sequence[str],
        address: str,
        environment: Mapping[str, str],
        unpruned_load: Load | None = None,
    ) -> Loads:
        """Start a server, ask it, and end it.

        Args:
            name: of its log.
            command: that starts it.
            address: its root.
            environment: what it is told of an artifact.
            unpruned_load: answers to the warm-up without pruning, which must have taken more tokens.

        Raises:
            ServingError: it does not start, dies, refuses a question, or should prune and does not.
        """
        log = self.place / f"{name}.log"
        note(f"starting vLLM, {name}; its log is {log}")
        variables = {**unpruned(os.environ), **environment, RESETTABLE: "1"}
        with running(command, address, self.wait, variables, log) as process:
            try:
                return self._asked(name, ChatServer(address), unpruned_load)
            except ServingError:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(DYING)
                check_alive(process, "while it was asked", log)
                raise

    def _asked(self, name: str, server: ChatServer, unpruned_load: Load | None) -> Loads:
        bodies = chat_bodies(self.samples, server.model(), self.longest, self.instruction)
        most = max(self.concurrency)
        warm_up = server.ask(bodies[:most], most)
        if unpruned_load and warm_up.prompt_tokens >= unpruned_load.prompt_tokens:
            raise ServingError(
                "the server with an artifact takes as many prompt tokens as the one without: it does not prune. "
                "Install clasp-calib in vLLM's environment too, and let VLLM_PLUGINS, if it is set, name clasp"
            )
        runs = []
        for count in self.concurrency:
            server.forget()
            with progress() as bar:
                task = bar.add_task(f"{name}, {count} at a time", total=len(bodies))
                runs.append(server.ask(bodies, count, partial(bar.advance, task)))
            note(f"{name}, {count} at a time: {len(bodies) / runs[-1].seconds:.2f} requests a second")
        return Loads(server.version(), warm_up, tuple(runs))
