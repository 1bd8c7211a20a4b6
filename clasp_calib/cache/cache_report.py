"""What one run of ``cache-features`` did, and where its time went."""

from dataclasses import dataclass

from clasp_calib.cache.odd import OddPicture


@dataclass
class Times:
    """Seconds. The first two are summed over the workers; the next three are the encoder's own clock."""

    decode: float = 0.0
    preprocess: float = 0.0
    encode: float = 0.0
    """The tower at work, and bringing its states to the host in the precision of the cache."""
    wait_for_pictures: float = 0.0
    """The encoder idle because no picture was ready."""
    wait_for_cache: float = 0.0
    """The encoder idle because too much waited to be written, and at the end until all of it was."""
    write: float = 0.0
    """The writer's thread at work, beside the others."""

    @property
    def share_waited_for_cache(self) -> float:
        """How much of the encoder's time it waited for the cache, 0 to 1."""
        whole = self.encode + self.wait_for_pictures + self.wait_for_cache
        return self.wait_for_cache / whole if whole else 0.0


@dataclass(frozen=True)
class CacheReport:
    """What one run of `cache_features` did."""

    pictures: int
    """Samples that have a picture."""
    unique: int
    """Different pictures among them, by content, that are in the cache now with all layers."""
    skipped: int
    """Of these, those that were there before."""
    encoded: int
    dropped: int
    """Damaged slabs that were dropped, when asked to verify."""
    layers: tuple[int, ...]
    bytes: int
    """Of the features of the unique pictures at these layers."""
    seconds: float
    workers: int
    """Processes that decoded; 0 stands for threads."""
    times: Times
    odd: tuple[OddPicture, ...]
    """Pictures that were left out or are not seen whole."""

    @property
    def left_out(self) -> tuple[OddPicture, ...]:
        """Pictures that the cache lacks."""
        return tuple(odd for odd in self.odd if odd.left_out)
