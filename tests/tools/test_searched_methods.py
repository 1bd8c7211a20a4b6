"""The page of searched methods: scores are kept by what they are of, and small runs leave the published page alone."""

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return import_module("searched_methods")


def test_scores_are_kept_by_artifacts_samples_and_versions(page, monkeypatch):
    def of(name, samples):
        return page.identity({"a": SimpleNamespace(manifest=SimpleNamespace(id=name))}, samples)

    known = of("x", ["1", "2"])
    assert known == of("x", ["1", "2"])
    assert len({known, of("y", ["1", "2"]), of("x", ["1"]), of("x", ["2", "1"])}) == 4
    monkeypatch.setattr(page, "BENCHMARK", "another")
    assert of("x", ["1", "2"]) != known


def test_only_the_whole_measurement_is_published(page, tmp_path):
    whole = (page.POOL, page.TEST, page.BUDGETS)
    assert page.place_of_page(tmp_path, *whole) == page.PUBLISHED
    for number, other in enumerate((4, 2, ("64",))):
        assert page.place_of_page(tmp_path, *(other if n == number else one for n, one in enumerate(whole))) == tmp_path
