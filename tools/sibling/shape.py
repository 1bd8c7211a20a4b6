"""The sibling's shape: a Qwen3-VL in small, with the embedded model's decoder blocks in the same places.

A grid is the rows and columns of a picture's patches.
"""

from typing import Any

from clasp_calib.reference.vocabulary import GRID, PATCH
from tools.reference.shape import (
    BOS,
    CHAT_TEMPLATE,
    DECODER_LAYERS,
    DEFAULT,
    EOS,
    IMAGE,
    IMAGE_MEAN,
    IMAGE_STD,
    PAD,
    VISION_WIDTH,
)

Grid = tuple[int, int]
TRAINED: tuple[Grid, ...] = ((24, 24), (18, 30), (20, 28), (28, 20), (30, 18), (16, 24), (24, 16))
"""Grids of training."""
UNSEEN: tuple[Grid, ...] = ((22, 26), (27, 18))
"""Grids that are shown in no stage of training."""
DEPTH = 6
"""Blocks of the tower; the last one's states are projected."""
HEADS = 4
MARKS = ("<video>", "<vision_start>", "<vision_end>")
"""Special tokens that the embedded model's tokenizer lacks, and a Qwen3-VL has; they stand after its own."""


def pixels(grid: Grid) -> tuple[int, int]:
    """Width and height of a picture with this grid."""
    return grid[1] * PATCH, grid[0] * PATCH


def vision_config() -> Any:
    """Six blocks of width 160, every patch a token of its own, positions learned for 24 x 24 and interpolated."""
    from transformers import Qwen3VLVisionConfig

    return Qwen3VLVisionConfig(
        depth=DEPTH,
        hidden_size=VISION_WIDTH,
        intermediate_size=4 * VISION_WIDTH,
        num_heads=HEADS,
        patch_size=PATCH,
        spatial_merge_size=1,
        temporal_patch_size=1,
        out_hidden_size=DEFAULT.width,
        num_position_embeddings=GRID * GRID,
        deepstack_visual_indexes=[],
    )


def text_config(vocabulary: int, layers: int = DECODER_LAYERS) -> Any:
    """Qwen3 with M-RoPE and tied embeddings, in the embedded decoder's widths."""
    from transformers import Qwen3VLTextConfig

    return Qwen3VLTextConfig(
        vocab_size=vocabulary,
        hidden_size=DEFAULT.width,
        intermediate_size=DEFAULT.mlp,
        num_hidden_layers=layers,
        num_attention_heads=DEFAULT.heads,
        num_key_value_heads=DEFAULT.heads,
        head_dim=DEFAULT.width // DEFAULT.heads,
        max_position_embeddings=2048,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [6, 5, 5],
            "mrope_interleaved": True,
        },
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        tie_word_embeddings=True,
    )


def model_config(vocabulary: int) -> Any:
    """The configuration of the whole model; the vocabulary counts `MARKS`, which are its last tokens."""
    from transformers import Qwen3VLConfig

    video, start, end = range(vocabulary - len(MARKS), vocabulary)
    return Qwen3VLConfig(
        vision_config=vision_config(),
        text_config=text_config(vocabulary),
        image_token_id=IMAGE,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=True,
    )


def tokenizer() -> Any:
    """The embedded model's, with `MARKS`."""
    from transformers import AutoTokenizer

    from clasp_calib.reference.model import MODEL

    made = AutoTokenizer.from_pretrained(MODEL)
    made.add_tokens(list(MARKS), special_tokens=True)
    names = ("video_token", "vision_start_token", "vision_end_token", "image_token")
    for name, token in zip(names, (*MARKS, "<image>"), strict=True):
        setattr(made, name, token)
        setattr(made, f"{name}_id", made.convert_tokens_to_ids(token))
    return made


def processor(tokenizer: Any) -> Any:
    """Qwen3-VL's processor for images alone: that of videos needs torchvision.

    Patches of 14 pixels, none merged; a picture whose sides are multiples of 14 keeps its size.
    """
    from transformers import Qwen2VLImageProcessorPil, Qwen3VLProcessor

    without_videos = {"check_argument_for_proper_class": lambda *_: None}
    of_images: Any = type(Qwen3VLProcessor.__name__, (Qwen3VLProcessor,), without_videos)
    images = Qwen2VLImageProcessorPil(
        size={"shortest_edge": PATCH * PATCH, "longest_edge": 1024 * PATCH * PATCH},
        image_mean=list(IMAGE_MEAN),
        image_std=list(IMAGE_STD),
        patch_size=PATCH,
        temporal_patch_size=1,
        merge_size=1,
    )
    return of_images(images, tokenizer, None, chat_template=CHAT_TEMPLATE)
