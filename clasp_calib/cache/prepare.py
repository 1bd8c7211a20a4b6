"""From a file to what the tower takes, as the model's own processor makes it. Runs in worker processes too.

Arrays are numpy's rather than torch's: torch would hand them to another process through shared memory, of which a
container has little.
"""

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from clasp_calib.cache import decoding_memory
from clasp_calib.common.errors import PictureError
from clasp_calib.common.media import Media, ResizedPicture, is_video
from clasp_calib.runtime.pictures import decoded, readable
from clasp_calib.runtime.smaller_pictures import as_sized
from clasp_calib.runtime.written import Written, text_among

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from clasp_calib.runtime.adapters.adapter import Adapter

_NO_SIZES = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "pixel_attention_mask")
"""What of a processor's output is of the text, or as large as the pixels."""


@dataclass(frozen=True)
class Prepared:
    """One file, ready for the tower."""

    modality: str
    pixels: npt.NDArray[Any]
    """As the processor makes them of this file alone."""
    sizes: Mapping[str, list[Any]]
    """What else it says of the file; see `clasp_calib.cache.origin.Origin`."""
    note: str
    """What of the file the model does not see; empty as a rule."""
    decode_seconds: float
    preprocess_seconds: float
    written: Written = ()
    """What it writes for the file, where text stands among its visual tokens; see the same."""


@dataclass(frozen=True)
class Broken:
    """One file that cannot be used, and why."""

    reason: str


@contextmanager
def large_pictures_allowed() -> Iterator[None]:
    """Be silent about pictures of 90 million pixels; those of 180 million Pillow refuses, as bombs, all the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


@dataclass(frozen=True)
class Preparer:
    """Decodes and preprocesses files; can be sent to another process."""

    processor: "ProcessorMixin"
    pixel_names: Mapping[str, str]
    """Of the adapter: for every modality what the processor calls its pixels."""
    films: str | None = None
    """Of the adapter: what a video is to the model; none are taken without."""

    @classmethod
    def of(cls, processor: "ProcessorMixin", adapter: "Adapter") -> Self:
        """For all kinds of files that a model takes."""
        return cls(processor, adapter.pixel_names, adapter.films)

    def __call__(self, path: Media) -> Prepared | Broken:
        """Prepare one file. Nothing that is wrong with the file is raised: the others go on."""
        try:
            return self._video(path) if is_video(path) else self._image(path)
        except PictureError as error:
            return Broken(error.reason)
        except Exception as error:  # The processors raise whatever odd data makes them raise.
            return Broken(f"{error}" or type(error).__name__)

    def _image(self, path: Media) -> Prepared:
        begun = time.perf_counter()
        with ExitStack() as held:
            note, picture = self._decoded(path, held)
            decoded = time.perf_counter()
            made = self.processed(picture, **(as_sized(self.processor) if isinstance(path, ResizedPicture) else {}))
            del picture
        written = text_among(self.processor, made)
        return self._prepared("image", made, written, note, decoded - begun, time.perf_counter() - decoded)

    def _decoded(self, path: Media, held: ExitStack) -> tuple[str, Image.Image]:
        """What is not seen of a picture, and the picture; the memory that it takes is held."""
        with readable(path, self.processor) as (image, pixels):
            held.enter_context(decoding_memory.taken(pixels))
            return unseen(image), decoded(path, image, self.processor)

    def processed(self, picture: Image.Image, **told: Any) -> Mapping[str, Any]:
        """What the processor makes of a decoded picture and what it is told with it."""
        # With a text, as for an answer: some processors cut tiles only then, and some insist on one.
        made: Any = self.processor(images=[picture], text=self.processor.image_token, return_tensors="pt", **told)
        return made  # type: ignore[no-any-return]

    def _video(self, path: Media) -> Prepared:
        if self.films is None or getattr(self.processor, "video_processor", None) is None:
            raise ValueError("this is a video, and the model takes images only")
        begun = time.perf_counter()
        # transformers decodes it: which frames are wanted is the processor's choice. So there is one time for both.
        made: Any = self.processor(videos=[str(path)], text=self.processor.video_token, return_tensors="pt")
        written = text_among(self.processor, made, self.films)
        return self._prepared(self.films, made, written, "", 0.0, time.perf_counter() - begun)

    def _prepared(
        self,
        modality: str,
        made: Mapping[str, Any],
        written: Written,
        note: str,
        decode_seconds: float,
        preprocess_seconds: float,
    ) -> Prepared:
        pixels = self.pixel_names[modality]
        sizes = {name: _as_list(value) for name, value in made.items() if name not in (pixels, *_NO_SIZES)}
        return Prepared(modality, np.asarray(made[pixels]), sizes, note, decode_seconds, preprocess_seconds, written)


def unseen(image: Image.Image) -> str:
    """What of an opened image is lost when transformers makes RGB of it; empty if nothing is."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # whose second frame is a preview or another eye's
        return f"only the first of {frames} frames is seen"
    if image.mode.startswith(("I", "F")):
        return f"pixels of mode {image.mode} are cut off at 255, not scaled to it; save it with 8 bits a channel"
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
        return "it is partly transparent, and the colours beneath are seen"
    return ""


def _as_list(value: Any) -> list[Any]:
    return list(value.tolist() if hasattr(value, "tolist") else value)
