"""A tower of vLLM's watched as it runs, and a mixture of its states in the place of the last one.

P patches of a picture, C width of the tower, N tokens that its merger makes of them, D their width.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from clasp_calib.runtime.adapters.towers import replaced

Mix = Callable[[Mapping[int, Tensor]], Tensor]
"""From states [P, 1, C] by their numbers to what is merged."""


class _Block(nn.Module):
    """Notes what enters a block, and what it is told besides."""

    def __init__(self, block: nn.Module, note: Callable[[Tensor, Mapping[str, Any]], None]) -> None:
        super().__init__()
        self.block, self._note = block, note

    def forward(self, entering: Tensor, **told: Any) -> Any:
        self._note(entering, told)
        return self.block(entering, **told)


class _Merger(nn.Module):
    """Merges something else than it is given."""

    def __init__(self, merger: nn.Module, instead: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.merger, self._instead = merger, instead

    def forward(self, last: Tensor) -> Any:
        return self.merger(self._instead(last))


@contextmanager
def mixed_states(
    tower: nn.Module, wanted: Collection[int], mix: Mix
) -> Iterator[tuple[dict[int, Tensor], dict[int, Mapping[str, Any]]]]:
    """Let a tower with ``blocks`` and a ``merger`` merge a mixture of its states.

    Args:
        tower: runs within the ``with`` block.
        wanted: states, counted from 0, what enters the first block.
        mix: of the states that are wanted, and the last.

    Returns:
        States [P, 1, C] and what the block that each enters is told besides, by their numbers, once the tower has run.
    """
    blocks: Any = tower.get_submodule("blocks")
    states: dict[int, Tensor] = {}
    told: dict[int, Mapping[str, Any]] = {}

    def watched(number: int, block: nn.Module) -> nn.Module:
        def note(entering: Tensor, besides: Mapping[str, Any]) -> None:
            # vLLM's norms write into what they are given.
            states[number], told[number] = entering.clone(), besides

        return _Block(block, note)

    def instead(last: Tensor) -> Tensor:
        states[len(blocks)] = last
        return mix(states)

    seen = [watched(number, block) if number in wanted else block for number, block in enumerate(blocks)]
    with ExitStack() as undo:
        undo.enter_context(replaced(tower, "blocks", nn.ModuleList(seen)))
        undo.enter_context(replaced(tower, "merger", _Merger(tower.get_submodule("merger"), instead)))
        yield states, told
