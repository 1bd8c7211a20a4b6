"""Where shards go that are damaged or of which nobody knows: moved aside, never removed."""

import os
from itertools import count
from pathlib import Path

from clasp_calib.cache.disk import write_failed
from clasp_calib.common.errors import CacheError

FOLDER = "quarantine"


def set_aside(root: Path, name: str) -> Path | None:
    """Move a file of the cache at ``root`` to its quarantine.

    Returns:
        Where it is now, None if there was none.

    Raises:
        CacheError: it cannot be moved.
    """
    folder = root / FOLDER
    if folder.is_symlink():
        raise CacheError(f"{folder} is a link; remove it, so that damaged shards stay inside the cache")
    try:
        folder.mkdir(exist_ok=True)
        # The writer's lock is held, so nobody else takes the name in between.
        taken = next(
            to for number in count() if not os.path.lexists(to := folder / f"{name}{f'.{number}' * (number > 0)}")
        )
        os.rename(root / name, taken)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise write_failed(error, f"cannot move {root / name} to {folder}") from error
    return taken
