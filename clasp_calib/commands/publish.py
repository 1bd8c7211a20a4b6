"""``clasp-calib publish`` and ``clasp-calib pull``: artifacts to and from the Hugging Face Hub."""

from pathlib import Path
from typing import Annotated

import typer

from clasp_calib.commands.options import DEFAULT_RUN, JsonOption, RunOption
from clasp_calib.commands.output import emit, say, show
from clasp_calib.common.run_directory import RunDirectory


def publish(
    repo: Annotated[str, typer.Argument(help="Repository, org/name.")],
    artifact: Annotated[Path | None, typer.Option(help="Artifact directory; default: artifact/ of the run.")] = None,
    tag: Annotated[str | None, typer.Option(help="Name of the version; default: v and the artifact's version.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be uploaded; use no network.")] = False,
    run: RunOption = DEFAULT_RUN,
    as_json: JsonOption = False,
) -> None:
    """Publish an artifact on the Hugging Face Hub: its own files, in one commit, with a tag.

    Log in first with `hf auth login`. A version that exists with other content is never overwritten.

    Example: clasp-calib publish my-org/my-llava-clasp --run my-run --dry-run
    """
    from clasp_calib.artifacts.hub import publish as upload

    done = upload(artifact or RunDirectory(run).artifact, repo, tag, private=private, dry_run=dry_run)
    if as_json:
        emit({**vars(done), "dry_run": dry_run})
        return
    show(f"{done.repo}@{done.tag}", ["file", "bytes"], [[name, f"{size:,}"] for name, size in done.files.items()])
    total = f"{len(done.files)} files, {sum(done.files.values()):,} bytes"
    if dry_run:
        say(f"would upload {total}")
    elif done.commit is None:
        say("this version is there already, with the same content; nothing was uploaded")
    else:
        say(f"uploaded {total} in commit {done.commit[:12]}; use it as {done.repo}@{done.tag}")


def pull(
    reference: Annotated[str, typer.Argument(help="Version to download, such as org/name@v1.2.0.")],
    as_json: JsonOption = False,
) -> None:
    """Download an artifact from the Hugging Face Hub into its client's cache, and verify it.

    Not needed before use: --artifact and `clasp` take the same reference.

    Example: clasp-calib pull my-org/my-llava-clasp@v0.1.0
    """
    from clasp_calib.artifacts.artifact import read_artifact
    from clasp_calib.artifacts.hub import parse_reference, pull as fetch

    place = fetch(*parse_reference(reference))
    manifest = read_artifact(place).manifest
    if as_json:
        emit({"artifact": place, "id": manifest.id, "version": manifest.version})
        return
    say(f"{manifest.name} {manifest.version} for {manifest.model} is in {place}")
