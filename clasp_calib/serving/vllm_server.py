"""vLLM's server as a process of ours: how it is started, waited for, and ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import httpx2 as httpx

from clasp_calib.common.errors import ServingError
from clasp_calib.common.progress import note
from clasp_calib.router_labeling.exchange import is_loopback

PREFIX = "CLASP_"
"""Of the environment variables by which a server is told of an artifact."""
PATIENCE = 60.0
"""Seconds that a server gets to end before it is killed. Our choice: vLLM took under two on a CPU."""
LAST_LINES = 20
"""Of a log, shown when a server dies."""


def serve_command(model: str, host: str, port: int, vllm: Path | None = None, extra: Sequence[str] = ()) -> list[str]:
    """The command line of ``vllm serve``; ``extra`` comes last and wins.

    Without ``vllm``, the command beside this Python is taken, or the one on the path.
    """
    beside = Path(sys.executable).with_name("vllm")
    found = vllm or (beside if beside.is_file() else Path("vllm"))
    return [str(found), "serve", model, "--host", host, "--port", str(port), *extra]


def unpruned(environment: Mapping[str, str]) -> dict[str, str]:
    """The same environment without what tells a server of an artifact."""
    return {name: value for name, value in environment.items() if not name.startswith(PREFIX)}


@contextmanager
def running(
    command: Sequence[str], address: str, seconds: float, environment: Mapping[str, str], log: Path | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A healthy server within the block; it is ended however the block ends.

    Args:
        command: as `serve_command` gives it.
        address: root of the server, such as ``http://127.0.0.1:8000``.
        seconds: until it must be healthy.
        environment: all of its variables.
        log: file that its output goes to; by default where that of this process goes.

    Raises:
        ServingError: there is no such command, it ends, or is not healthy in time.
    """
    process = _started(command, environment, log)
    try:
        _wait_until_healthy(process, f"{address}/health", seconds, log)
        yield process
    finally:
        _end(process)


def serve(command: Sequence[str], address: str, seconds: float, ready: Callable[[], object]) -> int:
    """Run a server without an artifact until it ends or this process is told to end.

    Args:
        command: as `serve_command` gives it.
        address: see `running`.
        seconds: see `running`.
        ready: called once it is healthy.

    Returns:
        Its exit code; 0 where it was told to end.

    Raises:
        ServingError: see `running`.
    """
    with running(command, address, seconds, unpruned(os.environ)) as process:
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        ready()
        code = process.wait()
    return 0 if code == -signal.SIGTERM else code


def check_alive(process: "subprocess.Popen[bytes]", when: str, log: Path | None) -> None:
    """Raise if a server has ended.

    Args:
        process: of the server.
        when: should it have run: ``before it was ready``, ``while it was asked``.
        log: its output, of which the end is shown.

    Raises:
        ServingError: it has; says where its output is, and what to do on a small GPU.
    """
    if (code := process.poll()) is None:
        return
    raise ServingError(
        f"vllm serve ended with {code} {when}; {_last_words(log)}. On a GPU with too little memory, give a smaller "
        "--model or, after --, vLLM's own --gpu-memory-utilization"
    )


def _started(command: Sequence[str], environment: Mapping[str, str], log: Path | None) -> "subprocess.Popen[bytes]":
    try:
        output = None if log is None else log.open("wb")
    except OSError as error:
        raise ServingError(f"cannot write the log {log} ({error.strerror}); give it another place (--out)") from error
    try:
        with output or nullcontext():
            # A server that is only measured must not read what its user types.
            typed = None if output is None else subprocess.DEVNULL
            return subprocess.Popen(command, env=environment, stdin=typed, stdout=output, stderr=output)
    except OSError as error:
        raise ServingError(
            f"cannot run {command[0]!r} ({error.strerror}); install vLLM (pip install 'clasp-calib[vllm]'), "
            "in an environment of its own if you like, and give its command with --vllm"
        ) from error


def _wait_until_healthy(process: "subprocess.Popen[bytes]", url: str, seconds: float, log: Path | None) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        check_alive(process, "before it was ready", log)
        try:
            if httpx.get(url, timeout=5, trust_env=not is_loopback(httpx.URL(url).host)).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise ServingError(
        f"vllm serve did not become healthy at {url} within {seconds:g} s; {_last_words(log)}, or give it more time "
        "with --wait"
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_words(log: Path | None) -> str:
    if log is None:
        return "its output above says why"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if not lines:
        return f"it wrote nothing to its log {log}"
    note("\n".join([f"the end of {log}:", *lines[-LAST_LINES:]]))
    return f"its log {log} says why, and ends with: {lines[-1].strip()}"
