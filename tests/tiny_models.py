"""Tiny random-weight LLaVA models and a complete loadable directory, built from configs in milliseconds."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
PAD, BOS, EOS, UNK, IMAGE = range(5)
VOCABULARY = [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% for part in message.content %}{% if part.type == 'image' %}<image>\n{% else %}{{ part.text }} "
    "{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def tiny_llava(
    seed: int = 0,
    *,
    decoder_layers: int = 8,
    hidden: int = 32,
    kv_heads: int = 2,
    vision_layers: int = 4,
    vision_hidden: int = 16,
    image_size: int = 56,
    patch_size: int = 14,
    vision_feature_layer: int = -2,
    attention: str = "sdpa",
) -> LlavaForConditionalGeneration:
    """A LLaVA with peaky random attention, in float32 and eval mode; 16 visual tokens a picture by default.

    Special tokens have a zero row in the output head, so greedy decoding never emits one (not even the end).
    """
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=vision_hidden,
            intermediate_size=2 * vision_hidden,
            num_hidden_layers=vision_layers,
            num_attention_heads=2,
            image_size=image_size,
            patch_size=patch_size,
            projection_dim=vision_hidden,
        ),
        text_config=LlamaConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=decoder_layers,
            num_attention_heads=4,
            num_key_value_heads=kv_heads,
            max_position_embeddings=4096,
            pad_token_id=PAD,
            bos_token_id=BOS,
            eos_token_id=EOS,
        ),
        image_token_id=IMAGE,
        image_seq_length=(image_size // patch_size) ** 2,
        vision_feature_layer=vision_feature_layer,
        vision_feature_select_strategy="default",
    )
    model = LlavaForConditionalGeneration._from_config(config, attn_implementation=attention)
    _randomise(model, seed)
    model.generation_config.update(pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, do_sample=False)
    return model.eval()


def _randomise(model: LlavaForConditionalGeneration, seed: int) -> None:
    """Unit-gain weights: the usual 0.02 initialisation makes attention flat and every logit alike."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "embed" in name or "lm_head" in name:
                parameter.copy_(noise)
            elif parameter.ndim >= 2:
                gain = 1.6 if "q_proj" in name or "k_proj" in name else 1.0
                parameter.copy_(noise * gain / math.sqrt(parameter[0].numel()))
            elif name.endswith("bias"):
                parameter.copy_(noise * 0.02)
        model.lm_head.weight[: len(SPECIALS)] = 0


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, behind the special tokens; any text round-trips."""
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(VOCABULARY)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="left",
        additional_special_tokens=["<image>"],
    )


def tiny_llava_directory(path: Path, seed: int = 0, **settings: int) -> Path:
    """Save a model and its processor so that ``from_pretrained(path)`` loads both.

    Args:
        path: the directory, created if missing.
        seed: of the weights.
        settings: of `tiny_llava`.
    """
    model = tiny_llava(seed, **settings)
    vision = model.config.vision_config
    size = vision.image_size
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size}),
        tokenizer=tiny_tokenizer(),
        patch_size=vision.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=CHAT_TEMPLATE,
    )
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def tiny_batch(
    model: LlavaForConditionalGeneration,
    texts: Sequence[tuple[int, int]] = ((3, 7), (2, 5), (5, 9)),
    images: Sequence[int] | None = None,
    seed: int = 1,
) -> dict[str, torch.Tensor]:
    """Left-padded random prompts with random pictures.

    Args:
        model: what the prompts are for.
        texts: for every row, how many random tokens stand before and after the pictures.
        images: pictures of every row; one each by default.
        seed: of the tokens and the pixels.

    Returns:
        ``input_ids`` and ``attention_mask`` (long [B, S]) and, if there is a picture, ``pixel_values``.
    """
    generator = torch.Generator().manual_seed(seed)
    vision = model.config.vision_config
    images = [1] * len(texts) if images is None else images
    tokens = (vision.image_size // vision.patch_size) ** 2

    def words(count: int) -> list[int]:
        return torch.randint(len(SPECIALS), len(VOCABULARY), (count,), generator=generator).tolist()

    rows = [
        [BOS, *words(before), *[IMAGE] * (tokens * count), *words(after)]
        for (before, after), count in zip(texts, images, strict=True)
    ]
    width = max(map(len, rows))
    batch = {
        "input_ids": torch.tensor([[PAD] * (width - len(row)) + row for row in rows]),
        "attention_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows]),
    }
    if sum(images):
        shape = (sum(images), 3, vision.image_size, vision.image_size)
        batch["pixel_values"] = torch.randn(shape, generator=generator)
    return batch
