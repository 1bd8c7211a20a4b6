"""One exception family. Every message says what was given, what was expected, and what to do."""

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class ClaspError(Exception):
    """Root of all errors that a user can cause and can mend. The command line prints it and exits with 2."""

    def __str__(self) -> str:
        """The message, with control characters escaped: it may quote what a file holds, and is printed to terminals."""
        return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], super().__str__())


class ClaspWarning(UserWarning):
    """What may be meant, but would be wrong if it is not. Python shows each once."""


class InputError(ClaspError):
    """A file, a table or a flag that cannot be used as it is."""


class PictureError(InputError):
    """A picture that is missing, damaged, too large, or none.

    Args:
        picture: its path, or what it is called.
        reason: what is wrong with it, in short.
    """

    def __init__(self, picture: object, reason: str):
        super().__init__(f"the picture {picture} cannot be read ({reason}); mend it or its path, or leave it out")
        self.picture = picture
        self.reason = reason
        """In short."""

    def __reduce__(self) -> tuple[type["PictureError"], tuple[str, str]]:
        """Errors cross processes."""
        return PictureError, (str(self.picture), self.reason)


class BudgetError(ClaspError):
    """A token budget that the schedule cannot meet."""


class ModelError(ClaspError):
    """A model that is missing, of an unknown architecture, or set up in a way that pruning cannot serve."""


class CacheError(ClaspError):
    """A feature cache that is missing something, damaged, or made for another encoder."""


class ArtifactError(ClaspError):
    """An artifact that is damaged, of an unknown format, or made for another model."""


class StudyError(ClaspError):
    """A search whose recorded trials do not belong to the configuration that was asked for."""


class LabelerError(ClaspError):
    """A language model or its server that cannot be reached, died, or does not do what labelling needs."""


class ServingError(ClaspError):
    """A server that cannot be started, died, or does not answer as it should."""


class ComputationError(ClaspError):
    """One sample or batch that failed in a library or for want of memory; the cause comes with it."""
