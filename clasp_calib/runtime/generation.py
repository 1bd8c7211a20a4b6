"""Seeing what ``generate`` is given before it begins: it encodes pictures before any forward is called."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

Watcher = Callable[[Any, dict[str, Any]], None]


@contextmanager
def watched_generate(model: Any, watcher: Watcher, ended: Callable[[], None] | None = None) -> Iterator[None]:
    """Show every call of ``model.generate`` to ``watcher(ids, arguments)`` first; it may raise.

    ``ended`` is called after a call that the watcher let pass, however that went.
    The instance's attribute is set and taken off again; the class is left alone.
    """
    plain, before = model.generate, vars(model).get("generate")

    @wraps(plain)
    def generate(*args: Any, **kwargs: Any) -> Any:
        watcher(kwargs.get("input_ids", kwargs.get("inputs", args[0] if args else None)), kwargs)
        try:
            return plain(*args, **kwargs)
        finally:
            if ended is not None:
                ended()

    model.generate = generate
    try:
        yield
    finally:
        if before is None:
            del model.generate
        else:
            model.generate = before
