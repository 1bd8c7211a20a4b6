"""The one list of architectures: tiny random models of each, and prompts for them, built in milliseconds."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    MiniCPMV4_6Config,
    MiniCPMV4_6ForConditionalGeneration,
    MistralConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
)

from clasp_calib.runtime.adapters import adapter_for

PAD, BOS, EOS, IMAGE, VIDEO, START, END = SPECIAL = range(7)
VOCABULARY, LAYERS = 64, 8
PINPOINTS = [[56, 112], [112, 56], [112, 112]]
SIZES = [(80, 100), (100, 50), (110, 105), (56, 112)]
GRIDS = [(1, 8, 12), (1, 12, 4), (1, 8, 8), (1, 4, 8)]
VIDEO_GRIDS = [(2, 4, 8), (1, 8, 4), (2, 4, 4), (1, 4, 4)]
_TOKENS = {"image_token_id": IMAGE, "video_token_id": VIDEO}
_LAYER = {"vision_feature_layer": -2, "vision_feature_select_strategy": "default"}
_WIDTHS = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}
_TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
_QWEN_VISION = {"depth": 3, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}


@dataclass(frozen=True)
class Case:
    """An architecture with one kind of picture; ``picture(generator, n)`` gives the n-th and its tokens' ids."""

    name: str
    build: Callable[[], tuple[type, Any]]
    picture: Callable[[Any, torch.Generator, int], tuple[dict[str, Tensor], list[int]]]
    modality: str = "image"
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def filmed(self) -> bool:
        """Whether the pictures are videos, which to some models are several images."""
        return self.name.endswith(" video")

    def model(self, attention: str = "sdpa") -> Any:
        """In float32 and eval mode, made once, since nothing may change it."""
        if attention not in self.made:
            model_class, config = self.build()
            model = model_class._from_config(config, attn_implementation=attention)
            _randomise(model)
            model.generation_config.update(pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, do_sample=False)
            self.made[attention] = model.eval()
            # At its first forward transformers puts hooks of its own on a tower, and leaves them there.
            model.generate(**self.row(0, 1, 1, 1), max_new_tokens=1)
        return self.made[attention]

    @property
    def _any(self) -> Any:
        return next(iter(self.made.values()))

    def row(self, seed: int, before: int, pictures: int, after: int) -> dict[str, Tensor]:
        """One unpadded prompt: ``input_ids`` and ``attention_mask`` [1, S] and what its pictures need."""
        if not self.made:
            self.model()
        generator = torch.Generator().manual_seed(seed)
        ids, inputs = [BOS, *_words(generator, before)], {}
        for number in range(pictures):
            picture, tokens = self.picture(self._any, generator, seed + number)
            ids += tokens
            of_a_row = int("pixel_attention_mask" in picture)  # tiles stand row by row, not picture by picture
            for name, value in picture.items():
                along = -1 if name == "pixel_values" and "target_sizes" in picture else of_a_row
                inputs[name] = torch.cat([inputs[name], value], along) if name in inputs else value
        inputs["input_ids"] = torch.tensor([[*ids, *_words(generator, after)]])
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if hasattr(self._any.model, "get_rope_index"):
            kinds = inputs["input_ids"] == IMAGE, inputs["input_ids"] == VIDEO
            inputs["mm_token_type_ids"] = (kinds[0] + 2 * kinds[1]).int()
        inputs |= adapter_for(self._any).prompt_inputs(inputs["input_ids"])
        return inputs

    @property
    def layered(self) -> bool:
        """Whether the decoder can be pruned inside."""
        return "layered" in adapter_for(self.build()[1]).profiles

    def rows(self, pictures: tuple[int, ...]) -> list[dict[str, Tensor]]:
        """Prompts of different lengths, with pictures of different sizes where there are such."""
        texts = [(3, 7), (2, 5), (5, 9), (1, 4)]
        return [self.row(row, texts[row][0], count, texts[row][1]) for row, count in enumerate(pictures)]


