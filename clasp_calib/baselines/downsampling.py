"""Down-sampling, a control before the processor: the picture itself is made smaller until it has few enough tokens.

A published comparison finds that it beats many methods of pruning (https://arxiv.org/abs/2510.07143). It needs a
processor that makes fewer tokens of a smaller picture.
"""

from collections.abc import Iterable
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

    def check(self, model: Any, processor: Any, pictures: Iterable[Media]) -> None:
        """Refuse pictures that cannot be made small enough; only their headers are read.

        Raises:
            BudgetError: with the first of them, and what the processor makes of it at the least.
            PictureError: one cannot be read.
        """
        every, sizes = list(dict.fromkeys(pictures)), _Sizes(model, processor)
        seen = {picture: seen_size(picture, processor) for picture in every}
        over = [picture for picture, size in seen.items() if sizes.least(size) > self._most(sizes, size)]
        if over:
            size = seen[over[0]]
            raise BudgetError(
                f"{self.name} does not bring {len(over)} of {len(every)} pictures to {self.keep} of their visual "
                f"tokens: of {over[0]} the processor makes {sizes.tokens(size)}, and {sizes.least(size)} at the least; "
                "give a larger budget, or choose another method"
            )

    def shown(self, model: Any, processor: Any, picture: Given) -> ResizedPicture:
        """The picture as the processor is given it: made smaller by Pillow's bicubic filter, whenever it is opened.

        Raises:
            BudgetError: it cannot be made small enough.
            InputError: it cannot be read.
        """
        media, sizes = as_media(picture), _Sizes(model, processor)
        size = seen_size(media, processor)
        most = self._most(sizes, size)
        if sizes.least(size) > most:
            self.check(model, processor, [media])
        return ResizedPicture(media, sizes.largest(size, most), image_key(media))

    def _most(self, sizes: "_Sizes", size: Size) -> int:
        return int(parse_budget(self.keep).of(sizes.tokens(size)) + 1e-9)


class _Sizes:
    """How many visual tokens a processor makes of pictures of a size; it is shown blank ones."""

    def __init__(self, model: Any, processor: Any) -> None:
        self._model, self._processor, self._adapter = model, processor, adapter_for(model)
        self._known: dict[Size, int] = {}

    def tokens(self, size: Size) -> int:
        if size not in self._known:
            images, text = [[Image.new("RGB", size)]], [self._processor.image_token]
            made = self._processor(images=images, text=text, return_tensors="pt")
            self._known[size] = sum(self._adapter.tokens(self._model, made))
        return self._known[size]

    def least(self, size: Size) -> int:
        """Of pictures of this shape."""
        return self.tokens(_shrunk(size, 1))

    def largest(self, size: Size, most: int) -> Size:
        """The largest of this shape with at most so many tokens, by halving; the least must have no more."""
        if self.tokens(size) <= most:
            return size
        fits, over = 1, max(size)
        while over - fits > 1:
            middle = (fits + over) // 2
            fits, over = (middle, over) if self.tokens(_shrunk(size, middle)) <= most else (fits, middle)
        return _shrunk(size, fits)


def _shrunk(size: Size, longer: int) -> Size:
    """The size of the same shape whose longer side has so many pixels."""
    width, height = (max(1, round(side * longer / max(size))) for side in size)
    return width, height
