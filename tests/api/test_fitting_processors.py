"""Every entry point that takes model and processor refuses what does not fit before it does anything else."""

import copy

import pytest
from torch import nn

import clasp_calib as cc

CALLS = {
    "calibrate": lambda m, p, bench, artifact: cc.calibrate(m, p, bench.samples, [6]),
    "plan_calibration": lambda m, p, bench, artifact: cc.plan_calibration(m, p, bench.samples, [6]),
    "cache_features": lambda m, p, bench, artifact: cc.cache_features(m, p, bench.samples, run="nowhere"),
    "evaluate": lambda m, p, bench, artifact: cc.evaluate(m, p, artifact, bench.samples),
    "compare": lambda m, p, bench, artifact: cc.compare(m, p, artifact, bench.samples),
    "ablate": lambda m, p, bench, artifact: cc.ablate("rho", m, p, artifact, bench.samples),
    "recheck": lambda m, p, bench, artifact: cc.recheck(m, p, artifact, bench.samples, 1),
    "generate": lambda m, p, bench, artifact: cc.generate(m, p, bench.samples[0].image, "How many?", artifact=artifact),
}


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", CALLS)
def test_a_processor_that_counts_otherwise(bench, artifact, name):
    processor = copy.deepcopy(bench.processor)
    processor.num_additional_image_tokens = 0
    with pytest.raises(cc.errors.ModelError, match=r"15 image tokens .* 16 features"):
        CALLS[name](bench.model, processor, bench, artifact)


@pytest.mark.parametrize("name", CALLS)
def test_a_wrapper(bench, artifact, name):
    with pytest.raises(cc.errors.ModelError, match=r"a DataParallel.*model\.module"):
        CALLS[name](nn.DataParallel(bench.model), bench.processor, bench, artifact)
