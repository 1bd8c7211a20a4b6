"""Who can label here: a server that answers, else vLLM if it can run, else an embedding, else keyword rules."""

from importlib.util import find_spec

from clasp_calib.common.errors import InputError, LabelerError
from clasp_calib.router_labeling.embedders import lacking_for_embedding
from clasp_calib.router_labeling.embedding_labeler import EmbeddingLabeler
from clasp_calib.router_labeling.labelers import KeywordLabeler, Labeler, Scheme
from clasp_calib.router_labeling.server_labeler import ServerLabeler
from clasp_calib.router_labeling.serving import DEFAULT_MODEL
from clasp_calib.router_labeling.vllm_labeler import VLLMLabeler


def best_labeler(
    server: ServerLabeler | None, offline: VLLMLabeler, embedding: EmbeddingLabeler, scheme: Scheme
) -> tuple[Labeler, str]:
    """The best labeler that can be used here, and why it is that one.

    Args:
        server: is taken if it answers.
        offline: is taken if vLLM is installed, and has a GPU unless a model other than the default one is asked for.
        embedding: is taken if what it needs is installed and its head is of the scheme's taxonomy.
        scheme: what questions are sorted into.

    Raises:
        InputError: a head was named and cannot be used.
    """
    if server is None:
        refused = ["no --base-url was given"]
    else:
        try:
            return server, f"a server answers at {server.server.shown} with {server.served}"
        except LabelerError as error:
            refused = [str(error)]
    lacking = _lacking_for_vllm(offline)
    if lacking is None:
        return offline, "; ".join([*refused, "vLLM can run here"])
    refused.append(lacking)
    lacking = _lacking_for_embedding(embedding, scheme)
    if lacking is None:
        return embedding, "; ".join([*refused, "an embedding is installed"])
    return KeywordLabeler(), "; ".join([*refused, lacking])


def _lacking_for_embedding(embedding: EmbeddingLabeler, scheme: Scheme) -> str | None:
    if embedding.head is not None:
        # Who names a head wants it, or to be told what is wrong with it.
        embedding.fingerprint(scheme)
    if embedding.embedder is None and (lacking := lacking_for_embedding()):
        return lacking
    try:
        embedding.fingerprint(scheme)
    except InputError as error:
        return str(error)
    return None


def _lacking_for_vllm(offline: VLLMLabeler) -> str | None:
    if find_spec("vllm") is None:
        return "vLLM is not installed"
    if offline.model != DEFAULT_MODEL:
        return None
    import torch

    return None if torch.cuda.is_available() else "vLLM is installed, but there is no GPU and no --labeler-model"
