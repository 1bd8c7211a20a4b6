"""The strategies by name."""

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from clasp_calib.common.errors import InputError
from clasp_calib.search.strategies.grid import Grid
from clasp_calib.search.strategies.halving import Halving
from clasp_calib.search.strategies.pooled import Pooled
from clasp_calib.search.strategies.race import Race
from clasp_calib.search.strategies.strategy import Strategy
from clasp_calib.search.strategies.tpe import TPE
from clasp_calib.search.strategies.two_step import TwoStep

STRATEGIES: Mapping[str, type[Any]] = {
    "pooled": Pooled,
    "race": Race,
    "grid": Grid,
    "tpe": TPE,
    "two-step": TwoStep,
    "halving": Halving,
}
"""By the name that the command line gives them."""
AUTO_POOLED_SAMPLES = 2000
"""Samples of a class, on average, above which a race is taken. Up to there it was nowhere cheaper than `Pooled` at the
same regret, on a few simulated tables."""


def fitting(samples: Collection[int]) -> Strategy:
    """The strategy that suits so many samples of each class."""
    return Pooled() if sum(samples) <= AUTO_POOLED_SAMPLES * len(samples) else Race()


def strategy_of(name: str, **settings: Any) -> Strategy:
    """The strategy of a name, with those of the settings that are not ``None``.

    Raises:
        InputError: there is none of this name, or it lacks one of the settings.
    """
    if name not in STRATEGIES:
        raise InputError(f"unknown strategy {name!r}; expected one of {', '.join(STRATEGIES)}")
    kind = STRATEGIES[name]
    given = {setting: value for setting, value in settings.items() if value is not None}
    if others := sorted(set(given) - {field.name for field in fields(kind)}):
        raise InputError(f"the strategy {name} does not use {', '.join(others)}; leave out what it does not use")
    strategy: Strategy = kind(**given)
    return strategy


def name_of(strategy: Strategy) -> str:
    """The name of a strategy."""
    (name,) = [name for name, kind in STRATEGIES.items() if type(strategy) is kind]
    return name


def describe(strategy: Strategy) -> str:
    """One line that says which strategy with which settings."""
    settings = {setting: value for setting, value in vars(strategy).items() if value is not None}
    return ", ".join([name_of(strategy), *(f"{setting} {value:g}" for setting, value in settings.items())])