def together(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The rows as one batch, padded on the left."""
    width = max(row["input_ids"].shape[1] for row in rows)
    batch: dict[str, Tensor] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        parts = [row[name] for row in rows if name in row]
        if name in ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids"):
            parts = [torch.nn.functional.pad(part, (width - part.shape[1], 0), value=PAD) for part in parts]
        elif "pixel_attention_mask" in rows[0]:
            tiles = max(part.shape[1] for part in parts)
            parts = [torch.cat([part, part.new_zeros(1, tiles - part.shape[1], *part.shape[2:])], 1) for part in parts]
        batch[name] = torch.cat(parts, -1 if name == "pixel_values" and "target_sizes" in rows[0] else 0)
    return batch


def _words(generator: torch.Generator, count: int) -> list[int]:
    return torch.randint(len(SPECIAL), VOCABULARY, (count,), generator=generator).tolist()


def _randomise(model: Any) -> None:
    """Unit-gain weights: the usual 0.02 initialisation makes attention flat and every logit alike."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "embed_tokens" in name or "lm_head" in name or "newline" in name or "class_embedding" in name:
                parameter.copy_(noise)
            elif "lambda_" in name or "A_log" in name:
                parameter.fill_(1.0)
            elif parameter.ndim >= 2:
                gain = 1.6 if "q_proj" in name or "k_proj" in name else 1.0
                parameter.copy_(noise * gain / math.sqrt(parameter[0].numel()))
            elif name.endswith("bias"):
                parameter.copy_(noise * 0.02)
        model.lm_head.weight[: len(SPECIAL)] = 0


def _clip() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        **_TOWER,
        image_size=56,
        patch_size=14,
        projection_dim=16,
    )


def _qwen_text(**changes: Any) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    return {**_WIDTHS, "rope_parameters": rope, **changes}


def _qwen(config: type, model: type, vision: dict[str, Any], **text: Any) -> tuple[type, Any]:
    ends = {"vision_start_token_id": START, "vision_end_token_id": END}
    return model, config(
        vision_config={**_QWEN_VISION, **vision},
        text_config=_qwen_text(**text),
        tie_word_embeddings=False,
        **_TOKENS,
        **ends,
    )


def _llava() -> tuple[type, Any]:
    config = LlavaConfig(
        vision_config=_clip(), text_config=LlamaConfig(**_WIDTHS), image_token_id=IMAGE, image_seq_length=16, **_LAYER
    )
    return LlavaForConditionalGeneration, config


def _llava_next() -> tuple[type, Any]:
    text = MistralConfig(sliding_window=None, **_WIDTHS)
    config = LlavaNextConfig(
        vision_config=_clip(), text_config=text, image_token_id=IMAGE, image_grid_pinpoints=PINPOINTS, **_LAYER
    )
    return LlavaNextForConditionalGeneration, config


def _video_llava() -> tuple[type, Any]:
    config = VideoLlavaConfig(vision_config=_clip(), text_config=LlamaConfig(**_WIDTHS), **_TOKENS, **_LAYER)
    return VideoLlavaForConditionalGeneration, config


def _llava_onevision() -> tuple[type, Any]:
    vision = SiglipVisionConfig(
        **_TOWER,
        image_size=56,
        patch_size=14,
        vision_use_head=False,
    )
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=Qwen2Config(use_sliding_window=False, **_WIDTHS),
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
        tie_word_embeddings=False,
        **_TOKENS,
    )
    return LlavaOnevisionForConditionalGeneration, config


def _internvl() -> tuple[type, Any]:
    vision = InternVLVisionConfig(
        **_TOWER,
        image_size=[112, 112],
        patch_size=[14, 14],
        use_mean_pooling=True,
    )
    config = InternVLConfig(
        vision_config=vision,
        text_config=Qwen2Config(use_sliding_window=False, **_WIDTHS),
        image_token_id=IMAGE,
        image_seq_length=16,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        downsample_ratio=0.5,
        tie_word_embeddings=False,
    )
    return InternVLForConditionalGeneration, config


def _idefics3(config: type = Idefics3Config, model: type = Idefics3ForConditionalGeneration) -> tuple[type, Any]:
    return model, config(
        vision_config={**_TOWER, "image_size": 56, "patch_size": 14},
        text_config={"model_type": "llama", **_WIDTHS},
        image_token_id=IMAGE,
        pad_token_id=PAD,
        scale_factor=2,
    )


def _smolvlm() -> tuple[type, Any]:
    return _idefics3(SmolVLMConfig, SmolVLMForConditionalGeneration)


