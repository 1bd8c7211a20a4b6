"""What a question is about: the file of a picture or a video, or a picture that is only in memory."""

import errno
import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from clasp_calib.common.errors import InputError
from clasp_calib.common.given_files import regular_file
from clasp_calib.common.replacing import replaced

if TYPE_CHECKING:
    from PIL import Image


class MemoryPicture:
    """A picture without a file: a PIL picture, or the bytes of an encoded one.

    Two are equal if their content is. Content is a file's bytes, or what a model sees of a PIL picture: mode, size and
    pixels, upright and in RGB. A PIL picture must not be changed once a sample holds it.

    Args:
        content: a ``PIL.Image.Image``, or PNG, JPEG or the like.
    """

    def __init__(self, content: "bytes | Image.Image"):
        self.content = content

    @cached_property
    def key(self) -> str:
        """Hex sha256 of the content; of bytes the same as that of a file that holds them.

        Raises:
            InputError: a PIL picture that Pillow has yet to read cannot be read.
        """
        if isinstance(self.content, bytes):
            return hashlib.sha256(self.content).hexdigest()
        try:
            seen = as_seen(self.content)
        except Exception as error:  # Pillow's readers raise whatever damaged data makes them raise.
            raise InputError(f"{self.content!r} cannot be read ({error}); leave its question out") from error
        return hashlib.sha256(f"{seen.mode} {seen.size} ".encode() + seen.tobytes()).hexdigest()

    def opened(self) -> "AbstractContextManager[Image.Image]":
        """The picture, as ``PIL.Image.open`` gives that of a file."""
        if isinstance(self.content, bytes):
            from PIL import Image

            return Image.open(io.BytesIO(self.content))
        return nullcontext(self.content)

    def write(self, directory: Path) -> Path:
        """Write it into ``directory``, under its key; return the file's absolute path.

        Encoded pictures are written as they are, others as PNG of what a model sees.

        Raises:
            OSError: it is no picture, or the place cannot be written to.
        """
        content = self.content
        try:
            if isinstance(content, bytes):
                with self.opened() as image:
                    suffix = (image.format or "").lower()
            else:
                buffer, suffix = io.BytesIO(), "png"
                as_seen(content).save(buffer, suffix)
                content = buffer.getvalue()
        except Exception as error:  # Pillow's readers raise whatever damaged data makes them raise.
            raise OSError(str(error) or type(error).__name__) from error
        path = directory.resolve() / f"{self.key[:32]}.{suffix}"
        if not path.exists():
            directory.mkdir(parents=True, exist_ok=True)
            with replaced(path) as partial:
                partial.write_bytes(content)
        return path

    def __str__(self) -> str:
        return f"memory:{self.key[:32]}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key[:32]}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MemoryPicture) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __reduce__(self) -> tuple[Any, ...]:
        # Pillow forgets on the way which side of some pictures is up.
        return MemoryPicture, (self.content if isinstance(self.content, bytes) else as_seen(self.content),)


class ResizedPicture(MemoryPicture):
    """A picture in another size: read, and resized by Pillow's bicubic filter, whenever it is opened.

    Args:
        of: the picture.
        size: width and height in pixels.
        key: what ``of`` is known by, see `clasp_calib.common.contents.image_key`.
    """

    def __init__(self, of: "Media", size: tuple[int, int], key: str):
        self._of, self.size, self._key = of, size, key

    @cached_property
    def key(self) -> str:
        """Hex sha256 of the picture's content and the size."""
        width, height = self.size
        return hashlib.sha256(f"{self._key} in {width} x {height}".encode()).hexdigest()

    @contextmanager
    def opened(self) -> "Iterator[Image.Image]":
        """See `MemoryPicture`; upright and in RGB."""
        from PIL import Image

        with opened(self._of) as image:
            yield as_seen(image).resize(self.size, Image.Resampling.BICUBIC)

    @property
    def content(self) -> "Image.Image":  # type: ignore[override]
        """The resized picture."""
        with self.opened() as image:
            return image

    def __str__(self) -> str:
        return "{} in {} x {}".format(self._of, *self.size)

    def __reduce__(self) -> tuple[Any, ...]:
        return ResizedPicture, (self._of, self.size, self._key)


Media: TypeAlias = Path | MemoryPicture
"""One picture or video."""

VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")
"""What a video's name ends in; anything else is opened as an image."""


def is_video(media: object) -> bool:
    """Whether a file is taken for a video, by its name."""
    return isinstance(media, str | Path) and Path(media).suffix.lower() in VIDEOS


def as_media(value: Any) -> Media:
    """A path, a PIL picture or the bytes of one as samples hold it.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(value, Path | MemoryPicture):
        return value
    if isinstance(value, str | os.PathLike):
        return Path(value)
    if isinstance(value, bytes):
        return MemoryPicture(value)
    from PIL import Image

    if isinstance(value, Image.Image):
        return MemoryPicture(value)
    raise TypeError(f"{value!r} is no picture")


def as_seen(image: "Image.Image") -> "Image.Image":
    """A picture as transformers' ``load_image`` hands it on: upright according to its EXIF orientation, in RGB.

    Raises:
        Exception: whatever Pillow's reader raises for damaged data.
    """
    from PIL import ImageOps

    return ImageOps.exif_transpose(image).convert("RGB")


@contextmanager
def picture_file(path: Path) -> Iterator[io.BufferedReader]:
    """A file that somebody names as a picture, open for reading.

    Raises:
        OSError: it is no readable regular file, or holds nothing.
    """
    with regular_file(path) as file:
        # Files of /proc are empty too, until they are read.
        if os.fstat(file.fileno()).st_size == 0:
            raise OSError(errno.EINVAL, "it is empty")
        yield file


@contextmanager
def opened(picture: Media) -> "Iterator[Image.Image]":
    """The picture of a file or in memory, undecoded, within a context.

    Raises:
        Exception: whatever Pillow's reader raises for damaged data.
    """
    if isinstance(picture, MemoryPicture):
        with picture.opened() as image:
            yield image
        return
    from PIL import Image

    # Of an open file, since Pillow maps those that it opens itself: one that shrinks would end the process.
    with picture_file(picture) as file, Image.open(file) as image:
        yield image
