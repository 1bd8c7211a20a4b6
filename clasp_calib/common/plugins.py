"""What installed packages bring as entry points, by name."""

from collections.abc import Collection, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from clasp_calib.common.errors import InputError


@cache
def brought(group: str) -> Mapping[str, list[EntryPoint]]:
    """Name -> entry points of a group; there are several where several packages bring one name."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=group):
        found.setdefault(point.name, []).append(point)
    return found


def loaded(group: str, what: str, name: str, own: Collection[str] = ()) -> Any:
    """What the one entry point of a name leads to.

    Args:
        group: of entry points; some package brings the name.
        what: how errors call what the group brings, such as ``metric``.
        name: of the entry point.
        own: names that this package has itself.

    Raises:
        InputError: two packages bring it, this one among them, or the package that brings it cannot be loaded.
    """
    check_single(group, what, name, own)
    found = brought(group)[name]
    try:
        return found[0].load()
    except Exception as error:  # Importing somebody's package may fail in any way.
        raise InputError(
            f"the {what} {name!r} of {_package(found[0])} ({found[0].value}) cannot be loaded ({error}); "
            "mend that package"
        ) from error


def check_single(group: str, what: str, name: str, own: Collection[str] = ()) -> None:
    """Refuse a name that several packages bring; arguments as for `loaded`, but nobody need bring it.

    Raises:
        InputError: two packages bring it, this one among them.
    """
    points = brought(group).get(name, [])
    if len(points) + (name in own) > 1:
        packages = [*(["clasp-calib"] if name in own else []), *map(_package, points)]
        raise InputError(
            f"the {what} {name!r} is brought by {' and '.join(packages)}; remove one, or rename its {what}"
        )


def package_of(group: str, name: str) -> str:
    """The package that brings a name, with its version where that is known."""
    point = brought(group)[name][0]
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value
