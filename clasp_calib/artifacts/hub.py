"""Artifacts on the Hugging Face Hub: published in one commit with a tag, pulled by that tag, verified before use.

Nothing here runs unless a Hub reference is named. Tokens are those of ``hf auth login`` (or ``HF_TOKEN``), which
huggingface_hub finds by itself.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from warnings import warn

from clasp_calib.artifacts.files import FILES, MANIFEST, MANIFEST_BYTES, limits, read_manifest, verify_files
from clasp_calib.common.errors import ArtifactError, ClaspWarning, InputError
from clasp_calib.common.given_files import read_given
from clasp_calib.common.redaction import redacted
from clasp_calib.common.strict_json import strict_json

# Not main: what that branch holds changes, and a version must not.
_REFERENCE = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)@(?P<tag>(?!main$)\w[\w.+-]*)")
_REPO = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_ADVICE = {
    401: "log in with `hf auth login`, or check the name",
    403: "your token may not do this; log in with one that may, or ask for access on the repository's page",
    404: "check the name and the version",
    409: "it is there already, or somebody else works on it; look at it on the Hub",
    412: "somebody else changed the repository meanwhile; give the command again",
}


@dataclass(frozen=True)
class Published:
    """What an artifact became on the Hub."""

    repo: str
    tag: str
    files: dict[str, int]
    """Name -> bytes of all that belongs to it."""
    commit: str | None
    """``None`` if nothing was uploaded."""


def locate_artifact(reference: str | Path) -> Path:
    """The directory of an artifact: a path stays one, and ``org/name@tag`` is pulled.

    Our choice: a tag must be named, so that what a server answers does not change when somebody publishes.

    Raises:
        InputError: see `pull`.
        ArtifactError: see `pull`; or ``org/name`` is no directory here, and names no version on the Hub.
    """
    name = str(reference)
    if Path(reference).exists():
        return Path(reference)
    if found := _REFERENCE.fullmatch(name):
        return pull(found["repo"], found["tag"])
    if _REPO.fullmatch(name.removesuffix("@main")):
        raise ArtifactError(
            f"no artifact at {name} (there is no {MANIFEST}); make one with `clasp-calib search --budget 192`, "
            f"or, if it is on the Hub, name a version: {name.removesuffix('@main')}@v0.1.0"
        )
    return Path(reference)


def parse_reference(reference: str) -> tuple[str, str]:
    """Repository and tag of ``org/name@tag``.

    Raises:
        InputError: it is none.
    """
    found = _REFERENCE.fullmatch(reference)
    if not found:
        raise InputError(f"{reference!r} names no artifact on the Hub; expected a name and a version: org/name@v1.2.0")
    return found["repo"], found["tag"]


def pull(repo: str, tag: str) -> Path:
    """Fetch an artifact into huggingface_hub's own cache, verify all of it, and return where it lies.

    Sizes are looked at first, then the manifest is fetched alone, and then the files that it lists. Where the Hub
    cannot be reached, or refuses, a copy that was pulled before is served, with a warning. There is one too if the tag
    has moved since.

    Raises:
        InputError: the Hub refuses, has no such version, or cannot be reached.
        ArtifactError: what is there is not an artifact, or damaged.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import DryRunError, LocalEntryNotFoundError, OfflineModeIsEnabled

    api, name, before = HfApi(), f"{repo}@{tag}", _commit_before(repo, tag)
    with _explained(f"pull {name}"):
        try:
            listed: Any = api.snapshot_download(repo, revision=tag, allow_patterns=[MANIFEST, *FILES], dry_run=True)
        except DryRunError as error:
            refusal = error.__cause__ or error
            try:
                copy = api.snapshot_download(repo, revision=tag, allow_patterns=[MANIFEST], local_files_only=True)
            except LocalEntryNotFoundError:
                raise refusal from None
            if not isinstance(refusal, OfflineModeIsEnabled):
                told = f"going on with the copy of {name} that was pulled before: {_first_line(refusal)}"
                warn(told, ClaspWarning, stacklevel=4)
            verify_files(copy)
            return Path(copy)
        sizes = {one.filename: one.file_size or 0 for one in listed}
        _check_sizes(name, sizes, {MANIFEST: MANIFEST_BYTES})
        commit = listed[0].commit_hash
        if before not in (None, commit):
            warn(
                f"{name} has moved since it was pulled last: it was the commit {before}, and is {commit}; a version "
                f"should never change: see `clasp-calib artifact diff {repo}@{before} {name}`",
                ClaspWarning,
                stacklevel=4,
            )

        def fetched(again: bool) -> Path:
            manifest = api.hf_hub_download(repo, MANIFEST, revision=commit, force_download=again)
            files = limits(read_manifest(Path(manifest).parent))
            _check_sizes(name, sizes, files)
            wanted = [MANIFEST, *files]
            place = api.snapshot_download(repo, revision=commit, allow_patterns=wanted, force_download=again)
            verify_files(place)
            return Path(place)

        try:
            return fetched(again=False)
        except ArtifactError:
            # The client keeps what was damaged on its way or on the disk, and would give it out for ever.
            return fetched(again=True)


