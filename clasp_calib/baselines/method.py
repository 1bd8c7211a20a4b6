"""What all peers share: knobs that a budget solves, a context manager that applies them, and a report of the cost.

A *budget* always means equal cost: the mean number of visual tokens that a decoder layer works on. A *native* setting
is the paper's own, under the name that the paper gives it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from torch import nn

from clasp_calib.common.errors import BudgetError, ModelError
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.budgeting import pruning_budget
from clasp_calib.runtime.flops import layer_flops
from clasp_calib.runtime.guard import guarded
from clasp_calib.runtime.mixed_batch import RowActions
from clasp_calib.runtime.schedule import Budget
from clasp_calib.runtime.stages import PromptLengths
from clasp_calib.runtime.stats import PruningStats

DEFAULT = "default"
"""The native setting that the knobs of the instance are."""

Reader = Callable[[], PruningStats | None]


@dataclass(frozen=True)
class Applied:
    """A method at work on a model: its solved knobs, and what the last prefill cost."""

    method: "Method | None"
    """As it came out; ``None`` where nothing is pruned."""
    model: Any = field(repr=False)
    adapter: Adapter = field(repr=False)
    read: Reader = field(repr=False)

    @property
    def stats(self) -> PruningStats | None:
        """Of the last forward that brought pictures; ``None`` before there was one, and where nothing is pruned."""
        return self.read()

    @property
    def native(self) -> dict[str, Any]:
        """The method's own knobs as they came out."""
        return {knob.name: getattr(self.method, knob.name) for knob in fields(self.method)} if self.method else {}

    def decoder_flops(self, text_tokens: int = 0) -> tuple[float, ...]:
        """FLOPs of the decoder layers for the last prefill, row by row; see `layer_flops`.

        Args:
            text_tokens: tokens that stand beside the visual ones.
        """
        text = self.model.config.get_text_config()
        rows = self.stats.tokens if self.stats else ()
        widths = text.hidden_size, text.intermediate_size
        return tuple(sum(layer_flops(n + text_tokens, *widths) for n in row) for row in rows)

    def vision_flops(self) -> float | None:
        """FLOPs of the tower's blocks for one tile, if the method changes them."""
        return self.method.vision_flops(self.model, self.adapter) if self.method else None


@dataclass(frozen=True)
class Method(ABC):
    """A published method with its knobs; ``with method(model, budget=192): model.generate(...)`` applies it."""

    name: ClassVar[str]
    """What it is called in tables and on the command line."""
    paper: ClassVar[str]
    """Where it was published."""
    semantics: ClassVar[str]
    """What the paper's own number of tokens counts."""
    images_only: ClassVar[bool] = False
    """Whether the method cannot run on videos."""
    whole_prompt: ClassVar[bool] = False
    """Whether the method needs all of a prompt in one forward, and none of it in a cache."""
    merges_in_tower: ClassVar[bool] = False
    """Whether the layers of the vision tower differ in their number of tokens, so that they cannot be mixed."""
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Native settings by the paper's name for them, as knobs; `DEFAULT` is always there."""

    @contextmanager
    def __call__(
        self,
        model: nn.Module,
        *,
        budget: str | int | None = None,
        native: str | int | None = None,
        prompt_lengths: PromptLengths = None,
    ) -> Iterator[Applied]:
        """Prune in every ``forward`` and ``generate`` of ``model`` within the ``with`` block.

        Args:
            model: a transformers model that an adapter is known for. Rows must be padded on the left.
            budget: equal cost: visual tokens that a decoder layer works on in the mean (``192``), or a percentage of
                each row's own (``33%``), the only kind where pictures differ in number of tokens.
            native: instead, the paper's own setting by the paper's name, or ``default`` for the knobs as they are.
            prompt_lengths: where answers follow the prompt, see `clasp_calib.runtime.pruner.prune`.

        Raises:
            BudgetError: the budget cannot be met, there is no such native setting, or not exactly one was given.
            ModelError: the model lacks what the method needs, or cannot be pruned.
        """
        adapter = self.adapter_for(model)
        if (budget is None) == (native is None):
            raise BudgetError(
                f"{self.name} was given budget={budget!r} and native={native!r}; "
                "give one of them: budget= for equal cost, native= for the paper's own setting"
            )
        wanted = None if budget is None else pruning_budget(adapter, budget)
        if wanted is not None and wanted.full:
            yield Applied(None, model, adapter, lambda: None)
            return
        method = self.with_native(native) if wanted is None else self.solved(adapter, wanted)
        with method.attached(model, adapter, prompt_lengths) as read, guarded(model, adapter):
            yield Applied(method, model, adapter, read)

    def adapter_for(self, model: nn.Module) -> Adapter:
        """The adapter of a model on which the method can run.

        Raises:
            ModelError: it cannot, for lack of what is named.
        """
        adapter = adapter_for(model)
        if lacking := self.lacks(model, adapter):
            kind = getattr(model.config, "model_type", None)
            raise ModelError(f"{self.name} cannot run on this {kind} model: {lacking}; choose another method or model")
        return adapter

    def with_native(self, native: str | int | None) -> Self:
        """The method with knobs as the paper sets them.

        Raises:
            BudgetError: the paper has no setting of this name.
        """
        settings = {DEFAULT: {}, **self.published}
        if str(native) not in settings:
            raise BudgetError(
                f"{self.name} has no native setting {str(native)!r}; it has {', '.join(settings)}: "
                "choose one of them, or set the knobs yourself and say native='default'"
            )
        return replace(self, **settings[str(native)])

    @abstractmethod
    def solved(self, adapter: Adapter, budget: Budget) -> Self:
        """The method with knobs at which it costs as much as ``budget`` says, which is less than all tokens.

        Raises:
            BudgetError: the budget is under the method's floor, or the knobs have to be solved on images.
        """

    @abstractmethod
    def attached(
        self, model: nn.Module, adapter: Adapter, prompt_lengths: PromptLengths
    ) -> AbstractContextManager[Reader]:
        """Put the method on the model and take it off again; yields what reads its statistics."""

    def actions(self, model: nn.Module, adapter: Adapter) -> RowActions | None:
        """What the method does to a row of a batch whose other rows have other methods.

        ``None``, as here, if it cannot be in one; as must a method with an `attached` of its own, unless it says what
        that does to a row.
        """
        return None

    def lacks(self, model: nn.Module, adapter: Adapter) -> str | None:
        """What of that which the method needs the model does not have; ``None`` if it has all."""
        return None

    def vision_flops(self, model: nn.Module, adapter: Adapter) -> float | None:
        """FLOPs of the tower's blocks for one tile under the method, ``None`` if it leaves them as they are."""
        return None
