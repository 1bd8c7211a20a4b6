"""One question about a picture: what all commands pass on."""

import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias

from clasp_calib.common.errors import InputError
from clasp_calib.common.media import VIDEOS, Media, as_media, is_video

if TYPE_CHECKING:
    from PIL import Image

CLASSES = ("object", "attribute", "text", "scene", "spatial", "counting", "action", "function", "default")
SPLITS = ("train", "calibration", "selection", "test", "challenge")

Given: TypeAlias = "Media | Image.Image | bytes | str | PathLike[str]"
"""What a user may give for a picture: a path, a PIL picture, or the bytes of an encoded one."""


@dataclass(frozen=True)
class Sample:
    """One question about one picture, several, a video, or none.

    Whatever is given for a picture becomes a ``Path`` or a `clasp_calib.common.media.MemoryPicture`; lists become
    tuples, and a single answer a tuple of one.

    Raises:
        InputError: a picture or video is none.
    """

    id: str
    """Unique within a table."""
    question: str
    """Its text, without a prompt template."""
    image: "Given | Sequence[Given] | None" = None
    """A path, a PIL picture, or several of these."""
    answers: tuple[str, ...] = ()
    """Accepted answers."""
    metric: str | None = None
    """Name of the metric that scores an answer; ``exact`` if there is none."""
    split: str | None = None
    """``calibration``, ``selection`` or ``test``; samples without one are divided by picture."""
    intent: str | None = None
    """Slug of the intent, as a labeler or the table gives it."""
    label: str | None = None
    """Slug of the class; the table's column is called ``class``."""
    video: str | PathLike[str] | None = None
    """Path of a video."""
    group: str | None = field(default=None, compare=False, repr=False)
    """What samples share whose pictures have the same content; `clasp_calib.common.contents.grouped` finds it."""

    def __post_init__(self) -> None:
        """Bring what was given into one form."""
        # Frozen for everybody else.
        object.__setattr__(self, "image", self._media("image", self.image))
        object.__setattr__(self, "video", self._media("video", self.video))
        answers = (self.answers,) if isinstance(self.answers, str) else tuple(self.answers)
        object.__setattr__(self, "answers", answers)

    @property
    def media(self) -> tuple[Media, ...]:
        """All that the question is about."""
        given: list[Any] = []
        for one in (self.image, self.video):
            given += one if isinstance(one, tuple) else [] if one is None else [one]
        return tuple(given)

    @property
    def cluster(self) -> str:
        """What samples share that are not independent: their group, or the names of pictures that nobody compared."""
        return self.group or " ".join(map(str, self.media)) or f"without picture: {self.id}"

    @property
    def picture(self) -> Media:
        """The one picture or video of the sample.

        Raises:
            InputError: there is none, or more than one; a video has a name that is no video's.
        """
        if len(self.media) != 1:
            has = f"{len(self.media)} pictures" if self.media else "no picture"
            if self.video is not None:
                has = "a video and pictures"
            raise InputError(f"sample {self.id!r} has {has}; expected one picture or one video")
        (media,) = self.media
        if self.video is not None and not is_video(media):
            raise InputError(
                f"sample {self.id!r} has the video {media}; expected a name that ends in {', '.join(VIDEOS)}"
            )
        return media

    @property
    def modality(self) -> str:
        """``video`` or ``image``, as the name of the one file says; several are images."""
        return "video" if is_video(self.alone[0].picture) else "image"

    @property
    def alone(self) -> tuple["Sample", ...]:
        """The sample with each of its pictures alone, in their order; only itself where it has one or a video.

        Raises:
            InputError: one of several is a video.
        """
        if self.video is not None or not isinstance(self.image, tuple):
            return (self,)
        if videos := [one for one in self.image if is_video(one)]:
            raise InputError(
                f"sample {self.id!r} has the video {videos[0]} beside other pictures; expected several pictures or one "
                "video"
            )
        return tuple(replace(self, image=one) for one in self.image)

    def _media(self, field: str, given: Any) -> Any:
        try:
            if not isinstance(given, list | tuple):
                return None if given is None else as_media(given)
            several = tuple(as_media(one) for one in given)
        except TypeError:
            wanted = "the path of a file, a PIL picture, or several" if field == "image" else "the path of a file"
            raise InputError(f"sample {self.id!r} has the {field} {reprlib.repr(given)}; expected {wanted}") from None
        return several if len(several) > 1 else next(iter(several), None)


def pictures_of(samples: Iterable[Sample]) -> list[tuple[str, Media]]:
    """(id, picture) of all pictures that samples are about; those about none are passed over.

    Raises:
        InputError: no sample has a picture, or what one has is none; see `Sample.picture`.
    """
    every = list(samples)
    found = [(sample.id, one.picture) for sample in every if sample.media for one in sample.alone]
    if not found:
        raise InputError(f"none of the {len(every)} samples has a picture; expected a column 'image' with paths")
    return found