def _check_sizes(name: str, sizes: Mapping[str, int], most: Mapping[str, int]) -> None:
    """Refuse what is no artifact before it is fetched."""
    for file, limit in most.items():
        if file not in sizes:
            raise ArtifactError(f"{name} is no artifact: there is no {file}; check the name and the version")
        if sizes[file] > limit:
            raise ArtifactError(
                f"{name} is no artifact: its {file} has {sizes[file]:,} bytes, more than the {limit:,} that it can need"
            )


def _commit_before(repo: str, tag: str) -> str | None:
    """Which commit a tag was when it was pulled last, as the client keeps it."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    place = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="model"), "refs", tag)
    try:
        return place.read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def publish(
    directory: str | Path, repo: str, tag: str | None = None, *, private: bool = False, dry_run: bool = False
) -> Published:
    """Upload an artifact's own files, and nothing else, in one commit, and tag it.

    A version that is there already is left alone: the same content succeeds without an upload.

    Args:
        directory: the artifact.
        repo: ``org/name``; created if it is not there.
        tag: name of the version; ``v`` and the artifact's own version if ``None``.
        private: a new repository is private; one that is there and public is refused.
        dry_run: say what would be uploaded, without touching the network.

    Raises:
        InputError: the Hub refuses or cannot be reached; or a name that it cannot have.
        ArtifactError: the artifact is damaged, or the version exists with other content.
    """
    sizes = verify_files(directory)
    manifest = read_manifest(Path(directory))
    tag = tag or f"v{manifest.version}"
    if not _REPO.fullmatch(repo) or not _REFERENCE.fullmatch(f"{repo}@{tag}"):
        raise InputError(f"{repo}@{tag} cannot be published to; expected a name and a version such as org/name, v1.2.0")
    if dry_run:
        return Published(repo, tag, sizes, None)
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    with _explained(f"publish to {repo}"):
        api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.repo_info(repo).private:
            raise InputError(
                f"{repo} is there and public, so nothing in it can be private; publish to another name, "
                "make it private in its settings on the Hub, or leave --private out"
            )
        refs = api.list_repo_refs(repo)
        if tag in {ref.name for ref in refs.tags}:
            if _published_id(api, repo, tag) != manifest.id:
                raise ArtifactError(
                    f"{repo}@{tag} exists with other content, and a published version never changes; "
                    "raise the version with `clasp-calib artifact bump`, or give another --tag"
                )
            return Published(repo, tag, sizes, None)
        head = next((ref.target_commit for ref in refs.branches if ref.name == "main"), None)
        stale = {*api.list_repo_files(repo)} & set(FILES) - set(sizes)
        operations: list[Any] = [CommitOperationAdd(name, Path(directory) / name) for name in sizes]
        operations += [CommitOperationDelete(name) for name in sorted(stale)]
        message = f"{manifest.name} {manifest.version}"
        with warnings.catch_warnings():
            # The client takes Parquet in a model's repository for a mistake.
            warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")
            commit = api.create_commit(repo, operations, commit_message=message, parent_commit=head).oid
        api.create_tag(repo, tag=tag, revision=commit)
    return Published(repo, tag, sizes, commit)


def _published_id(api: Any, repo: str, tag: str) -> Any:
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        path = api.hf_hub_download(repo, MANIFEST, revision=tag)
        content = strict_json(read_given(path, MANIFEST_BYTES, error=ArtifactError))
    except (RemoteEntryNotFoundError, ValueError, ArtifactError):  # Whatever it is, it is not this artifact.
        return None
    return content.get("id") if isinstance(content, dict) else None


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Errors of the client, the service and the network as one line of ours."""
    from httpx2 import HTTPError
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        # The client wraps some refusals: in "not in the cache" on the way down, in "while uploading" on the way up.
        refusal: BaseException | None = error
        while refusal is not None and not isinstance(refusal, HfHubHTTPError):
            refusal = refusal.__cause__
        if refusal is None:
            raise InputError(
                f"cannot {what}: {_first_line(error)}; check the name, the version and the network, "
                "and give the command again"
            ) from error
        status = refusal.response.status_code
        advice = _ADVICE.get(status, "try again later")
        raise InputError(f"cannot {what}: the Hub answers {status} ({_first_line(refusal)}); {advice}") from error


def _first_line(error: BaseException) -> str:
    return redacted((str(error).strip().splitlines() or [type(error).__name__])[0])
