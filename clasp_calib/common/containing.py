"""The failure of one sample is named, with what to do; its cause comes along, and what is recorded stays."""

from collections.abc import Iterator
from contextlib import contextmanager

from clasp_calib.common.errors import ClaspError, ComputationError

LESS_MEMORY = (
    "the memory is too small; take a shorter --dtype (bfloat16), a smaller --budget or --batch, fewer --workers, or "
    "another --device"
)
_SHORT = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory", "alloc_failed")
_LONGEST = 400


@contextmanager
def contained(what: str) -> Iterator[None]:
    """Compute something for one sample or batch.

    Args:
        what: is computed, for the message: ``"scoring the sample '17'"``.

    Raises:
        ComputationError: whatever went wrong in it that is no error of ours; the cause is its ``__cause__``.
    """
    try:
        yield
    except ClaspError:
        raise
    except Exception as error:
        advice = LESS_MEMORY if lacks_memory(error) else "mend the cause, or leave this out"
        raise ComputationError(
            f"{what} failed ({reason_of(error)}); {advice}. What is recorded so far stays: give the same command again "
            "to go on"
        ) from error


def lacks_memory(error: BaseException) -> bool:
    """Whether an error is of memory, of this machine or of a device; torch has an error of its own for some of them."""
    said = str(error).lower()
    return (
        isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or any(s in said for s in _SHORT)
    )


def reason_of(error: BaseException) -> str:
    """The name of an error, and the beginning of what it says."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:_LONGEST]}{'...' * (len(said) > _LONGEST)}".removesuffix(": ")
