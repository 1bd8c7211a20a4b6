"""Whether a processor is the model's: found out on made pictures, before hours of work with it."""

from typing import Any

import torch
from PIL import Image

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.finite import all_finite
from clasp_calib.runtime.written import visual_token

_PICTURE = (96, 64)
"""Width and height of the made picture. Our choice: not square, so that what is laid out by the shape shows."""
_CONTRAST = (0.5, 50.0)
"""Of black and white as a tower sees them. Our choice: those known to us take 1 to 4.5; 200 and more, or less than
0.02, where only one of the picture and the mean is rescaled from 0..255."""


def check_processor(model: Any, processor: Any) -> None:
    """Refuse a processor whose prompts or pictures do not fit the model.

    Args:
        model: a transformers model of a known architecture.
        processor: as ``AutoProcessor.from_pretrained`` gives it.

    Raises:
        ModelError: it is no processor of text and pictures; it adds crops to pictures; its image token is no token, or
            not the model's; it knows tokens that the model has no embedding of; it gives a picture more or fewer tokens
            than the model makes features of it, or another size than the tower's. Both sides are named.
    """
    adapter, tokenizer = adapter_for(model), getattr(processor, "tokenizer", None)
    token = getattr(processor, "image_token", None)
    if tokenizer is None or token is None:
        raise ModelError(
            f"the processor is a {type(processor).__name__} without {'image token' if tokenizer else 'tokenizer'}; "
            "expected the one that AutoProcessor.from_pretrained gives for the model: look whether "
            "processor_config.json and preprocessor_config.json are there"
        )
    image = adapter.visual_token_ids["image"]
    _check_tokenizer(tokenizer, visual_token(processor), image, model.get_input_embeddings().weight.shape[0])
    if getattr(processor, "patch_size", 0) is None:
        raise ModelError(
            f"the {type(processor).__name__} has no patch_size, by which it counts the tokens of a picture; set "
            f'"patch_size": {adapter.config.vision_config.patch_size} in processor_config.json (in Python: '
            "processor.patch_size)"
        )
    if getattr(getattr(processor, "image_processor", None), "do_pan_and_scan", False):
        raise ModelError(
            f"the {type(processor).__name__} adds crops to some pictures (do_pan_and_scan), whose tokens are not "
            'counted; set "do_pan_and_scan": false in preprocessor_config.json (in Python: '
            "processor.image_processor.do_pan_and_scan)"
        )
    try:
        made, white = (
            processor(images=[Image.new("RGB", _PICTURE, colour)], text=token, return_tensors="pt")
            for colour in ("black", "white")
        )
        given = int((torch.as_tensor(made["input_ids"]) == image).sum())
        pixels, bright = (torch.as_tensor(of[adapter.pixel_names["image"]]) for of in (made, white))
        expected = sum(adapter.tokens(model, made))
    except Exception as error:  # Processors raise whatever odd settings make them raise.
        raise ModelError(
            f"the {type(processor).__name__} cannot prepare a picture for a {adapter.config.model_type} model "
            f"({type(error).__name__}: {error}){_told(_differences(adapter, processor))}"
        ) from error
    differences = _differences(adapter, processor)
    size = getattr(adapter.config.vision_config, "image_size", None)
    wanted = (size, size) if isinstance(size, int) else tuple(size or pixels.shape[-2:])
    if not adapter.patched and (found := tuple(pixels.shape[-2:])) != wanted:
        raise ModelError(
            f"the processor makes pictures of {found[0]} x {found[1]} pixels, and the model's tower takes "
            f"{wanted[0]} x {wanted[1]} (image_size){_told(differences)}"
        )
    if given != expected:
        raise ModelError(
            f"the {type(processor).__name__} puts {given} image tokens into the prompt for a picture of which the "
            f"model makes {expected} features{_told(differences)}"
        )
    if adapter.patched and differences:  # patches, as many as features whatever they show
        raise ModelError(f"the {type(processor).__name__} cuts a picture into other patches{_told(differences)}")
    if not bool(all_finite(pixels.float())):
        raise ModelError("the processor makes pixels that are not finite; look at its image_mean and image_std")
    contrast = float((bright.float() - pixels.float()).abs().max())
    if not _CONTRAST[0] <= contrast <= _CONTRAST[1]:
        raise ModelError(
            f"black and white differ by {contrast:.3g} as the processor prepares them, and towers take 1 to 5; look at "
            "its do_rescale, rescale_factor, do_normalize, image_mean and image_std: all are of 0..1, or all of 0..255"
        )


