"""``clasp-calib serve-labeler``."""

from pathlib import Path
from typing import Annotated

import typer

from clasp_calib.commands.output import say
from clasp_calib.commands.used_by import UnusedWith


def serve_labeler(
    extra: Annotated[list[str] | None, typer.Argument(help="After --: further arguments of `vllm serve`.")] = None,
    model: Annotated[str, typer.Option(help="Directory or Hub id of a chat model.")] = "Qwen/Qwen3-8B",
    revision: Annotated[str | None, typer.Option(help="Commit or tag of the Hub id.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    vllm: Annotated[Path | None, typer.Option(help="Path of the vllm command, if not on PATH.")] = None,
    wait: Annotated[float, typer.Option(min=1, help="Seconds to wait for the server."), UnusedWith("dry_run")] = 900,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command instead of running it.")] = False,
) -> None:
    """Start `vllm serve` as `label --backend server` needs it, and run until it is stopped.

    Example: clasp-calib serve-labeler --dry-run
    """
    import shlex

    from clasp_calib.router_labeling.serving import labelling_flags
    from clasp_calib.serving.vllm_server import serve, serve_command

    command = serve_command(model, host, port, vllm, [*labelling_flags(revision), *(extra or [])])
    if dry_run:
        say(shlex.join(command))
        return
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    following = f"clasp-calib label samples.jsonl --backend server --base-url {address}/v1"
    if serve(command, address, wait, lambda: say(f"ready; label with: {following}")):
        raise typer.Exit(1)
