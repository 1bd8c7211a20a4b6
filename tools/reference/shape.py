"""The shape of the reference model: a LLaVA-1.5 in small, with the 7B's 576 visual tokens and 32 decoder layers."""

from typing import TYPE_CHECKING, Any, NamedTuple

from clasp_calib.reference.vocabulary import IMAGE_SIZE, PATCH

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

VISION_WIDTH = 160
VISION_LAYERS = 7
DECODER_LAYERS = 32


class Size(NamedTuple):
    """Widths of the decoder; the vision tower is the same in all sizes."""

    width: int
    heads: int
    mlp: int


DEFAULT = Size(128, 4, 352)
"""Of the embedded model."""
LARGE = Size(256, 8, 704)


def size_of(text: Any) -> Size:
    """The size of a decoder with this configuration."""
    return Size(text.hidden_size, text.num_attention_heads, text.intermediate_size)


class Block(NamedTuple):
    """A trained decoder block and its places among the 32 layers.

    ``listen`` blocks mix the words of the question, ``score`` blocks only rate visual tokens (the layers 1, 5 and 14
    whose attention scores the pruning stages) and change nothing, ``read`` blocks fetch from the picture.
    """

    role: str
    attention: int
    mlp: int


BLOCKS = (
    Block("listen", 0, 0),
    Block("score", 1, 1),
    Block("listen", 3, 4),
    Block("score", 5, 5),
    Block("listen", 8, 9),
    Block("score", 14, 14),
    Block("read", 15, 16),
    Block("read", 18, 19),
    Block("read", 21, 22),
    Block("read", 24, 25),
    Block("read", 27, 28),
)
WORKING = tuple(sorted({place for block in BLOCKS for place in (block.attention, block.mlp)}))
"""Decoder layers that change states or were trained to rate; the others change none, and rate as the block below.

The attention and the MLP of nearly every block lie in different layers, so that more of the depth works at no cost in
training.
"""
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message.role != 'system' %}{{ message.role | upper }}: {% endif %}"
    "{% for part in message.content if part.type == 'image' %}<image>\n{% endfor %}"
    "{% for part in message.content if part.type == 'text' %}{{ part.text }} {% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""LLaVA-1.5's, as llava-hf/llava-1.5-7b-hf has it: pictures first, and no default system text."""
SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
PAD, BOS, EOS, UNKNOWN, IMAGE = range(len(SPECIAL_TOKENS))


def vision_config() -> Any:
    """CLIP ViT of width 160, 7 layers, 336 px, patch 14; like CLIP's in LLaVA, its last layer is not used."""
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(
        hidden_size=VISION_WIDTH,
        intermediate_size=4 * VISION_WIDTH,
        num_hidden_layers=VISION_LAYERS,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=PATCH,
        hidden_act="gelu",
        projection_dim=VISION_WIDTH,
    )


def text_config(vocabulary: int, layers: int = DECODER_LAYERS, size: Size = DEFAULT) -> Any:
    """Llama with tied embeddings."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=size.width,
        intermediate_size=size.mlp,
        num_hidden_layers=layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )


def train_tokenizer(texts: list[str]) -> "PreTrainedTokenizerFast":
    """A lower-casing byte-level BPE tokenizer whose digits are single tokens; unseen text falls back to bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1280,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return as_tokenizer(tokenizer)


def as_tokenizer(trained: "Tokenizer") -> "PreTrainedTokenizerFast":
    """A trained tokenizer as transformers knows them."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=trained,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
        model_max_length=2048,
    )


def processor(tokenizer: "PreTrainedTokenizerFast") -> Any:
    """The processor: 336 px CLIP preprocessing, and one ``<image>`` widened to 576."""
    from transformers import CLIPImageProcessor, LlavaProcessor

    images = CLIPImageProcessor(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=list(IMAGE_MEAN),
        image_std=list(IMAGE_STD),
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=CHAT_TEMPLATE,
    )


def llava_config(vocabulary: int, size: Size = DEFAULT) -> Any:
    """The configuration of the whole model."""
    from transformers import LlavaConfig

    return LlavaConfig(
        vision_config=vision_config(),
        text_config=text_config(vocabulary, size=size),
        image_token_index=IMAGE,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        tie_word_embeddings=True,
    )
