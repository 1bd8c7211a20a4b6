"""Samples whose pictures are shown smaller than they are, where candidates say so."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

from clasp_calib.baselines.downsampling import DownSampling, PictureSizes
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.common.errors import InputError
from clasp_calib.common.media import Media
from clasp_calib.common.samples import Sample
from clasp_calib.common.selector_choice import SelectorChoice


class Sizes:
    """Shows samples in several sizes; what was asked for before is not found out again.

    Args:
        model: what they are shown to.
        processor: the model's.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.pictures = PictureSizes(model, processor)
        self._known: dict[tuple[Media, float], Media] = {}

    def shown(self, sample: Sample, share: float | None) -> Sample:
        """The sample with its pictures made smaller, until each has at most a share of its tokens.

        Raises:
            BudgetError: a picture cannot be made small enough.
            InputError: it cannot be read, or is a video.
        """
        if share is None:
            return sample
        if sample.modality == "video":
            raise InputError(
                f"the sample {sample.id!r} has a video, which is shown in one size only, and pictures are to be made "
                "smaller (downsample); leave it out, or take downsample out of the space"
            )
        return replace(sample, image=[self._smaller(one.picture, share) for one in sample.alone])

    def _smaller(self, picture: Media, share: float) -> Media:
        if (picture, share) not in self._known:
            self._known[picture, share] = _to(share).shown(self.pictures, picture)
        return self._known[picture, share]


def alike(candidates: Sequence[Candidate]) -> dict[tuple[float | None, SelectorChoice | None], list[int]]:
    """Which candidates can share a forward: those of one size of pictures, and of one selector."""
    found: dict[tuple[float | None, SelectorChoice | None], list[int]] = {}
    for place, candidate in enumerate(candidates):
        found.setdefault((candidate.downsample, candidate.selector), []).append(place)
    return found


def in_every_size(model: Any, processor: Any, samples: Sequence[Sample], shares: Iterable[float]) -> list[Sample]:
    """Samples as they are, and then shown smaller for every share; see `in_sizes_of`."""
    every = tuple(shares)
    return in_sizes_of(model, processor, samples, lambda _: every)


def in_sizes_of(
    model: Any, processor: Any, samples: Sequence[Sample], shares: Callable[[Sample], Iterable[float]]
) -> list[Sample]:
    """Samples as they are, and then shown smaller for every share of theirs.

    Raises:
        BudgetError: a picture cannot be made small enough.
        InputError: a picture cannot be read, or is a video.
        ModelError: pictures of the model have as many tokens in every size.
    """
    sizes, found, asked = Sizes(model, processor), list(samples), dict[float, list[Sample]]()
    for sample in samples:
        for share in shares(sample):
            asked.setdefault(share, []).append(sample)
    for share, of in sorted(asked.items(), key=itemgetter(0)):
        how = _to(share).solved(model, _percent(share))
        images = [sample for sample in of if sample.modality == "image"]
        how.check(sizes.pictures, (one.picture for sample in images for one in sample.alone))
        found += [sizes.shown(sample, share) for sample in of]
    return found


def _to(share: float) -> DownSampling:
    return DownSampling(keep=_percent(share))


def _percent(share: float) -> str:
    return f"{100 * share:.6g}%"
