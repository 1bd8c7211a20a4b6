"""What a processor writes for a picture in a prompt: visual tokens, and text before, among and behind them."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from clasp_calib.common.errors import ModelError

Written = Sequence[str | int]
"""Texts, and numbers of visual tokens, in their order."""


def visual_token(processor: Any, modality: str = "image") -> str:
    """What is repeated for a picture or a video: the processor's token of it, as a rule.

    Gemma 3's marks the beginning of a picture, and the visual tokens are the tokenizer's.
    """
    token: str = getattr(processor, f"{modality}_token")
    if modality == "image" and token == getattr(processor, "boi_token", None):
        token = processor.tokenizer.image_token
    return token


def text_among(processor: Any, made: Mapping[str, Any], films: str | None = None) -> Written:
    """What a processor wrote for one file, where that is more than visual tokens and what is around those of an image.

    Args:
        processor: see `as_written`; one that is none of texts writes nothing.
        made: see the same.
        films: of a video what it is to the model, see `clasp_calib.runtime.adapters.adapter.Adapter.films`.
    """
    if "input_ids" not in made or not hasattr(processor, "tokenizer"):
        return ()
    written = as_written(processor, made, films)
    runs = sum(isinstance(piece, int) for piece in written)
    return written if runs > 1 or (films and runs < len(written)) else ()


def as_written(processor: Any, made: Mapping[str, Any], films: str | None = None) -> list[str | int]:
    """What a processor wrote for one file.

    Args:
        processor: whose token of an image or a video was all of the text.
        made: what it made of that text and a file.
        films: of a video what it is to the model.

    Raises:
        ModelError: the ids cannot be told apart, or are no ids of a text.
    """
    tokenizer, place = processor.tokenizer, processor.video_token if films else processor.image_token
    visual = tokenizer.convert_tokens_to_ids(visual_token(processor, films or "image"))
    (ids,) = np.asarray(made["input_ids"]).tolist()
    plain, mark = list(tokenizer(place).input_ids), tokenizer.convert_tokens_to_ids(place)
    if visual not in ids or plain.count(mark) != 1:
        raise ModelError(
            f"the {type(processor).__name__} makes no visual token of {place} and a picture; give the one that was "
            "saved with the model"
        )
    behind = len(ids) - plain[::-1].index(mark)
    runs = [(of_visual, list(run)) for of_visual, run in groupby(ids[plain.index(mark) : behind], visual.__eq__)]
    pieces = [len(run) if of_visual else _text(tokenizer, run) for of_visual, run in runs]
    if list(tokenizer(expanded(processor, pieces, films or "image")).input_ids) != ids:
        raise ModelError(
            f"the tokens that the {type(processor).__name__} puts around a picture are not those of a text; give the "
            "tokenizer that was saved with the model"
        )
    return pieces


def expanded(processor: Any, pieces: Written, modality: str = "image") -> str:
    """The text of what was written, with visual tokens of a modality."""
    token = visual_token(processor, modality)
    return "".join(token * piece if isinstance(piece, int) else piece for piece in pieces)


def numbered(processor: Any, pieces: Written, place: int) -> Written:
    """What was written for the only picture of a prompt, as it is for the one at a place, counted from 0.

    MiniCPM-V's processor numbers them.
    """
    start, end = (getattr(processor, f"image_id_{side}_token", None) for side in ("start", "end"))
    if start is None or not pieces or not isinstance(pieces[0], str):
        return pieces
    return [pieces[0].replace(f"{start}0{end}", f"{start}{place}{end}"), *pieces[1:]]


def _text(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text