def _gemma3() -> tuple[type, Any]:
    windows = {"sliding_window": 24, "layer_types": [f"{kind}_attention" for kind in ("sliding", "full")] * 4}
    rope = {kind: {"rope_type": "default", "rope_theta": 10000.0} for kind in windows["layer_types"]}
    config = Gemma3Config(
        vision_config={**_TOWER, "image_size": 112, "patch_size": 14, "vision_use_head": False},
        text_config={**_WIDTHS, **windows, "head_dim": 8, "query_pre_attn_scalar": 8, "rope_parameters": rope},
        mm_tokens_per_image=16,
        image_token_index=IMAGE,
        boi_token_index=START,
        eoi_token_index=END,
        tie_word_embeddings=False,
    )
    return Gemma3ForConditionalGeneration, config


def _glm4v() -> tuple[type, Any]:
    vision = {"hidden_size": 16, "intermediate_size": 32, "out_hidden_size": 32, "image_size": 56}
    ends = {"image_start_token_id": START, "image_end_token_id": END}
    return Glm4vForConditionalGeneration, Glm4vConfig(
        vision_config={**_QWEN_VISION, **vision}, text_config=_qwen_text(), **_TOKENS, **ends
    )


def _qwen2_vl() -> tuple[type, Any]:
    vision = {"embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2}
    return _qwen(Qwen2VLConfig, Qwen2VLForConditionalGeneration, vision)


def _qwen2_5_vl() -> tuple[type, Any]:
    vision = {"hidden_size": 16, "intermediate_size": 32, "out_hidden_size": 32}
    vision |= {"window_size": 56, "fullatt_block_indexes": [1]}
    return _qwen(Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, vision)


def _qwen3_vl(deepstack: Sequence[int] = (0, 1, 2)) -> tuple[type, Any]:
    vision = {"hidden_size": 16, "intermediate_size": 32, "out_hidden_size": 32}
    vision |= {"deepstack_visual_indexes": list(deepstack), "num_position_embeddings": 64}
    return _qwen(Qwen3VLConfig, Qwen3VLForConditionalGeneration, vision, head_dim=8)


def _recurrent() -> dict[str, Any]:
    linear = {f"linear_{name}": 2 for name in ("num_key_heads", "num_value_heads")}
    linear |= {f"linear_{name}_head_dim": 8 for name in ("key", "value")}
    kinds = ["linear_attention", "linear_attention", "linear_attention", "full_attention"] * 2
    return {"head_dim": 8, "layer_types": kinds, "partial_rotary_factor": 1.0, **linear}


def _qwen3_5() -> tuple[type, Any]:
    vision = {"hidden_size": 16, "intermediate_size": 32, "out_hidden_size": 32, "num_position_embeddings": 64}
    return _qwen(Qwen3_5Config, Qwen3_5ForConditionalGeneration, vision, **_recurrent())


def _minicpmv() -> tuple[type, Any]:
    config = MiniCPMV4_6Config(
        vision_config={**_TOWER, "image_size": 56, "patch_size": 7},
        text_config={"model_type": "qwen3_5_text", **_qwen_text(**_recurrent())},
        insert_layer_id=1,
        **_TOKENS,
    )
    return MiniCPMV4_6ForConditionalGeneration, config


def _square(side: int, tokens: int, name: str = "pixel_values") -> Callable[..., Any]:
    def picture(model: Any, generator: torch.Generator, number: int) -> Any:
        return {name: torch.randn(1, 3, side, side, generator=generator)}, [IMAGE] * tokens

    return picture


def _enclosed(model: Any, generator: torch.Generator, number: int) -> Any:
    return {"pixel_values": torch.randn(1, 3, 112, 112, generator=generator)}, _between(16, IMAGE)


def _frames(tokens: int, end: int = 0) -> Callable[..., Any]:
    def picture(model: Any, generator: torch.Generator, number: int) -> Any:
        return {"pixel_values_videos": torch.randn(1, 3, 3, 56, 56, generator=generator)}, [VIDEO] * (3 * tokens + end)

    return picture


def _tiles(model: Any, generator: torch.Generator, number: int) -> Any:
    pixels = torch.randn(1, 5, 3, 56, 56, generator=generator)
    inputs = {"pixel_values": pixels, "image_sizes": torch.tensor([SIZES[number % len(SIZES)]])}
    with torch.no_grad():
        features = model.get_image_features(**inputs, return_dict=True).pooler_output
    return inputs, [IMAGE] * len(features[0])


def _marked_tiles(model: Any, generator: torch.Generator, number: int) -> Any:
    """The tiles of a picture, with text between them, and the whole of it."""
    rows, columns = [(1, 2), (2, 1), (2, 2), (0, 0)][number % 4]
    pixels = torch.randn(1, rows * columns + 1, 3, 56, 56, generator=generator)
    ids = [START, IMAGE, IMAGE, IMAGE, IMAGE]
    line = [*(token for column in range(columns) for token in (*ids, END + 1 + column)), END]
    inputs = {"pixel_values": pixels, "pixel_attention_mask": torch.ones((*pixels.shape[:2], 56, 56)).long()}
    return inputs, [*line * rows, *ids, END]


def _slices(model: Any, generator: torch.Generator, number: int) -> Any:
    """The whole of a picture and then slices of it, smaller ones, behind its number."""
    rows, columns = [(1, 2), (2, 1), (2, 2), (0, 0)][number % 4]
    grids = torch.tensor([(8, 8)] + [(4, 8)] * rows * columns)
    pixels = torch.randn(1, 3, 7, int(grids.prod(1).sum()) * 7, generator=generator)
    ids = [20, *_between(4, IMAGE), *[*_between(2, IMAGE) * columns, 30] * rows]
    return {"pixel_values": pixels, "target_sizes": grids}, ids


def _patches(model: Any, generator: torch.Generator, number: int) -> Any:
    time, height, width = grid = GRIDS[number % len(GRIDS)]
    pixels = torch.randn(math.prod(grid), 3 * 2 * 14 * 14, generator=generator)
    return {"pixel_values": pixels, "image_grid_thw": torch.tensor([grid])}, _between(time * height * width // 4, IMAGE)


def _film(model: Any, generator: torch.Generator, number: int) -> Any:
    grid = VIDEO_GRIDS[number % len(VIDEO_GRIDS)]
    pixels = torch.randn(math.prod(grid), 3 * 2 * 14 * 14, generator=generator)
    return {"pixel_values_videos": pixels, "video_grid_thw": torch.tensor([grid])}, _between(
        math.prod(grid) // 4, VIDEO
    )


def _timed(model: Any, generator: torch.Generator, number: int) -> Any:
    """Each frame between two words and a mark on either side."""
    inputs, _ = _film(model, generator, number)
    ((time, height, width),) = inputs["video_grid_thw"].tolist()
    return inputs, [one for t in range(time) for one in (20 + t, 30, *_between(height * width // 4, VIDEO))]


def _numbered(model: Any, generator: torch.Generator, number: int) -> Any:
    """Frames as images, each behind its number and on a line of its own."""
    pixels = torch.randn(3, 3, 112, 112, generator=generator)
    return {"pixel_values": pixels}, [one for frame in range(3) for one in (20 + frame, *_between(16, IMAGE), 30)]


def _between(tokens: int, kind: int) -> list[int]:
    return [START, *[kind] * tokens, END]


CASES = {
    case.name: case
    for case in (
        Case("llava", _llava, _square(56, 16)),
        Case("llava_next", _llava_next, _tiles),
        Case("video_llava", _video_llava, _square(56, 16, "pixel_values_images")),
        Case("video_llava video", _video_llava, _frames(17), "video"),
        Case("qwen2_vl", _qwen2_vl, _patches),
        Case("qwen2_vl video", _qwen2_vl, _film, "video"),
        Case("qwen2_5_vl", _qwen2_5_vl, _patches),
        Case("qwen2_5_vl video", _qwen2_5_vl, _film, "video"),
        Case("qwen3_5", _qwen3_5, _patches),
        Case("qwen3_vl", _qwen3_vl, _patches),
        Case("qwen3_vl video", _qwen3_vl, _timed, "video"),
        Case("gemma3", _gemma3, _enclosed),
        Case("glm4v", _glm4v, _patches),
        Case("minicpmv4_6", _minicpmv, _slices),
        Case("internvl", _internvl, _square(112, 16)),
        Case("internvl video", _internvl, _numbered),
        Case("idefics3", _idefics3, _marked_tiles),
        Case("smolvlm", _smolvlm, _marked_tiles),
        Case("llava_onevision", _llava_onevision, _tiles),
        Case("llava_onevision video", _llava_onevision, _frames(4, 1), "video"),
    )
}
NO_DEEPSTACK = Case("qwen3_vl without deepstack", lambda: _qwen3_vl(()), _patches)
LAYERED_CASES = {name: case for name, case in CASES.items() if case.layered}
