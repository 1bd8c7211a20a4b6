"""Options of a strategy, an engine, a backend or a mode are refused where another one is chosen."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest
import typer
from typer.core import TyperOption
from typer.main import get_command

from clasp_calib.api.labelling import EmbeddingLabeler, ServerLabeler, VLLMLabeler
from clasp_calib.cli import run
from clasp_calib.commands.app import app
from clasp_calib.commands.label import label
from clasp_calib.commands.search import search
from clasp_calib.commands.used_by import CheckedCommand, CheckedTyper, Marker, UnusedWith, UsedBy, markers_of
from clasp_calib.search.strategies.registry import STRATEGIES


def commands(group: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*before, name))
        else:
            yield (*before, name), command


COMMANDS = dict(commands(get_command(app)))
MARKED = [
    (words, name, marker)
    for words, command in COMMANDS.items()
    for name, markers in command.markers.items()
    for marker in markers
]


def hints(command: CheckedCommand, name: str) -> list[Any]:
    """The type of a parameter, or the values that it may have, and what else its annotation holds."""
    kind, *more = get_args(get_type_hints(command.callback.__wrapped__, include_extras=True)[name])
    if type(None) in get_args(kind):
        kind = next(one for one in get_args(kind) if one is not type(None))
    return [get_args(kind) if get_origin(kind) is Literal else kind, *more]


def flag(command: CheckedCommand, name: str, value: object = None) -> list[str]:
    """An option as it is written, with a value that it takes."""
    option = next(parameter for parameter in command.params if parameter.name == name)
    kind, *more = hints(command, name)
    written = max(option.opts, key=len)
    if kind is bool:
        return [written]
    if get_origin(kind) is tuple:
        return [written, *("3" for _ in get_args(kind))]
    least = next((info.min for info in more if getattr(info, "min", None) is not None), 3)
    return [written, str(value or (kind[0] if isinstance(kind, tuple) else least if kind in (int, float) else "x"))]


def wrong_choices(command: CheckedCommand, marker: Marker) -> list[list[str]]:
    """What chooses something that does not use the option."""
    if isinstance(marker, UnusedWith):
        return [flag(command, marker.option)]
    if not marker.choices:
        return [[]]
    choices = hints(command, marker.option)[0]
    return [flag(command, marker.option, other) for other in choices if other not in marker.choices]


def test_every_command_is_checked():
    assert all(isinstance(command, CheckedCommand) for command in COMMANDS.values())
    assert len(MARKED) >= 20


@pytest.mark.parametrize(("words", "name", "marker"), MARKED, ids=lambda value: str(value).replace(" ", ""))
def test_an_option_that_the_choice_does_not_use_is_refused_by_name(words, name, marker, capsys, monkeypatch):
    command = COMMANDS[words]
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    arguments = ["x" for parameter in command.params if not isinstance(parameter, TyperOption) and parameter.required]
    needed = [flag(command, p.name) for p in command.params if isinstance(p, TyperOption) and p.required]
    own = flag(command, name)
    choices = wrong_choices(command, marker)
    assert choices, f"every {marker.option} uses {own[0]}: it needs no marker"
    for choice in choices:
        line = [*words, *arguments, *own, *choice]
        for more in needed:
            line += [] if more[0] in line else more
        assert run(line) == 2, line
        error = capsys.readouterr().err
        assert error.startswith(f"error: {own[0]} is "), error
        assert flag(command, marker.option)[0] in error, error
        if isinstance(marker, UsedBy):
            assert all(used in error for used in marker.choices), error


def test_help_says_who_uses_an_option():
    for words, name, marker in MARKED:
        command = COMMANDS[words]
        option = next(parameter for parameter in command.params if parameter.name == name)
        assert marker.told(flag(command, marker.option)[0]) in option.help


@dataclass
class Before:
    """Of the embedding, what goes before a language model too."""

    head: str
    embedder: str
    embedder_revision: str


# A language model that is asked about unsure questions only has the embedding before it.
LABELERS = {
    "server": [ServerLabeler, Before],
    "vllm": [VLLMLabeler, Before],
    "embedding": [EmbeddingLabeler, Before],
}
SPECIFIC = [
    (label, "backend", LABELERS, {"labeler_model": "model", "revision": "(of the model)"}),
    (
        search,
        "strategy",
        {name: [kind] for name, kind in STRATEGIES.items()},
        {"fixed_rho": "rho", "samples": "(where they are)"},
    ),
]
"""Command, the option that chooses, what the choices are made of, and options that are called otherwise."""


@pytest.mark.parametrize(("command", "chooser", "kinds", "names"), SPECIFIC)
def test_what_only_some_choices_have_is_marked_so(command, chooser, kinds, names):
    options = {names.get(name, name): name for name in get_type_hints(command)}
    marked = markers_of(command)
    having: dict[str, set[str]] = {}
    for choice, of in kinds.items():
        for field in (field for kind in of for field in fields(kind)):
            if field.name in options:
                having.setdefault(options[field.name], set()).add(choice)
    assert having
    choices = set(get_args(get_type_hints(command)[chooser]))
    assert kinds.keys() <= choices
    for name, own in having.items():
        if own < choices:
            (used,) = (set(one.choices) for one in marked[name] if one.option == chooser)
            assert used - {"auto"} == own, name


def test_what_only_an_engine_has_is_marked_so():
    assert {name for name, markers in markers_of(search).items() if markers[0].option == "engine"} == {
        "workers",
        "ray_address",
        "devices",
    }


@pytest.mark.parametrize("line", ["search --strategy luck", "search --engine steam", "label x --backend oracle"])
def test_a_choice_that_there_is_not_is_refused(line, capsys):
    assert run(line.split()) == 2
    assert "is not one of" in " ".join(capsys.readouterr().err.split())


def made(**variables: str) -> CheckedTyper:
    """A command line of one command, with a value from the environment."""
    single = CheckedTyper()

    @single.command()
    def only(
        kind: str = "a",
        of_a: Annotated[int, typer.Option(envvar="OF_A"), UsedBy("kind", "a")] = 1,
        dry: bool = False,
        wet: Annotated[bool, UsedBy("dry")] = False,
        late: Annotated[int, UnusedWith("dry"), UnusedWith("wet")] = 0,
    ) -> None:
        print(kind, of_a, dry, wet, late)

    return single


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--kind b", "b 1 False False 0"),
        ("--kind a --of-a 2", "a 2 False False 0"),
        ("--dry --wet", "a 1 True True 0"),
        ("--late 3", "a 1 False False 3"),
    ],
)
def test_what_is_used_passes(line, expected, capsys):
    get_command(made())(line.split(), standalone_mode=False)
    assert capsys.readouterr().out.strip() == expected


def test_a_variable_of_the_environment_is_not_meant_for_this_command_alone(monkeypatch, capsys):
    monkeypatch.setenv("OF_A", "5")
    get_command(made())(["--kind", "b"], standalone_mode=False)
    assert capsys.readouterr().out.strip() == "b 5 False False 0"
