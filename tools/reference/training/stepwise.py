"""Steps that anyone can prepare: ahead of time, in another process, or once more after a kill."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

Prepared = TypeVar("Prepared", bound=tuple[Any, ...])


def draws(seed: int, step: int) -> tuple[random.Random, torch.Generator]:
    """The random numbers of one step, for Python and for torch: no step's depend on another's."""
    draw = random.Random(f"{seed}-{step}")
    return draw, torch.Generator().manual_seed(draw.randrange(2**60))


def to_device(prepared: Prepared, device: torch.device) -> Prepared:
    """The same named tuple, with the tensors in it on a device."""
    return type(prepared)(*(p.to(device) if isinstance(p, torch.Tensor) else to_device(p, device) for p in prepared))


class Steps(Dataset[Prepared], ABC, Generic[Prepared]):
    """What the steps of a stage are trained on: named tuples of tensors and of other such tuples, on the CPU."""

    @abstractmethod
    def __getitem__(self, step: int) -> Prepared:
        """One step."""

    def over(self, steps: range, device: torch.device, workers: int) -> Iterator[Prepared]:
        """The steps in their order, prepared by so many processes (none: by this one), on a device."""
        loader: DataLoader[Prepared] = DataLoader(
            self,
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            generator=torch.Generator(),  # Else the loader would draw on torch's own.
        )
        for prepared in loader:
            yield to_device(prepared, device)
