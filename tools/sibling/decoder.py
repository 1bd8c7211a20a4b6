"""The sibling's decoder: the embedded model's blocks, with Qwen3's norms of queries and keys and with M-RoPE.

Shapes: B pictures, N visual tokens, T tokens, H heads, d width of a head.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, Qwen3VLTextModel

from tools.reference.shape import BLOCKS
from tools.reference.training.batches import Batch, Seen
from tools.reference.training.decoder import Placed, Vision, raster, run
from tools.reference.training.packing import ATTENTION
from tools.sibling.shape import text_config


class Decoder(nn.Module):
    """The trained blocks alone, untrained, one after another, and the head that shares the embeddings."""

    def __init__(self, vocabulary: int):
        super().__init__()
        self.model = Qwen3VLTextModel(text_config(vocabulary, len(BLOCKS)))
        self.model.set_attn_implementation(ATTENTION)
        embeddings = self.model.embed_tokens
        self.lm_head = nn.Linear(embeddings.embedding_dim, vocabulary, bias=False)
        self.lm_head.weight = embeddings.weight

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.lm_head.weight.device


def on_grid(seen: Seen) -> Placed:
    """M-RoPE's positions of visual tokens: the same time, their row, their column; text goes on after the larger."""
    rows, columns = seen.grid_2.tolist()
    chosen = seen.chosen_BN
    return Placed(torch.stack([torch.zeros_like(chosen), chosen // columns, chosen % columns]), max(rows, columns))


@torch.no_grad()
def begin_with(decoder: Decoder, embedded: LlamaForCausalLM, vision: Vision, prefix: list[int], shown: Batch) -> None:
    """Give a decoder the embedded model's weights.

    A norm of queries or keys gets the size that those have in the embedded model, so that the scores of attention stay
    about as large. What is lost is how sizes differ from token to token and from head to head.

    Args:
        decoder: gets the weights; the embeddings of tokens that the embedded model lacks stay as they are.
        embedded: as `tools.reference.export.take_apart` gives it.
        vision: the embedded model's visual tokens.
        prefix: ids of the tokens before the picture.
        shown: questions about the embedded benchmark's pictures, by which sizes are measured.
    """
    sizes = _sizes(embedded, lambda: run(embedded, prefix, shown.ids_BQT, vision(shown.seen), raster(shown.seen)))
    known = embedded.model.embed_tokens.weight
    decoder.model.embed_tokens.weight[: len(known)] = known
    decoder.model.norm.load_state_dict(embedded.model.norm.state_dict())
    for own, other, (query, key) in zip(decoder.model.layers, embedded.model.layers, sizes, strict=True):
        own.load_state_dict(other.state_dict(), strict=False)
        own.self_attn.q_norm.weight.fill_(query)
        own.self_attn.k_norm.weight.fill_(key)


def _sizes(embedded: LlamaForCausalLM, forward: Any) -> list[tuple[float, float]]:
    """Root mean squares of queries and keys in each block, over all that a forward computes."""
    found: dict[nn.Module, float] = {}

    def keep(module: nn.Module, _: Any, output: Tensor) -> None:
        found[module] = float(output.float().square().mean().sqrt())

    attentions = [layer.self_attn for layer in embedded.model.layers]
    hooks = [part.register_forward_hook(keep) for part in _queries_and_keys(attentions)]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    return [(found[attention.q_proj], found[attention.k_proj]) for attention in attentions]


def _queries_and_keys(attentions: Iterable[Any]) -> list[nn.Module]:
    return [part for attention in attentions for part in (attention.q_proj, attention.k_proj)]
