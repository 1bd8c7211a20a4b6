"""The plan: what is counted is counted rightly, and the recommendation is the cheapest way that fits."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from case_processor import CaseProcessor, write_file
from hypothesis import given, strategies as st
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from clasp_calib.cache import plan as module
from clasp_calib.cache.encode import cache_features
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.cache.plan import CachePlan, EncoderSpeed, Way, plan_cache
from clasp_calib.cache.probe import DiskSpeed, probe_disk
from clasp_calib.commands.cache_reports import say_plan
from clasp_calib.common.errors import CacheError, InputError
from clasp_calib.common.samples import Sample

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "runtime")]
from architectures import CASES
from tiny_models import tiny_llava_directory


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    directory = tiny_llava_directory(tmp_path_factory.mktemp("model"))
    return AutoModelForImageTextToText.from_pretrained(directory), AutoProcessor.from_pretrained(directory)


@pytest.fixture
def samples(tmp_path):
    made = []
    for number in range(5):
        path = tmp_path / f"{number}.png"
        pixels = np.random.default_rng(number % 4).integers(0, 256, (60, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        made.append(Sample(str(number), "?", path))
    return [*made, made[1], Sample("text", "?")]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(module, "probe_disk", lambda folder, block: probe_disk(folder, block, 0.05, 10 * block))


def test_a_plan_counts_and_writes_nothing(loaded, samples, tmp_path, quick):
    before = sorted(tmp_path.iterdir())
    plan = plan_cache(*loaded, samples, tmp_path / "new" / "cache", FeatureOptions(layers=(1, 3), batch_size=3))
    assert sorted(tmp_path.iterdir()) == before
    assert (plan.pictures, plan.unique, plan.cached, plan.looks) == (6, 4, 0, 48)
    assert (plan.encoder.tokens, plan.encoder.channels, plan.encoder.pixels) == (16, 16, 3 * 56 * 56)
    assert plan.way("layers").bytes == plan.missing == 4 * 2 * 16 * 16 * 2
    assert plan.way("pixels").bytes == 4 * 3 * 56 * 56
    assert plan.way("recompute").bytes == plan.way("recompute").make == 0
    assert all(way.look > 0 for way in plan.ways)
    assert min(plan.disk.write, plan.disk.read, plan.disk.memory) > 0


def test_the_planned_bytes_are_those_of_the_cache(loaded, samples, tmp_path, quick):
    cache_features(*loaded, samples[:3], tmp_path / "cache", FeatureOptions(layers=(1, 3)))
    plan = plan_cache(*loaded, samples, tmp_path / "cache", FeatureOptions(layers=(1, 3)))
    assert (plan.unique, plan.cached) == (4, 3)
    report = cache_features(*loaded, samples, tmp_path / "cache", FeatureOptions(layers=(1, 3)))
    assert plan.way("layers").bytes == report.bytes
    assert plan.missing == report.bytes // 4
    done = plan_cache(*loaded, samples, tmp_path / "cache", FeatureOptions(layers=(1, 3)))
    assert (done.cached, done.missing, done.way("layers").make) == (4, 0, 0)


def test_what_a_deepstack_takes_is_said(tmp_path, quick, capsys):
    case = CASES["qwen3_vl"]
    sample = Sample("1", "?", write_file(tmp_path, case, 1))
    plan = plan_cache(case.model(), CaseProcessor(case), [sample], tmp_path / "cache", FeatureOptions(layers=[0]))
    assert (plan.layers, plan.taps) == ((0, 1, 2, 3), (1, 2, 3))
    assert (plan.way("layers").bytes, plan.tapped) == (4 * 48 * 16 * 2, 3 * 48 * 16 * 2)
    say_plan(plan, as_json=False)
    said = (
        "of these the decoder gets 1, 2, 3 beside any mixture (deepstack), so they are always kept: 4.61 kB of 6.14 kB"
    )
    assert said in " ".join(capsys.readouterr().out.split())


def test_pictures_that_cannot_be_read_are_counted_or_named(loaded, samples, tmp_path, quick):
    with pytest.raises(InputError, match="none of the 1 samples has a picture"):
        plan_cache(*loaded, samples[-1:], tmp_path, FeatureOptions(layers=(1,)))
    samples[2].image.unlink()
    plan = plan_cache(*loaded, samples, tmp_path, FeatureOptions(layers=(1,)))
    assert (plan.pictures, plan.unique, plan.duplicates, plan.unreadable) == (6, 3, 2, 1)
    samples[0].image.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"1 pictures cannot be read \(.*0\.png"):
        plan_cache(*loaded, samples[:1], tmp_path, FeatureOptions(layers=(1,)))


def test_a_cache_of_another_encoder_is_refused(loaded, samples, tmp_path, quick):
    cache_features(*loaded, samples, tmp_path / "cache", FeatureOptions(pixels=True))
    with pytest.raises(CacheError, match=r"was made with the encoder \[pictures:"):
        plan_cache(*loaded, samples, tmp_path / "cache", FeatureOptions(layers=(1,)))


def test_a_probe_leaves_nothing_and_says_why_it_cannot(tmp_path):
    speed = probe_disk(tmp_path, 4096, 0.05)
    assert min(speed.write, speed.read, speed.memory) > 0
    assert not list(tmp_path.iterdir())
    with pytest.raises(CacheError, match=r"cannot try the disk at .*none \(No such file"):
        probe_disk(tmp_path / "none", 4096)


SECONDS = st.floats(1e-6, 1e3)


@given(
    layers=st.tuples(st.integers(1, 10**9), SECONDS, SECONDS),
    pixels=st.tuples(st.integers(1, 10**9), SECONDS, SECONDS),
    look=SECONDS,
    free=st.integers(0, 10**9),
    unique=st.integers(1, 100),
    cached=st.integers(0, 100),
    looks=st.integers(1, 10**4),
)
def test_the_recommended_way_fits_and_is_the_fastest(layers, pixels, look, free, unique, cached, looks):
    disk, encoder = DiskSpeed(1e9, 1e9, 1e10), EncoderSpeed(0.1, 0.1, 0.1, 16, 16, 100)
    ways = (
        Way("layers", layers[0] * unique, *layers[1:]),
        Way("pixels", pixels[0], *pixels[1:]),
        Way("recompute", 0, 0.0, look),
    )
    plan = CachePlan(unique, unique, 0, 0, min(cached, unique), (1,), "float16", free, 0, disk, encoder, ways, looks)
    chosen = plan.way(plan.recommended)
    assert plan.fits(chosen)
    assert all(plan.total(chosen) <= plan.total(way) for way in ways if plan.fits(way))
    assert plan.fits(ways[2]), "recomputing is always possible"
    assert plan.missing == layers[0] * (unique - plan.cached)
    # At the break-even speed, reading a picture's layers takes a recomputing look.
    assert math.isclose(layers[0] / plan.break_even, look)
    if math.isfinite(pays := plan.looks_to_pay):
        even = pays * unique
        assert math.isclose(ways[0].make + even * ways[0].look, even * look, rel_tol=1e-6)
    else:
        assert ways[0].look >= look
