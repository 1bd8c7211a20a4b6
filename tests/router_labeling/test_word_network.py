"""The network against plain Python, and what it says of words."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from made_routers import made_network

from clasp_calib.router_labeling.ngrams import canonical
from clasp_calib.router_labeling.word_network import WIDTHS
from clasp_calib.router_labeling.word_pieces import piece_ids


def slow_logits(network, ids):
    """One filter, one place, one product after the other, in double precision."""
    width, _, count = network.filters.shape
    rows = [[float(network.vectors[i, d]) * float(network.scales[i]) for d in range(width)] for i in ids]
    logits, number, first = np.zeros(network.output.shape[1]), 0, 0
    for wide in WIDTHS:
        for one in range(count):
            responses = [
                sum(
                    rows[at + k][d] * float(network.filters[d, first + k, one])
                    for k in range(wide)
                    for d in range(width)
                )
                for at in range(len(ids) - wide + 1)
            ]
            largest = max(0.0, max(responses) + float(network.shift[number])) if responses else 0.0
            logits += largest * network.output[number].astype(float)
            number += 1
        first += wide
    return logits


@settings(deadline=None, max_examples=40)
@given(question=st.text(max_size=40), seed=st.integers(0, 3))
def test_logits_are_those_of_the_slow_reference(question, seed):
    network, text = made_network(seed=seed), canonical(question)
    assert network.logits(text) == pytest.approx(slow_logits(network, piece_ids(text).tolist()), abs=1e-3)


def test_filters_wider_than_the_question_say_nothing():
    network, ids = made_network(), np.array([101, 102])
    found, _ = network._largest(ids)
    assert not found[-5:].any()
    assert found[:-5].any()


def test_reasons_sum_to_the_logit_beyond_its_mean():
    network, text = made_network(), canonical("How many brown dogs are there?")
    logits = network.logits(text)
    for label in range(3):
        reasons = network.reasons(text, label)
        assert sum(weight for _, weight in reasons) == pytest.approx(logits[label] - logits.mean(), abs=1e-3)
        assert [weight for _, weight in reasons] == sorted((weight for _, weight in reasons), reverse=True)
        assert all(words in text for words, _ in reasons)
