"""``--recompute``: a run directory without a cache ends where one with a cache does."""

import shutil

import pytest


@pytest.fixture
def uncached(copied):
    shutil.rmtree(copied.run / "cache")
    return copied


def test_evaluate_gives_the_numbers_that_the_cache_gave(uncached, command):
    ended = command("evaluate", *uncached.words, "--recompute", "--timed", 0)
    assert ended.code == 0, ended.err
    assert "the same numbers as the artifact recorded before" in ended.out
    assert not (uncached.run / "cache").exists()


def test_search_finds_what_it_found_with_the_cache(uncached, command):
    words = ("search", *uncached.words, "--space", uncached.run / "small.yaml", "--budget", "6")
    ended = command(*words)
    assert ended.code == 2
    assert "no feature cache at" in ended.err
    with_cache = command("artifact", "show", "--run", uncached.run, "--json").json
    shutil.rmtree(uncached.run / "study")
    shutil.rmtree(uncached.run / "artifact")
    assert command(*words, "--recompute").code == 0
    [found] = command("artifact", "show", "--run", uncached.run, "--json").json["budgets"]
    [known] = [entry for entry in with_cache["budgets"] if entry["name"] == "6"]
    assert found["choices"] == known["choices"]


def test_a_cache_and_none_cannot_both_be_asked_for(finished, command):
    for name in ("search", "evaluate"):
        ended = command(name, *finished.words, "--cache", finished.run / "cache", "--recompute")
        assert ended.code == 2
        assert "--cache is not used with --recompute; remove --cache or --recompute" in ended.err
