"""Assemble the trained parts into a LLaVA directory that transformers loads like any other."""

from pathlib import Path

import torch
from transformers import (
    CLIPVisionModel,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from clasp_calib.reference.model import TRAINED_BLOCKS, llava_config, processor


@torch.no_grad()
def assemble(
    tower: CLIPVisionModel,
    projector: LlavaMultiModalProjector,
    decoder: LlamaForCausalLM,
    vocabulary: int,
) -> LlavaForConditionalGeneration:
    """The whole model in float32: trained blocks in their places among 32, all others exact identities."""
    model = LlavaForConditionalGeneration(llava_config(vocabulary))
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.multi_modal_projector.load_state_dict(projector.state_dict())
    language = model.model.language_model
    language.embed_tokens.load_state_dict(decoder.model.embed_tokens.state_dict())
    language.norm.load_state_dict(decoder.model.norm.state_dict())
    for layer in language.layers:
        for parameter in (*layer.self_attn.parameters(), *layer.mlp.parameters()):
            parameter.zero_()
    for place, layer in zip(TRAINED_BLOCKS, decoder.model.layers, strict=True):
        language.layers[place].load_state_dict(layer.state_dict())
    model.tie_weights()
    return model


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
