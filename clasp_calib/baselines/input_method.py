"""What methods share that decide before the decoder: an image's budget, tile by tile, and the way into the decoder."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from clasp_calib.baselines.choosing import proportional
from clasp_calib.baselines.method import Method, Reader
from clasp_calib.common.errors import ModelError
from clasp_calib.common.pruning_options import COMPACT, KEEP
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.checks import check_decoder, positions_on
from clasp_calib.runtime.encoding import Encoded, Kept, chosen_tokens, marked
from clasp_calib.runtime.entry import Entry
from clasp_calib.runtime.gates import Marked
from clasp_calib.runtime.mixed_batch import RowActions
from clasp_calib.runtime.schedule import Budget, parse_budget
from clasp_calib.runtime.stages import PromptLengths


@dataclass(frozen=True)
class ChoosesAtInput(Method):
    """A method that decides before the decoder which tokens enter it."""

    images_only: ClassVar[bool] = True
    by_tile: ClassVar[bool] = True
    """Whether the tiles of an image are pruned each by itself, as authors do, or all together."""
    in_order: ClassVar[bool] = True
    """Whether what goes on keeps the order of the whole picture, line by line across its tiles, and not its own."""
    attends: ClassVar[bool] = False
    """Whether the method looks at the attention of the block that makes the projected state."""

    def tower_blocks(self, adapter: Adapter) -> tuple[int, ...]:
        """Blocks of the tower whose attention the method looks at."""
        return (adapter.attention_block,) if self.attends else ()

    @abstractmethod
    def kept(self, image: Encoded, token_P: Tensor, count: int) -> Kept:
        """What of some patches goes on, and in which order.

        Args:
            image: the whole image.
            token_P: the tokens to choose from: those of one tile, or of all tiles if not ``by_tile``; long, rising.
            count: how many go on; at least 1, and fewer than there are. Another number is refused.
        """

    @abstractmethod
    def count(self, image: Encoded) -> int:
        """How many tokens of an image go on: at least 1."""

    def allot(self, image: Encoded, tiles: Sequence[Tensor], count: int) -> list[int]:
        """How many tokens of each tile go on: in proportion to what it shows.

        Our choice: authors keep as many of every tile, also of one that is cut off at the picture's edge.
        """
        return proportional([len(token_P) for token_P in tiles], count)

    def choose(self, image: Encoded) -> Kept:
        """What of an image goes on. Tokens that end lines are no patches; they go first.

        Raises:
            ModelError: another number of tokens than were to go on.
        """
        tiles = image.patches()
        tiles = tiles if self.by_tile else [torch.cat(tiles).sort().values]
        wanted = self.count(image)
        counts = self.allot(image, tiles, wanted)
        parts = [
            self._exactly(image, token_P, count) if count < len(token_P) else Kept(token_P)
            for token_P, count in zip(tiles, counts, strict=True)
            if count
        ]
        spare = wanted - sum(map(len, tiles))
        if spare > 0:
            ends_N = (image.layout.cell_N < 0).nonzero().flatten().to(image.features_ND.device)
            parts = [Kept(torch.cat([*tiles, ends_N[:spare]]).sort().values)]
        kept = _together(image, parts)
        return _sorted(kept) if self.in_order else kept

    def _exactly(self, image: Encoded, token_P: Tensor, count: int) -> Kept:
        kept = self.kept(image, token_P, count)
        if len(kept.place_T) != count:
            raise ModelError(
                f"{self!r} kept {len(kept.place_T)} of {len(token_P)} tokens and was to keep {count}; change its "
                "knobs, or choose another method"
            )
        return kept

    @contextmanager
    def attached(self, model: nn.Module, adapter: Adapter, prompt_lengths: PromptLengths) -> Iterator[Reader]:
        """See `Method`."""
        positions = _positions(model)
        entry, in_place = Entry(model, adapter, positions), positions == KEEP
        choose, blocks = entry.timed(self.choose), self.tower_blocks(adapter)
        with chosen_tokens(model, adapter, blocks, choose, in_place), entry.attached():
            yield lambda: entry.stats

    def actions(self, model: nn.Module, adapter: Adapter) -> RowActions | None:
        """See `Method`."""
        if type(self).attached is not ChoosesAtInput.attached:
            return None
        return RowActions(self.choose, self.tower_blocks(adapter))

    def marked(self, model: nn.Module, image: Encoded) -> Tensor:
        """The features of an image with all that does not go on marked, for `on_marked`; [N, D].

        Args:
            model: what they are for.
            image: whose attention is known as far as the method looks at it.
        """
        return marked(image, self.choose(image), in_place=_positions(model) == KEEP)

    @contextmanager
    def on_marked(self, model: nn.Module, adapter: Adapter) -> Iterator[Reader]:
        """The same as `attached` where pictures are given as features that `marked` made."""
        entry = Entry(model, adapter, _positions(model), Marked(adapter, given=True))
        with entry.attached():
            yield lambda: entry.stats


def _positions(model: nn.Module) -> str:
    """What happens to the position ids of what enters: all papers let them be numbered anew.

    Raises:
        ModelError: the decoder attends with a sliding window.
    """
    positions = positions_on(model, COMPACT)
    check_decoder(model, positions)
    return positions


@dataclass(frozen=True)
class InputMethod(ChoosesAtInput):
    """One that lets in as many tokens of every image, so that all layers work on as many."""

    semantics: ClassVar[str] = "tokens that enter the decoder"

    keep: str = "25%"
    """Tokens that an image keeps: a number, or a percentage of its own."""

    def __post_init__(self) -> None:
        parse_budget(self.keep)

    def solved(self, adapter: Adapter, budget: Budget) -> Self:
        """The budget is what enters: every layer works on that."""
        return replace(self, keep=budget.name)

    def count(self, image: Encoded) -> int:
        """What ``keep`` says, halves up."""
        tokens = len(image.layout.cell_N)
        return min(max(int(parse_budget(self.keep).of(tokens) + 0.5 + 1e-9), 1), tokens)


def _sorted(kept: Kept) -> Kept:
    """The same in the order of places."""
    order_T = kept.place_T.argsort(stable=True)
    states_TC, features_TD = (None if of is None else of[order_T] for of in (kept.states_TC, kept.features_TD))
    return Kept(kept.place_T[order_T], states_TC=states_TC, features_TD=features_TD)


def _together(image: Encoded, parts: Sequence[Kept]) -> Kept:
    """The parts of an image one after the other."""
    place_T = torch.cat([part.place_T for part in parts])
    if any(part.states_TC is not None for part in parts):
        own = [image.states_UC[image.cells(part.place_T)] for part in parts]
        states = [part.states_TC if part.states_TC is not None else mine for part, mine in zip(parts, own, strict=True)]
        return Kept(place_T, states_TC=torch.cat([state.to(image.states_UC.dtype) for state in states]))
    if any(part.features_TD is not None for part in parts):
        features = [image.features_ND[part.place_T] if part.features_TD is None else part.features_TD for part in parts]
        return Kept(place_T, features_TD=torch.cat(features))
    return Kept(place_T)
