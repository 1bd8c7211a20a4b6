"""Down-sampling, a control before the processor: the picture itself is made smaller until it has few enough tokens.

A published comparison finds that it beats many methods of pruning (https://arxiv.org/abs/2510.07143). It needs a
processor that makes fewer tokens of a smaller picture.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from PIL import Image

from clasp_calib.common.contents import image_key
from clasp_calib.common.errors import BudgetError, ModelError
from clasp_calib.common.media import Media, ResizedPicture, as_media
from clasp_calib.common.samples import Given
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import picture_tokens, pruning_budget
from clasp_calib.runtime.pictures import seen_size
from clasp_calib.runtime.schedule import parse_budget

Size = tuple[int, int]
"""Width and height in pixels."""
SHORTEST = 28
"""Pixels of a picture's shorter side, at the least. Our choice: those that one visual token of Qwen-VL stands for. With
fewer nothing of the picture is left, and rounding to whole pixels would change its shape."""
STEPS = 96
"""Sizes that are tried below a picture's own. Our choice: they are about 1 percent apart, and each costs a run of the
processor."""


@dataclass(frozen=True)
class DownSampling:
    """Shows every picture at the largest size of its shape at which it has no more tokens than the budget says.

    Nothing is pruned: the model sees a smaller picture, all decoder layers work on all its tokens, and its positions
    are those of a picture of that size. Tokens come in whole lines, so there may be a few fewer than the budget says.
    """

    name: ClassVar[str] = "downsampling"
    paper: ClassVar[str] = "control"
    semantics: ClassVar[str] = "tokens that enter the decoder"
    images_only: ClassVar[bool] = True

    keep: str = "25%"
    """The most tokens of a picture: a percentage of what it has in its own size."""

    def solved(self, model: Any, budget: str) -> Self:
        """For a budget, which is a share of a picture's own tokens.

        Raises:
            ModelError: all pictures have as many tokens, whatever their size.
            BudgetError: a number of tokens.
        """
        adapter = adapter_for(model)
        if (tokens := picture_tokens(adapter)) is not None:
            raise ModelError(
                f"{self.name} cannot run on this {adapter.config.model_type} model: its processor makes {tokens} "
                "visual tokens of every picture, whatever its size; 'pooling' is the control for it"
            )
        return replace(self, keep=pruning_budget(adapter, budget).name)

    def check(self, sizes: "PictureSizes", pictures: Iterable[Media]) -> None:
        """Refuse pictures that cannot be made small enough; only their headers are read.

        Raises:
            BudgetError: with the first of them, and what the processor makes of it at the least.
            PictureError: one cannot be read.
        """
        every = list(dict.fromkeys(pictures))
        seen = {picture: seen_size(picture, sizes.processor) for picture in every}
        over = [picture for picture, size in seen.items() if self._size(sizes, size) is None]
        if over:
            size = seen[over[0]]
            own, least = sizes.tokens(size), sizes.least(size)
            advice = "; give a larger budget, or choose another method"
            if own == least and size != list(scaled(size))[-1]:
                advice = ": it scales all pictures of this shape to one size; do without smaller ones of these"
            raise BudgetError(
                f"{self.name} does not bring {len(over)} of {len(every)} pictures to {self.keep} of their visual "
                f"tokens: of {over[0]} the processor makes {own}, and {least} at the least while its shape is kept and "
                f"its sides have {SHORTEST} pixels{advice}"
            )

    def shown(self, sizes: "PictureSizes", picture: Given) -> ResizedPicture:
        """The picture as the processor is given it: made smaller by Pillow's bicubic filter, whenever it is opened.

        Raises:
            BudgetError: it cannot be made small enough.
            InputError: it cannot be read.
        """
        media = as_media(picture)
        size = self._size(sizes, seen_size(media, sizes.processor))
        if size is None:
            self.check(sizes, [media])
        assert size is not None
        return ResizedPicture(media, size, image_key(media))

    def _size(self, sizes: "PictureSizes", size: Size) -> Size | None:
        return sizes.largest(size, int(parse_budget(self.keep).of(sizes.tokens(size)) + 1e-9))


class PictureSizes:
    """How many visual tokens a processor makes of pictures of a size; it is shown blank ones, each size once.

    Args:
        model: what the pictures are for.
        processor: the model's.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.processor = processor
        self._model, self._adapter = model, adapter_for(model)
        self._known: dict[Size, int] = {}

    def tokens(self, size: Size) -> int:
        """Visual tokens of a picture."""
        if size not in self._known:
            images, text = [[Image.new("RGB", size)]], [self.processor.image_token]
            made = self.processor(images=images, text=text, return_tensors="pt")
            self._known[size] = sum(self._adapter.tokens(self._model, made))
        return self._known[size]

    def least(self, size: Size) -> int:
        """The fewest that a picture of this shape has in any of `scaled`."""
        return min(map(self.tokens, scaled(size)))

    def largest(self, size: Size, most: int) -> Size | None:
        """The largest of `scaled` with at most so many tokens, or ``None``.

        All larger ones are looked at: where tiles are chosen by the shape, a smaller picture may have more tokens.
        """
        return next((one for one in scaled(size) if self.tokens(one) <= most), None)


def scaled(size: Size) -> Iterator[Size]:
    """A size and smaller ones of its shape, the largest first, until the shorter side has `SHORTEST` pixels.

    A picture that is narrower has no smaller one. Sides are whole pixels, so shapes differ by at most 2 percent.
    """
    longer = max(size)
    least = min(longer, math.ceil(longer * SHORTEST / min(size)))
    steps = min(STEPS, longer - least)
    for step in range(steps + 1):
        side = longer - (longer - least) * step // max(steps, 1)
        width, height = (round(own * side / longer) for own in size)
        yield width, height
