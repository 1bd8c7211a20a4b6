"""Options that belong to a choice: given with another choice, they are refused and not ignored."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperOption

from clasp_calib.commands.last_net import traced
from clasp_calib.common.errors import InputError


@dataclass(frozen=True)
class UsedBy:
    """Marks an option, in its annotation, that does something with certain values of another option only.

    Attributes:
        option: the other parameter's name.
        choices: its values; none stands for all that switch it on.
    """

    option: str
    choices: tuple[str, ...]

    def __init__(self, option: str, *choices: str):
        object.__setattr__(self, "option", option)
        object.__setattr__(self, "choices", choices)

    def refuses(self, value: Any) -> bool:
        """Whether the other option has a value with which this one does nothing."""
        return value not in self.choices if self.choices else value in (None, False)

    def told(self, other: str) -> str:
        """The rule, for help and errors; ``other`` is how the other option is written."""
        return f"used by {other} {' or '.join(self.choices)}" if self.choices else f"used with {other} only"


@dataclass(frozen=True)
class UnusedWith:
    """Marks an option that does nothing while another one is switched on."""

    option: str

    def refuses(self, value: Any) -> bool:
        """Whether the other option is switched on."""
        return value not in (None, False)

    def told(self, other: str) -> str:
        """As of `UsedBy`."""
        return f"not used with {other}"


Marker = UsedBy | UnusedWith


class CheckedCommand(TyperCommand):
    """A command that refuses options that the given choices do not use, and says in its help who uses them."""

    def __init__(self, *words: Any, **options: Any):
        super().__init__(*words, **options)
        self.markers = markers_of(self.callback)
        """Parameter name -> its markers."""
        for parameter in self.params:
            markers = self.markers.get(parameter.name or "", ())
            told = "; ".join(marker.told(self._written(marker.option)) for marker in markers)
            if told and isinstance(parameter, TyperOption):
                parameter.help = f"{(parameter.help or '').removesuffix('.')} ({told})."

    def invoke(self, ctx: Any) -> Any:
        """Check, then call the function.

        Raises:
            InputError: an option was given that does nothing here.
        """
        # A variable of the environment is not meant for this command alone.
        given = [name for name in self.markers if _given(ctx, name)]
        pairs = [(name, marker) for name in given for marker in self.markers[name]]
        told = [self._complaint(*pair, ctx.params[pair[1].option]) for pair in pairs]
        if complaints := list(filter(None, told)):
            raise InputError("; ".join(complaints))
        with traced(ctx.params.get("run")):
            return super().invoke(ctx)

    def _complaint(self, name: str, marker: Marker, value: Any) -> str:
        """What is wrong with giving an option, if anything is."""
        if not marker.refuses(value):
            return ""
        own, other = self._written(name), self._written(marker.option)
        if isinstance(marker, UnusedWith):
            advice = f"remove {own} or {other}"
        elif marker.choices:
            advice = f"and {other} is {value}: remove {own}, or choose another {other}"
        else:
            advice = f"remove {own}, or add {other}"
        return f"{own} is {marker.told(other)}; {advice}"

    def _written(self, name: str) -> str:
        """How a parameter is written on the command line."""
        parameter = next(parameter for parameter in self.params if parameter.name == name)
        return max(parameter.opts, key=len) if isinstance(parameter, TyperOption) else name.upper()


def _given(ctx: Any, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


class CheckedTyper(typer.Typer):
    """A group whose commands are `CheckedCommand`."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        """As of ``typer.Typer``."""
        return super().command(name, **{"cls": CheckedCommand, **options})


def markers_of(function: Any) -> dict[str, list[Marker]]:
    """Parameter name -> markers in its annotation, of those that have any."""
    hints = get_type_hints(getattr(function, "__wrapped__", function), include_extras=True)
    found = {name: [part for part in get_args(hint) if isinstance(part, Marker)] for name, hint in hints.items()}
    return {name: markers for name, markers in found.items() if markers}
