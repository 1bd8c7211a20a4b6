"""A budget on the samples of a search: its stages, and what they leave of each picture."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from statistics import fmean
from typing import Any

from clasp_calib.common.errors import BudgetError
from clasp_calib.common.progress import track
from clasp_calib.common.samples import Sample
from clasp_calib.common.token_range import TokenRange
from clasp_calib.runtime.budgeting import of_smaller
from clasp_calib.runtime.flops import decoder_flops
from clasp_calib.runtime.layer_tokens import layer_tokens, tokens_a_layer
from clasp_calib.runtime.schedule import AnySchedule, Budget, Schedule


@dataclass(frozen=True)
class Allotment:
    """What a budget allots to the pictures of a model.

    Attributes:
        budget: as it was asked for.
        schedule: its stages.
        tokens: visual tokens of every sample's picture.
    """

    budget: Budget
    schedule: AnySchedule
    tokens: tuple[int, ...]

    @cached_property
    def a_layer(self) -> TokenRange:
        """Visual tokens that a decoder layer works on."""
        return tokens_a_layer(self.schedule, self.tokens)

    @property
    def counts(self) -> tuple[int, ...] | None:
        """Tokens kept at the stages; ``None`` where pictures differ, and each has its own."""
        return self.schedule.counts if isinstance(self.schedule, Schedule) else None

    @property
    def mean_tokens(self) -> float:
        """That a layer works on: of one picture where all have as many, else of a sample in the mean."""
        return self.schedule.mean_tokens if isinstance(self.schedule, Schedule) else self.a_layer.mean

    @property
    def setting(self) -> Mapping[str, Any]:
        """All that scores depend on."""
        if isinstance(self.schedule, Schedule):
            names: tuple[str, ...] = ("tokens", "layers", "starts", "counts")
            return {name: getattr(self.schedule, name) for name in names}
        return {"budget": self.budget.name, "layers": self.schedule.layers, "starts": self.schedule.starts}

    @property
    def told(self) -> Mapping[str, Any]:
        """What a plan says of it."""
        if self.counts is not None:
            return {"stage counts": list(self.counts), "mean tokens": round(self.mean_tokens, 2)}
        return {"visual tokens": str(TokenRange.of(self.tokens)), "mean tokens": str(self.a_layer)}

    def flops(self, config: Any) -> float:
        """Of the decoder layers in the prefill of a picture, in the mean; ``config`` is the text model's."""
        sizes = config.hidden_size, config.intermediate_size
        of = {tokens: decoder_flops(layer_tokens(self.schedule, tokens), *sizes) for tokens in set(self.tokens)}
        return fmean(of[tokens] for tokens in self.tokens)


def allotted(
    budget: Budget,
    schedule: AnySchedule,
    samples: Sequence[Sample],
    tokens: Callable[[Sample, float | None], int],
    shares: Iterable[float] = (),
) -> Allotment:
    """The budget on these samples, of which candidates may show the pictures smaller.

    Args:
        budget: as it was asked for.
        schedule: its stages.
        samples: of a search.
        tokens: visual tokens of a sample's picture, shown with a share of them at most.
        shares: those that candidates ask for.

    Raises:
        BudgetError: a picture has too few tokens for it, in its own size or a smaller one.
    """
    counted = track(samples, "counting tokens", len(samples))
    made = Allotment(budget, schedule, tuple(tokens(sample, None) for sample in counted))
    _check_enough(made, samples, "")
    for share in shares:
        smaller = Allotment(budget, of_smaller(schedule, share), tuple(tokens(sample, share) for sample in samples))
        _check_enough(smaller, samples, f"with downsample {share:g} ")
    return made


def _check_enough(made: Allotment, samples: Sequence[Sample], shown: str) -> None:
    try:
        _ = made.a_layer
    except BudgetError as error:
        tokens, fewest = min(zip(made.tokens, samples, strict=True), key=itemgetter(0))
        raise BudgetError(
            f"the picture of sample {fewest.id!r} {shown}becomes {tokens} visual tokens: {error}; "
            f"or {'take downsample out of the space, or ' if shown else ''}leave samples with such small pictures out"
        ) from error
