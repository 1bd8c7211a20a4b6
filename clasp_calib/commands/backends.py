"""Who labels: a backend by its name, or the best one that is there."""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from clasp_calib.common.errors import InputError, LabelerError

if TYPE_CHECKING:
    from clasp_calib.router_labeling.journalled import Asker
    from clasp_calib.router_labeling.taxonomy import Taxonomy

KEYWORDS, SERVER, VLLM, AUTO = "keywords", "server", "vllm", "auto"
BACKENDS = (KEYWORDS, SERVER, VLLM, AUTO)


@dataclass(frozen=True)
class BackendOptions:
    """What the command line says about language models."""

    base_url: str | None
    model: str | None
    revision: str | None
    concurrency: int
    timeout: float
    api_key: str | None
    chunk: int
    engine: str


@dataclass(frozen=True)
class Backend:
    """The backend that labels."""

    name: str
    asker: "Asker | None"
    """``None`` for keyword rules."""
    why: str
    """Why ``auto`` took it; empty if it was asked for by its name."""


def backend_of(name: str, options: BackendOptions, taxonomy: "Taxonomy") -> Backend:
    """The backend of a name; ``auto`` takes a server that answers, else vLLM if it can run here, else keyword rules.

    Raises:
        InputError: an unknown name, or options that the backend lacks or cannot read.
        LabelerError: the named backend cannot be used.
    """
    if name == KEYWORDS:
        return Backend(name, None, "")
    if name == SERVER:
        return Backend(name, _server(options, taxonomy), "")
    if name == VLLM:
        return Backend(name, _offline(options, taxonomy), "")
    if name != AUTO:
        raise InputError(f"unknown backend {name!r}; expected one of {', '.join(BACKENDS)}")
    refused = []
    if options.base_url is None:
        refused.append("no --base-url was given")
    else:
        try:
            return Backend(SERVER, _server(options, taxonomy), f"a server answers at {options.base_url}")
        except LabelerError as error:
            refused.append(str(error))
    lacking = _lacking_for_vllm(options)
    if lacking is None:
        return Backend(VLLM, _offline(options, taxonomy), "; ".join([*refused, "vLLM can run here"]))
    return Backend(KEYWORDS, None, "; ".join([*refused, lacking]))


def _lacking_for_vllm(options: BackendOptions) -> str | None:
    if find_spec("vllm") is None:
        return "vLLM is not installed"
    if options.model is not None:
        return None
    import torch

    return None if torch.cuda.is_available() else "vLLM is installed, but there is no GPU and no --labeler-model"


def _server(options: BackendOptions, taxonomy: "Taxonomy") -> "Asker":
    from clasp_calib.router_labeling.server import ServerLabeler

    if options.base_url is None:
        raise InputError(
            "the backend 'server' needs --base-url, such as http://127.0.0.1:8000/v1; "
            "start a server with `clasp-calib serve-labeler`"
        )
    return ServerLabeler(
        options.base_url,
        taxonomy,
        options.model,
        options.revision,
        options.concurrency,
        options.timeout,
        api_key=options.api_key,
    )


def _offline(options: BackendOptions, taxonomy: "Taxonomy") -> "Asker":
    from clasp_calib.router_labeling.offline import OfflineLabeler
    from clasp_calib.router_labeling.serving import DEFAULT_MODEL

    try:
        settings = json.loads(options.engine)
    except json.JSONDecodeError:
        settings = None
    if not isinstance(settings, dict):
        raise InputError(
            f"--engine takes a JSON object, for instance '{{\"max_num_seqs\": 64}}'; got {options.engine!r}"
        )
    return OfflineLabeler(options.model or DEFAULT_MODEL, taxonomy, options.revision, options.chunk, settings)
