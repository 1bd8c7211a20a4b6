"""Packages of others, with entry points, as if they were installed."""

import sys
from contextlib import contextmanager
from importlib import invalidate_caches

from clasp_calib.common import plugins


@contextmanager
def installing(group, folder, monkeypatch):
    """Yields what installs a package by its name, its code and its entry points of a group."""
    installed = []

    def install(name, code, points):
        information = folder / name / f"{name}-1.0.dist-info"
        information.mkdir(parents=True)
        (folder / name / f"{name}.py").write_text(code)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[{group}]\n" + "\n".join(points))
        monkeypatch.syspath_prepend(folder / name)
        invalidate_caches()
        plugins.brought.cache_clear()
        installed.append(name)

    yield install
    plugins.brought.cache_clear()
    for name in installed:
        sys.modules.pop(name, None)
