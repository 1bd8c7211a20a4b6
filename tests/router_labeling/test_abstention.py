"""Thresholds and temperatures against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from clasp_calib.router_labeling.abstention import best_temperature, calibration_error, log_loss, trade_off
from clasp_calib.router_labeling.router import softmax


@settings(deadline=None)
@given(seed=st.integers(0, 50), cost=st.sampled_from([1.0, 3.0, 10.0]), questions=st.integers(1, 30))
def test_the_trade_off_is_that_of_a_plain_loop(seed, cost, questions):
    rng = np.random.default_rng(seed)
    probabilities, truth = rng.dirichlet(np.ones(4), questions), rng.integers(0, 4, questions)
    found = trade_off(probabilities, truth, 3, cost)
    for place, threshold in enumerate(found.thresholds):
        costs, abstained = 0.0, 0
        for row, right in zip(probabilities.tolist(), truth.tolist(), strict=True):
            best = row.index(max(row))
            if max(row) < threshold and best != 3:
                abstained += 1
                best = 3
            costs += 0 if best == right else 1 if best == 3 else cost
        assert found.cost[place] == pytest.approx(costs / questions)
        assert found.abstained[place] == pytest.approx(abstained / questions)
    assert found.cost[found.best] == pytest.approx(found.cost.min())


def test_dearer_mistakes_never_lower_the_threshold():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 500)
    probabilities = softmax(rng.normal(size=(500, 4)) + 1.5 * np.eye(4)[truth])
    chosen = [trade_off(probabilities, truth, 3, cost) for cost in (1, 2, 4, 8)]
    thresholds = [t.thresholds[t.best] for t in chosen]
    assert thresholds == sorted(thresholds)
    assert thresholds[0] < thresholds[-1]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20000, 5)) * 3 * temperature
    draws = rng.random((20000, 1))
    truth = (softmax(logits, temperature).cumsum(1) < draws).sum(1)
    assert best_temperature(logits, truth) == pytest.approx(temperature, rel=0.05)


def test_few_questions_that_are_all_told_apart_make_nobody_certain():
    logits = 9 * np.eye(3)
    assert softmax(logits, best_temperature(logits, np.arange(3))).max() < 0.8


def test_losses_of_known_cases():
    probabilities = np.array([[0.8, 0.2], [0.8, 0.2]])
    truth = np.array([0, 1])
    assert log_loss(probabilities, truth) == pytest.approx(-(np.log(0.8) + np.log(0.2)) / 2)
    assert calibration_error(probabilities, truth) == pytest.approx(0.3)
