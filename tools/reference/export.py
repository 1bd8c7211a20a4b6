"""Assemble the trained parts into a LLaVA directory that transformers loads like any other, and take one apart."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPVisionModel,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from tools.reference.shape import BLOCKS, llava_config, processor, size_of, text_config
from tools.reference.training.packing import ATTENTION


@torch.no_grad()
def assemble(
    tower: CLIPVisionModel,
    projector: LlavaMultiModalProjector,
    decoder: LlamaForCausalLM,
    vocabulary: int,
) -> LlavaForConditionalGeneration:
    """The whole model in float32: trained blocks in their places among 32; all other layers change no state."""
    model = LlavaForConditionalGeneration(llava_config(vocabulary, size_of(decoder.config)))
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.multi_modal_projector.load_state_dict(projector.state_dict())
    spread_blocks(decoder.model, model.model.language_model)
    model.tie_weights()
    return model


@torch.no_grad()
def spread_blocks(trained: Any, language: Any) -> None:
    """Give a language model of 32 layers the trained blocks in their places; all other layers change no state.

    Args:
        trained: language model of the blocks only, one after another.
        language: of the same kind and widths; its weights are replaced.
    """
    language.embed_tokens.load_state_dict(trained.embed_tokens.state_dict())
    language.norm.load_state_dict(trained.norm.state_dict())
    for layer in language.layers:
        for parameter in (*layer.self_attn.parameters(), *layer.mlp.parameters()):
            parameter.zero_()
    for block, of in zip(BLOCKS, trained.layers, strict=True):
        attention, mlp = language.layers[block.attention], language.layers[block.mlp]
        attention.input_layernorm.load_state_dict(of.input_layernorm.state_dict())
        attention.self_attn.load_state_dict(of.self_attn.state_dict())
        if block.role == "score":
            attention.self_attn.o_proj.weight.zero_()
        else:
            mlp.post_attention_layernorm.load_state_dict(of.post_attention_layernorm.state_dict())
            mlp.mlp.load_state_dict(of.mlp.state_dict())
    rate_everywhere(language.layers)


@torch.no_grad()
def rate_everywhere(layers: Sequence[Any]) -> None:
    """Give layers without an attention of their own the queries and keys of the scoring block below them.

    They write nothing, so no state and no answer changes. But methods that rate visual tokens at other layers than 1, 5
    and 14 see their attention. Zeros there would rate all tokens alike, and of equals the first are kept, the top of
    the picture: such methods would be under random pruning by design.

    Args:
        layers: of the decoder, in order.
    """
    roles = {block.attention: block.role for block in BLOCKS}
    rating = None
    for number, layer in enumerate(layers):
        if roles.get(number) == "score":
            rating = layer
        elif rating is not None and number not in roles:
            layer.input_layernorm.load_state_dict(rating.input_layernorm.state_dict())
            for name in ("q_proj", "k_proj", "q_norm", "k_norm"):
                if hasattr(layer.self_attn, name):
                    getattr(layer.self_attn, name).load_state_dict(getattr(rating.self_attn, name).state_dict())


@torch.no_grad()
def take_apart(model: LlavaForConditionalGeneration) -> tuple[LlavaMultiModalProjector, LlamaForCausalLM]:
    """Copies of projector and decoder as they are trained, the blocks one after another: what `assemble` takes.

    What a scoring block would write is not exported, so it is zero here; nothing reads it.
    """
    language = model.model.language_model
    config = language.config
    decoder = LlamaForCausalLM(text_config(config.vocab_size, len(BLOCKS), size_of(config)))
    decoder.set_attn_implementation(ATTENTION)
    decoder.model.embed_tokens.load_state_dict(language.embed_tokens.state_dict())
    decoder.model.norm.load_state_dict(language.norm.state_dict())
    for block, layer in zip(BLOCKS, decoder.model.layers, strict=True):
        attention, mlp = language.layers[block.attention], language.layers[block.mlp]
        layer.input_layernorm.load_state_dict(attention.input_layernorm.state_dict())
        layer.self_attn.load_state_dict(attention.self_attn.state_dict())
        layer.post_attention_layernorm.load_state_dict(mlp.post_attention_layernorm.state_dict())
        layer.mlp.load_state_dict(mlp.mlp.state_dict())
    return deepcopy(model.model.multi_modal_projector), decoder


def export(
    tower: CLIPVisionModel,
    projector: LlavaMultiModalProjector,
    decoder: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    out: Path,
) -> None:
    """Write model (bfloat16) and processor to ``out``."""
    model = assemble(tower, projector, decoder, len(tokenizer))
    model.generation_config.max_new_tokens = 8
    model.to(torch.bfloat16).save_pretrained(out)
    processor(tokenizer).save_pretrained(out)
