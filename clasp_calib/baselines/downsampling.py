"""Down-sampling, a control before the processor: the picture itself is made smaller until it has few enough tokens.

A published comparison finds that it beats many methods of pruning (https://arxiv.org/abs/2510.07143). It needs a
processor that makes fewer tokens of some picture than of others.
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
from clasp_calib.runtime.smaller_pictures import Size, as_sized, smaller_sizes


@dataclass(frozen=True)
class DownSampling:
    """Shows every picture at the largest size at which it has no more tokens than the budget says.

    `clasp_calib.runtime.smaller_pictures.smaller_sizes` says which sizes there are, some of them larger than a
    picture that the processor enlarges. Nothing is pruned: the model sees a picture of that size, all decoder layers
    work on all its tokens, and its positions are those of such a picture. Tokens come in whole lines or tiles, so
    there may be fewer than the budget says.
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
            raise BudgetError(
                f"{self.name} does not bring {len(over)} of {len(every)} pictures to {self.keep} of their visual "
                f"tokens: of {over[0]} the processor makes {sizes.tokens(size)}, and {sizes.least(size)} at the least; "
                "give a larger budget, or choose another method"
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
        self._known: dict[tuple[Size, bool], int] = {}

    def tokens(self, size: Size, resized: bool = False) -> int:
        """Visual tokens of a picture in its own size, or in one that it was resized to."""
        if (size, resized) not in self._known:
            images, text = [[Image.new("RGB", size)]], [self.processor.image_token]
            told = as_sized(self.processor) if resized else {}
            made = self.processor(images=images, text=text, return_tensors="pt", **told)
            self._known[size, resized] = sum(self._adapter.tokens(self._model, made))
        return self._known[size, resized]

    def least(self, size: Size) -> int:
        """The fewest that a picture has in any of its `smaller_sizes`."""
        return min(self.tokens(one, resized=True) for one in smaller_sizes(self.processor, size))

    def largest(self, size: Size, most: int) -> Size | None:
        """The first of a picture's `smaller_sizes` with at most so many tokens, or ``None``.

        All larger ones are looked at: where tiles are chosen by the shape, a smaller picture may have more tokens.
        """
        every = smaller_sizes(self.processor, size)
        return next((one for one in every if self.tokens(one, resized=True) <= most), None)
