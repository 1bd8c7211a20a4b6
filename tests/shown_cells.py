"""A plugin of pytest that notes what the tests marked ``shows`` show of each architecture.

    PYTHONPATH=tests python -m pytest -p shown_cells -m shows --shown FILE [--collect-only]

A test that is given a case of an architecture, or its name, shows the columns of its mark:
``@pytest.mark.shows("search", videos="videos")``, with ``videos`` where the case is one of videos. FILE becomes
``{model_type: {column: whether all its tests passed}}``; only to collect tests counts as passing them.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

SHOWS = "shows"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shown", type=Path, help="where to write what is shown")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Shown(config), "shown")


def cells(item: pytest.Item) -> list[tuple[str, str]]:
    """Architecture and column of all that a test shows."""
    given = item.callspec.params
    # Cases of videos are named "llava_onevision video".
    name, _, video = str(given.get("name") or given["case"].name).partition(" ")
    found = []
    for mark in item.iter_markers(SHOWS):
        columns = [mark.kwargs["videos"]] if video and "videos" in mark.kwargs else [] if video else mark.args
        found += [(name, column) for column in columns]
    return found


class Shown:
    """Collects outcomes, in the process that hears of all of them."""

    def __init__(self, config: pytest.Config) -> None:
        self._path: Path | None = config.getoption("--shown")
        self._passed: dict[tuple[str, str], bool] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        report = yield
        report.user_properties += [(SHOWS, cell) for cell in cells(item)]
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for kind, cell in report.user_properties:
            if kind == SHOWS:
                self._passed[*cell] = self._passed.get((*cell,), True) and report.passed

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.config.option.collectonly:
            self._passed = {cell: True for item in session.items for cell in cells(item)}

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._path is None or hasattr(session.config, "workerinput"):
            return
        found: dict[str, dict[str, bool]] = {}
        for (name, column), passed in sorted(self._passed.items()):
            found.setdefault(name, {})[column] = passed
        self._path.write_text(json.dumps(found, indent=1), encoding="utf-8")
