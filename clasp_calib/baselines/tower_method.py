"""What methods share that merge tokens inside the vision tower: solving for its blocks, and reading its result."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, ClassVar, Self

from torch import nn

from clasp_calib.baselines.mechanisms.merging import Merge, MergingTower, merging_tower
from clasp_calib.baselines.method import Method, Reader
from clasp_calib.common.errors import BudgetError
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.checks import check_decoder
from clasp_calib.runtime.encoding import Encoded, Kept, chosen_tokens
from clasp_calib.runtime.entry import Entry
from clasp_calib.runtime.flops import tower_flops
from clasp_calib.runtime.schedule import Budget
from clasp_calib.runtime.stages import PromptLengths


@dataclass(frozen=True)
class TowerMethod(Method):
    """A method that merges tokens in some blocks of a CLIP tower, for pictures that are one tile.

    What is left enters the decoder in the tower's order, renumbered. Blocks after the projected state run as well, as
    in transformers, on what is left.
    """

    images_only: ClassVar[bool] = True
    merges_in_tower: ClassVar[bool] = True
    semantics: ClassVar[str] = "tokens that a block of the tower merges away"
    proportional: ClassVar[bool] = False
    """Whether a merged token is attended to as if it were as many as it stands for."""
    halves: ClassVar[bool] = False
    """Whether a block can merge no more than half of its patches away."""

    rate: float
    """Tokens that every block merges away in the mean; the first blocks have what cannot be shared evenly."""

    def lacks(self, model: nn.Module, adapter: Adapter) -> str | None:
        """See `Method`."""
        if not (adapter.class_tokens and adapter.laid_out):
            return "its vision tower is not a CLIP, whose blocks are the ones that can merge here"
        if adapter.ragged:
            return "tiles are cut to the picture's shape after the tower, where merged tokens have no place any more"
        kernel = str(getattr(adapter.vision_tower(model).config, "_attn_implementation", ""))
        if self.proportional and "flash" in kernel:
            return f"{kernel} takes no bias for what merged tokens stand for (set the tower's attention to sdpa)"
        return None

    @abstractmethod
    def blocks(self, adapter: Adapter) -> range:
        """The blocks that merge, from 0; none after the projected state."""

    @abstractmethod
    def merge(self, count: int, side: int) -> Merge:
        """What a block does that merges ``count`` tokens away, of an image of ``side`` times ``side`` patches."""

    def steps(self, adapter: Adapter) -> dict[int, int]:
        """How many tokens each block merges away.

        Raises:
            BudgetError: they cannot.
        """
        blocks, tokens = self.blocks(adapter), patches_of(adapter)
        counts = even_steps(len(blocks), round(self.rate * len(blocks)), tokens, self.halves)
        return dict(zip(blocks, counts, strict=True))

    def solved(self, adapter: Adapter, budget: Budget) -> Self:
        """The budget is what is left of an image: every layer works on that."""
        tokens = patches_of(adapter)
        left = max(int(budget.of(tokens) + 0.5 + 1e-9), 1)
        method = replace(self, rate=(tokens - left) / max(len(self.blocks(adapter)), 1))
        method.steps(adapter)
        return method

    def vision_flops(self, model: nn.Module, adapter: Adapter) -> float:
        """See `Method`."""
        config: Any = adapter.vision_tower(model).config
        steps, whole = self.steps(adapter), patches_of(adapter) + adapter.class_tokens
        left = list(accumulate((-steps.get(block, 0) for block in range(adapter.vision_layers)), initial=whole))
        return tower_flops(config, left[:-1], left[1:])

    @contextmanager
    def attached(self, model: nn.Module, adapter: Adapter, prompt_lengths: PromptLengths) -> Iterator[Reader]:
        """See `Method`."""
        side = int(patches_of(adapter) ** 0.5)
        merges = {block: self.merge(count, side) for block, count in self.steps(adapter).items() if count}
        if not merges:
            yield lambda: None
            return
        check_decoder(model, "compact")
        entry = Entry(model, adapter, "compact")
        with merging_tower(model, adapter, merges, self.proportional) as tower:
            rows = _Rows(tower)
            with chosen_tokens(model, adapter, (), rows.next, in_place=False), entry.attached():
                yield lambda: entry.stats


def patches_of(adapter: Adapter) -> int:
    """Patches of a picture that is one tile."""
    patches = adapter.patch_tokens
    assert patches is not None, "a model whose pictures differ in shape is refused, see lacks"
    return patches


class _Rows:
    """Images in the order in which the tower had them."""

    def __init__(self, tower: MergingTower) -> None:
        self._tower = tower
        self._row, self._run = 0, 0

    def next(self, image: Encoded) -> Kept:
        """What is left of an image, in the tower's order; the class token is not among it."""
        tokens = self._tower.tokens
        assert tokens is not None
        self._row = self._row + 1 if self._run == self._tower.runs else 0
        self._run = self._tower.runs
        return Kept(tokens.place_Rt[self._row, 1:], features_TD=image.features_ND)


def even_steps(blocks: int, total: int, tokens: int, halves: bool) -> list[int]:
    """``total`` merges shared between blocks, as evenly as can be, the last ones having one less if need be.

    Args:
        blocks: how many merge.
        total: merges in all.
        tokens: patches that enter the first block.
        halves: whether a block can merge no more than half of its patches away; all but one otherwise.

    Raises:
        BudgetError: so many cannot be merged.
    """

    def made(rate: int) -> Sequence[int]:
        counts, left = [], tokens
        for _ in range(blocks):
            counts.append(min(rate, left // 2 if halves else left - 1))
            left -= counts[-1]
        return counts

    rate = next((rate for rate in range(tokens + 1) if sum(made(rate)) >= total), None)
    if rate is None:
        raise BudgetError(
            f"{blocks} blocks of the tower can merge {tokens} patches down to {tokens - sum(made(tokens))}, which is "
            f"the floor, and were to leave {tokens - total}; give a larger budget"
        )
    counts = list(made(rate))
    for index in reversed(range(blocks)):
        if counts[index] and sum(counts) > total:
            counts[index] -= 1
    return counts
