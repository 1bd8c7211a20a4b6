"""YAML files that a user writes: small, with every key once, and with no more behind aliases than fits into memory."""

from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from clasp_calib.common.errors import InputError
from clasp_calib.common.given_files import decoded, read_given

MOST_YAML = 16 << 20
"""Bytes of a file; the packaged rules have 40 thousand."""
MOST_NODES = 1_000_000
"""Values of a file, those behind aliases counted each time."""


def read_yaml(source: Path | Traversable, what: str) -> Any:
    """The content of a YAML file.

    Args:
        source: the file.
        what: what the file is, for messages.

    Raises:
        InputError: the file cannot be read, is too large, is not YAML, has a key twice in a mapping, or aliases
            that stand for very much.
    """
    content = read_given(source, MOST_YAML, what) if isinstance(source, Path) else source.read_bytes()
    try:
        return yaml.load(decoded(content), Loader=_Strict)
    except RecursionError as error:
        raise InputError(f"{what} {source} is not valid YAML: it is nested too deeply; mend the file") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{what} {source} is not valid YAML: {error}; mend the file") from error
    except Exception as error:  # PyYAML's constructors raise whatever a malformed scalar makes them raise.
        raise InputError(
            f"{what} {source} is not valid YAML: a value does not fit its tag ({error!r}); mend the file"
        ) from error


class _Strict(yaml.SafeLoader):
    """A safe loader that refuses repeated keys, where YAML libraries keep the last, and aliases that grow."""

    def construct_document(self, node: yaml.Node) -> Any:
        """As in `yaml.SafeLoader`, after a count of what the aliases stand for."""
        if _expanded(node, {}) > MOST_NODES:
            raise ValueError(f"its aliases stand for more than {MOST_NODES} values; write out what is meant")
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As in `yaml.SafeLoader`, after a look at the keys as they are read: 1, 0x1 and "1" are one."""
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            name = str(self.construct_object(key))
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} occurs twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def _expanded(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes a node stands for if each alias is one of its own."""
    if id(node) not in known:
        known[id(node)] = MOST_NODES + 1  # of a node that is within itself
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for pair in inner for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_expanded(part, known) for part in parts)
    return known[id(node)]
