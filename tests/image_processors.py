"""Transformers' own processors of images for the tiny architectures, in their variants that need no torchvision."""

from tiny_models import tiny_tokenizer
from transformers import (
    CLIPImageProcessorPil,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    Glm4vImageProcessorPil,
    Glm4vProcessor,
    GotOcr2ImageProcessorPil,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    InternVLProcessor,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaOnevisionImageProcessorPil,
    LlavaOnevisionProcessor,
    LlavaProcessor,
    MiniCPMV4_6ImageProcessorPil,
    MiniCPMV4_6Processor,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
    Qwen2VLProcessor,
    Qwen3VLProcessor,
    SmolVLMImageProcessorPil,
    SmolVLMProcessor,
    VideoLlavaImageProcessor,
    VideoLlavaProcessor,
)
from transformers.models.smolvlm import processing_smolvlm

processing_smolvlm.num2words = str  # A package that says the number of a video's frames in words.

PINPOINTS = [[56, 112], [112, 56], [112, 112]]
_CROPPED = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
_SQUARE = {"height": 56, "width": 56}
_TILES = {"size": {"longest_edge": 112}, "max_image_size": {"longest_edge": 56}}
_MARKS = {"fake_image_token": "<fake_token_around_image>", "global_image_token": "<global-img>"}
_CLIP = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}


def without_videos(processor_class):
    """The processor, which does not insist on a video processor: each of these needs torchvision."""
    return type(processor_class.__name__, (processor_class,), {"check_argument_for_proper_class": lambda *_: None})


class NoVideos:
    """Stands for a video processor where one is asked how it chooses frames."""

    num_frames, fps = 8, 1
    slice_mode, downsample_mode = True, "16x"

    def to_json_string(self):
        return "{}"


def tokenizer(**tokens):
    """One that knows the tokens of a kind of picture by the names that processors look for."""
    made = tiny_tokenizer()
    made.add_tokens(list(tokens.values()), special_tokens=True)
    for name, token in tokens.items():
        setattr(made, name, token)
        setattr(made, f"{name}_id", made.convert_tokens_to_ids(token))
    return made


def qwen(processor_class):
    tokens = tokenizer(image_token="<image>", video_token="<video>")
    images = Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=28 * 28 * 16)
    return without_videos(processor_class)(images, tokens, chat_template="none")


IMAGE_PROCESSORS = {
    "llava": lambda: LlavaProcessor(CLIPImageProcessorPil(**_CROPPED), tiny_tokenizer(), **_CLIP),
    "llava_next": lambda: LlavaNextProcessor(
        LlavaNextImageProcessorPil(image_grid_pinpoints=PINPOINTS, **_CROPPED), tiny_tokenizer(), **_CLIP
    ),
    "llava_onevision": lambda: without_videos(LlavaOnevisionProcessor)(
        LlavaOnevisionImageProcessorPil(size=_SQUARE, image_grid_pinpoints=PINPOINTS),
        tokenizer(video_token="<video>"),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
    ),
    "video_llava": lambda: without_videos(VideoLlavaProcessor)(
        VideoLlavaImageProcessor(**_CROPPED), None, tokenizer(video_token="<video>"), **_CLIP
    ),
    "qwen2_vl": lambda: qwen(Qwen2VLProcessor),
    "qwen2_5_vl": lambda: qwen(Qwen2_5_VLProcessor),
    "qwen3_vl": lambda: qwen(Qwen3VLProcessor),
    "gemma3": lambda: Gemma3Processor(
        Gemma3ImageProcessorPil(size={"height": 112, "width": 112}),
        tokenizer(boi_token="<start_of_image>", eoi_token="<end_of_image>", image_token="<image>"),
        image_seq_length=16,
    ),
    "glm4v": lambda: without_videos(Glm4vProcessor)(
        Glm4vImageProcessorPil(size={"shortest_edge": 2 * 28 * 28, "longest_edge": 2 * 28 * 28 * 16}),
        tokenizer(image_token="<image>", video_token="<video>"),
    ),
    "idefics3": lambda: Idefics3Processor(Idefics3ImageProcessorPil(**_TILES), tokenizer(**_MARKS), image_seq_len=4),
    "smolvlm": lambda: without_videos(SmolVLMProcessor)(
        SmolVLMImageProcessorPil(**_TILES), tokenizer(**_MARKS), NoVideos(), image_seq_len=4
    ),
    "qwen3_5": lambda: qwen(Qwen3VLProcessor),
    "minicpmv4_6": lambda: without_videos(MiniCPMV4_6Processor)(
        MiniCPMV4_6ImageProcessorPil(patch_size=7, scale_resolution=56, max_slice_nums=4),
        NoVideos(),
        tokenizer(
            image_token="<image>",
            video_token="<video>",
            image_start_token="<picture>",
            image_end_token="</picture>",
            slice_start_token="<slice>",
            slice_end_token="</slice>",
            image_id_start_token="<image_id>",
            image_id_end_token="</image_id>",
        ),
    ),
    "internvl": lambda: without_videos(InternVLProcessor)(
        GotOcr2ImageProcessorPil(size={"height": 112, "width": 112}),
        tokenizer(
            start_image_token="<img>", end_image_token="</img>", context_image_token="<image>", video_token="<video>"
        ),
        image_seq_length=16,
    ),
}
