"""What is done at a time, whoever does it: a task, and the tool that it is done with.

A task is done in one piece, so that a result does not depend on how many workers there are; it does depend, in its last
bits, on how many threads each of them computes with.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, Protocol, Self, TypeVar

from clasp_calib.common.containing import contained

ATTEMPTS = 3
"""How often a task is given to new workers when those before it died. Our choice: a machine that kills them for their
memory would kill them for ever."""

Tool = TypeVar("Tool")
Tool_contra = TypeVar("Tool_contra", contravariant=True)
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Task(Protocol[Tool_contra, Result_co]):
    """Some work, which can be pickled, as its result can."""

    def done_with(self, tool: Tool_contra) -> Result_co:
        """Do it."""
        ...


class ToolRecipe(Protocol):
    """What another process needs to make the tool of this one; can be pickled and hashed."""

    def __hash__(self) -> int:
        """Equal recipes make equal tools."""
        ...

    @property
    def device(self) -> str:
        """Of torch, where the tool computes."""
        ...

    @property
    def threads(self) -> int:
        """That torch computes with."""
        ...

    def on(self, device: str) -> Self:
        """The same for another device."""
        ...

    def made(self) -> Any:
        """The tool."""
        ...


class Workers(Protocol):
    """Do tasks, all with tools that are alike."""

    count: int

    def do(self, tasks: "Sequence[Task[Any, Result]]") -> Iterator[tuple[int, Result]]:
        """Each task's number with its result, as they come."""
        ...

    def close(self) -> None:
        """No more tasks will come."""
        ...


@dataclass(frozen=True)
class Together(Generic[Tool, Result]):
    """Tasks that one worker does one after the other, since they share some of the work."""

    tasks: "tuple[Task[Tool, Result], ...]"

    def done_with(self, tool: Tool) -> list[Result]:
        """Their results, in order."""
        return [task.done_with(tool) for task in self.tasks]


def do_by_recipe(recipe: ToolRecipe, task: Task[Any, Result]) -> Result:
    """Do a task in a worker, which makes its tool for its first task and keeps it."""
    with contained("making the tool of a worker"):
        tool = _tool(recipe)
    return task.done_with(tool)


@lru_cache(maxsize=1)
def _tool(recipe: ToolRecipe) -> Any:
    return recipe.made()