def check_together(processor: Any) -> None:
    """Refuse a processor that makes other tokens of pictures that stand in one prompt than of each alone.

    Features are cached by the picture. LLaVA-OneVision's cuts a picture into tiles only where it is the only one.

    Raises:
        ModelError: with the tokens that it makes.
    """
    pictures, token = [Image.new("RGB", size) for size in ((640, 320), (96, 512))], processor.image_token
    alone = [_expanded(processor, [picture], token) for picture in pictures]
    together = _expanded(processor, pictures, token * len(pictures))
    if together != sum(alone):
        raise ModelError(
            f"the {type(processor).__name__} makes {together} tokens of two pictures in one prompt, and "
            f"{' and '.join(map(str, alone))} of each alone, as calibrations know pictures; ask about one at a time, "
            "and leave out samples with several"
        )


def _expanded(processor: Any, pictures: list[Image.Image], text: str) -> int:
    (ids,) = processor(images=[pictures], text=[text])["input_ids"]
    return list(ids).count(processor.tokenizer.convert_tokens_to_ids(visual_token(processor)))


def _check_tokenizer(tokenizer: Any, token: str, image: int, embeddings: int) -> None:
    ids = list(tokenizer(token, add_special_tokens=False).input_ids)
    known = tokenizer.get_vocab()
    if token not in known or ids.count(known[token]) != 1:
        raise ModelError(
            f"the tokenizer does not know the image token {token}, and cuts it into {len(ids)} others; add it as the "
            f"token {image} (tokenizer.add_special_tokens), or take the tokenizer that was saved with the model"
        )
    if known[token] != image:
        raise ModelError(
            f"the image token {token} is {known[token]} to the tokenizer, and the model's image_token_id is {image}; "
            "give the processor and the config.json that were saved together"
        )
    last, number = max((number, name) for name, number in known.items())
    if last >= embeddings:
        raise ModelError(
            f"the tokenizer knows the token {number!r} as {last}, and the model embeds {embeddings} tokens, 0 to "
            f"{embeddings - 1}; give the tokenizer that was saved with the model, or enlarge the model "
            "(resize_token_embeddings) and train it"
        )


def _differences(adapter: Adapter, processor: Any) -> list[str]:
    """The settings in which both sides differ."""
    config, vision, images = adapter.config, adapter.config.vision_config, getattr(processor, "image_processor", None)
    sides = (
        ("patch_size", processor, getattr(vision, "patch_size", None)),
        ("patch_size", images, getattr(vision, "patch_size", None)),
        ("merge_size", images, getattr(vision, "spatial_merge_size", None)),
        ("temporal_patch_size", images, getattr(vision, "temporal_patch_size", None)),
        ("downsample_mode", images, getattr(config, "downsample_mode", None)),
        ("image_grid_pinpoints", images, getattr(config, "image_grid_pinpoints", None)),
        ("num_additional_image_tokens", processor, adapter.class_tokens),
        ("vision_feature_select_strategy", processor, getattr(config, "vision_feature_select_strategy", None)),
        ("image_seq_length", processor, adapter.tile_tokens),
        ("image_seq_len", processor, adapter.tile_tokens),
    )
    return [
        f"{name} is {ours} in the processor and should be {theirs}"
        for name, side, theirs in sides
        if (ours := getattr(side, name, None)) is not None and theirs is not None and _single(ours) != _single(theirs)
    ]


def _told(differences: list[str]) -> str:
    return f": {'; '.join(differences)}" if differences else "; give the processor that was saved with the model"


def _single(value: Any) -> Any:
    """14 of [14, 14]."""
    return value[0] if isinstance(value, list | tuple) and value and value[0] == value[-1] else value
