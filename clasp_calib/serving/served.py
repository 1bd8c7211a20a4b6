"""What an artifact serves before a decoder, in numbers that reach a server's workers in the model's configuration.

N visual tokens of a picture, K of them kept, U cells of it (see `clasp_calib.runtime.adapters.layout.Layout`), T tokens
that are one picture to a tower, C their width, L its states, D width of the decoder.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from clasp_calib.common.errors import InputError
from clasp_calib.common.pruning_options import NONE
from clasp_calib.common.selector_choice import SelectorChoice
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.adapters.layout import Layout
from clasp_calib.runtime.encoding import Encoded, Kept
from clasp_calib.runtime.fusion import fuse
from clasp_calib.runtime.schedule import parse_budget
from clasp_calib.runtime.selection import DualStage, gram_matrix
from clasp_calib.runtime.selectors import actions_at_input, kept_at_input, selector_of


@dataclass(frozen=True)
class ServedEntry:
    """What a class gets at a budget.

    Attributes:
        layers: states with a weight, counted from 0, what enters the first block of the tower.
        weights: of these states; they sum to 1.
        relevance: what rates tokens.
        counts: so many of so many tokens stay, and of another number in proportion; ``None``: a ``share`` of them.
        selector: what chooses in the place of the dual-stage selection: its name and its knobs.
    """

    budget: str
    label: str
    layers: tuple[int, ...]
    weights: tuple[float, ...]
    rho: float
    seeding: str
    relevance: str
    counts: tuple[int, int] | None
    share: float
    selector: tuple[str, Mapping[str, Any]] | None = None

    @cached_property
    def method(self) -> Any:
        """The `clasp_calib.runtime.selectors.TokenSelector`, if one chooses.

        Raises:
            ClaspError: see `clasp_calib.runtime.selectors.selector_of`.
        """
        return None if self.selector is None else selector_of(SelectorChoice.of(*self.selector))

    def kept(self, tokens: int) -> int:
        """K of a picture of ``tokens`` visual tokens; at least one."""
        if self.method is not None:
            return kept_at_input(self.method, tokens)
        if self.counts is not None:
            count, of = self.counts
            return max(count * tokens // of, min(tokens, 1))
        return max(int(self.share * tokens + 0.5 + 1e-9), min(tokens, 1))

    def blocks(self, adapter: Adapter) -> tuple[int, ...]:
        """Blocks of the tower whose attention is looked at."""
        if self.method is not None:
            return actions_at_input(self.method, adapter).blocks
        return () if self.relevance == NONE else (adapter.attention_block,)


@dataclass(frozen=True)
class ServedArtifact:
    """An artifact as it is served.

    Attributes:
        artifact: where it is to be had, as it was given.
        place: the directory that it was read from, on the machine that was started.
        digest: its id.
        budget: what a request gets that names none.
        label: the class of every request that names none; ``None``: its question decides.
        iterations: of k-means.
        entries: of every budget and class, one budget after the other.
    """

    artifact: str
    place: str
    digest: str
    budget: str
    label: str | None
    iterations: int
    entries: tuple[ServedEntry, ...]

    @classmethod
    def of(cls, config: Any) -> "ServedArtifact | None":
        """What was put into a model's configuration by `to_dict`; ``None`` if nothing was."""
        given = getattr(config, "clasp", None)
        if not isinstance(given, ServedDict):
            return None
        return cls(**{**given, "entries": tuple(ServedEntry(**entry) for entry in map(_as_made, given["entries"]))})

    def to_dict(self) -> "ServedDict":
        """The same in plain values, which go wherever a configuration goes."""
        return ServedDict(asdict(self))

    @cached_property
    def mark(self) -> int:
        """What stands for the artifact where only numbers travel."""
        return int(self.digest[:15], 16)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """In the artifact's order."""
        return tuple(dict.fromkeys(entry.label for entry in self.entries))

    @cached_property
    def budgets(self) -> tuple[str, ...]:
        """In the artifact's order."""
        return tuple(dict.fromkeys(entry.budget for entry in self.entries))

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """States that some mixture holds, rising."""
        return tuple(sorted({layer for entry in self.entries for layer in entry.layers}))

    def entry_index(self, label: str, budget: str | int | None = None) -> int:
        """Which entry a request gets.

        Raises:
            BudgetError: that is no budget.
            InputError: the artifact has no such class or budget.
        """
        name = self.budget if budget is None else parse_budget(budget).name
        for what, value, known in (("class", label, self.classes), ("budget", name, self.budgets)):
            if value not in known:
                raise InputError(
                    f"the artifact that is served has no {what} {value!r:.100}; expected one of {', '.join(known)}"
                )
        return self.budgets.index(name) * len(self.classes) + self.classes.index(label)

    def largest_entry(self, tokens: int = 1 << 16) -> int:
        """The number of the entry that keeps the most of so many tokens."""
        sizes = [entry.kept(tokens) for entry in self.entries]
        return sizes.index(max(sizes))

    def mixed(self, states: Mapping[int, Tensor], number: int) -> Tensor:
        """The mixture of an entry [.., C], from the states [.., C] of one picture by their numbers."""
        entry = self.entries[number]
        states_1LTC = torch.stack([states[layer].flatten(0, -2) for layer in entry.layers])[None]
        mixed_1TC = fuse(states_1LTC, torch.tensor([entry.weights], dtype=torch.float64))
        return mixed_1TC[0].view(states[entry.layers[0]].shape)

    def chosen(
        self, image: Encoded, adapter: Adapter, number: int, spread: Callable[[Tensor], Tensor] | None = None
    ) -> Kept:
        """What of a picture stays, K tokens.

        One picture at a time: what else is in a batch must not decide between near ties, since a server encodes a
        picture again and goes on from what its cache holds of the first time.

        Args:
            image: with the attention of the entry's `blocks`.
            adapter: of the model.
            number: of the entry.
            spread: from a number for every cell [U] to one for every token [N]; by the picture's layout if ``None``.
        """
        entry, tokens = self.entries[number], len(image.layout.cell_N)
        device, kept = image.features_ND.device, entry.kept(tokens)
        if kept == tokens:
            return Kept(torch.arange(tokens, device=device))
        if entry.method is not None:
            choose = actions_at_input(entry.method, adapter).choose
            assert choose is not None
            return choose(image)
        relevance_N = torch.ones(tokens, device=device)
        if image.attention:
            (attention,) = image.attention.values()
            relevance_U = attention.relevance(entry.relevance)
            relevance_N = spread(relevance_U) if spread else _by_layout(relevance_U, image.layout)
        rho_1 = torch.tensor([entry.rho if image.attention else 0.0], dtype=torch.float64)
        select = DualStage(self.iterations, (entry.seeding,), needs_gram=bool((rho_1 < 1).any()))
        gram_1NN = gram_matrix(image.features_ND[None]) if select.needs_gram else None
        valid_1N = torch.ones(1, tokens, dtype=torch.bool, device=device)
        selection = select(relevance_N[None], gram_1NN, torch.tensor([kept]), rho_1, valid_1N)
        return Kept(selection.keep_BN[0].nonzero().flatten())


class ServedDict(dict[str, Any]):
    """A `ServedArtifact` in plain values. A model's own ``config.json`` cannot hold one."""


def _by_layout(values_U: Tensor, layout: Layout) -> Tensor:
    """Tokens that stand for no cell get 0."""
    cell_N = layout.cell_N.to(values_U.device)
    return torch.where(cell_N < 0, 0, values_U[cell_N])


def _as_made(entry: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}


def blocks_of(entries: Iterable[ServedEntry], adapter: Adapter) -> list[int]:
    """Blocks of the tower whose attention some of the entries look at, rising."""
    return sorted({block for entry in entries for block in entry.blocks(adapter)})
