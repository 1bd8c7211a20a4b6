"""A prompt about a picture or a video, as the model takes it."""

from collections.abc import Sequence
from typing import Any

from clasp_calib.common.errors import InputError, PictureError
from clasp_calib.common.media import ResizedPicture, is_video
from clasp_calib.common.samples import Given
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.checks import check_length
from clasp_calib.runtime.pictures import load_picture
from clasp_calib.runtime.smaller_pictures import as_sized


def several(media: "Given | Sequence[Given]") -> "list[Given]":
    """One picture or more as a list."""
    return list(media) if isinstance(media, list | tuple) else [media]  # type: ignore[list-item]


def modality_of(model: Any, processor: Any, media: "Given | Sequence[Given]") -> str:
    """``video`` of a file that is named as one, ``image`` of everything else, such as several pictures.

    Raises:
        InputError: it is a video, and the model takes none.
    """
    if not is_video(media):
        return "image"
    if adapter_for(model).films is None or getattr(processor, "video_processor", None) is None:
        raise InputError(
            f"{media!r:.200} is a video, and this {model.config.model_type} model takes images only; give a picture, "
            "or a model of videos"
        )
    return "video"


def model_inputs(model: Any, processor: Any, media: "Given | Sequence[Given]", text: str) -> Any:
    """Arguments of ``forward`` and ``generate`` on the model's device, floats in its dtype.

    Args:
        model: whose processor it is.
        processor: chooses the frames of a video.
        media: path of a picture, a picture in memory, several of these, or path of a video. All pictures in their own
            size, or all resized.
        text: the prompt, with one token where each picture or the video stands.

    Raises:
        InputError: it cannot be read; it is a video, and the model takes none; the prompt is longer than the model's
            context.
    """
    if modality_of(model, processor, media) == "video":
        try:
            made = processor(videos=[str(media)], text=text, return_tensors="pt")
        except Exception as error:  # The processors raise whatever odd data makes them raise.
            reason = f"{error}" or type(error).__name__
            raise PictureError(media, f"the processor cannot read it as a video: {reason}") from error
    else:
        every = several(media)
        told = as_sized(processor) if any(isinstance(one, ResizedPicture) for one in every) else {}
        pictures = [load_picture(one, processor) for one in every]
        # Those of one prompt in a list of their own, as in a conversation: some processors cut tiles by their number.
        made = processor(images=[pictures], text=[text], return_tensors="pt", **told)
    check_length(model.config, made["input_ids"].shape[1])
    return made.to(model.device, model.dtype)
