"""Starting ``vllm serve`` with the flags that labelling needs, and waiting until it is healthy."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx2 as httpx

from clasp_calib.common.errors import LabelerError
from clasp_calib.router_labeling.exchange import is_loopback

DEFAULT_MODEL = "Qwen/Qwen3-8B"
STRUCTURED_OUTPUTS = {"backend": "xgrammar", "disable_any_whitespace": True}
"""Without `disable_any_whitespace` a greedy model may write white space until its tokens are spent."""


def serve_command(
    model: str, host: str, port: int, revision: str | None = None, vllm: Path | None = None, extra: Sequence[str] = ()
) -> list[str]:
    """The command line of ``vllm serve``; ``extra`` comes last and wins.

    Without ``vllm``, the command beside this Python is taken, or the one on the path.
    """
    beside = Path(sys.executable).with_name("vllm")
    found = vllm or (beside if beside.is_file() else Path("vllm"))
    return [
        *[str(found), "serve", model, "--host", host, "--port", str(port)],
        *(["--revision", revision] if revision else []),
        *["--max-model-len", "4096"],
        # Qwen3's own generation config samples; labels are greedy.
        *["--generation-config", "vllm"],
        *["--structured-outputs-config", json.dumps(STRUCTURED_OUTPUTS)],
        *["--default-chat-template-kwargs", '{"enable_thinking": false}'],
        # Reports cached tokens, from which the prefix-cache hit rate is measured.
        "--enable-prompt-tokens-details",
        *extra,
    ]


def serve(command: Sequence[str], address: str, seconds: float, ready: Callable[[], object]) -> int:
    """Run a command line that `serve_command` gave, until it ends or this process is told to end.

    Args:
        command: the command line.
        address: root of the server, such as ``http://127.0.0.1:8000``.
        seconds: until it must be healthy.
        ready: called once it is.

    Returns:
        Its exit code; 0 where it was told to end.

    Raises:
        LabelerError: there is no such command, or it is not healthy in time.
    """
    process = start(command)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        wait_until_healthy(process, f"{address}/health", seconds)
        ready()
        code = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    return 0 if code == -signal.SIGTERM else code


def start(command: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start a command line that `serve_command` gave.

    Raises:
        LabelerError: there is no such command.
    """
    try:
        return subprocess.Popen(command)
    except OSError as error:
        raise LabelerError(
            f"cannot run {command[0]!r} ({error.strerror}); install vLLM (pip install 'clasp-calib[vllm]'), "
            "in an environment of its own if you like, and give its command with --vllm"
        ) from error


def wait_until_healthy(process: "subprocess.Popen[bytes]", url: str, seconds: float) -> None:
    """Return once ``url`` answers 200.

    Raises:
        LabelerError: the process ended, or the time is over.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        code = process.poll()
        if code is not None:
            raise LabelerError(
                f"vllm serve ended with {code} before it was ready; its output above says why. On a GPU with too "
                "little memory, give a smaller --model or, after --, vLLM's own --gpu-memory-utilization"
            )
        try:
            if httpx.get(url, timeout=5, trust_env=not is_loopback(httpx.URL(url).host)).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise LabelerError(f"vllm serve did not become healthy at {url} within {seconds:g} s; give it more with --wait")
