"""A request of a harness as a model is asked it: a conversation, what it shows, and the question that it is about."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clasp_calib.common.media import is_video
from clasp_calib.common.question_parts import parts_of

if TYPE_CHECKING:
    from clasp_calib.calib.scoring.templates import Turn
    from clasp_calib.common.samples import Given


@dataclass(frozen=True)
class PromptedRequest:
    """What a model is asked.

    Attributes:
        name: for messages and as a seed, the same whenever it is asked again.
        question: without what the benchmark puts around it; its class is found by it.
        turns: of the conversation, the last one the user's.
        media: of all turns, in their order: pictures, or one video.
    """

    name: str
    question: str
    turns: "tuple[Turn, ...]"
    media: "tuple[Given, ...]" = field(default=(), repr=False)

    @classmethod
    def of_text(cls, name: str, question: str, text: str, media: "Sequence[Given]") -> "PromptedRequest":
        """One turn: a text that may hold ``<image>`` for each picture, which stand before it otherwise.

        Raises:
            InputError: it holds another number of them.
        """
        return cls(name, question, (("user", parts_of(text, len(media))),), tuple(media))

    @property
    def modality(self) -> str:
        """``video``, ``image``, or ``text`` where nothing is shown."""
        if not self.media:
            return "text"
        return "video" if len(self.media) == 1 and is_video(self.media[0]) else "image"
