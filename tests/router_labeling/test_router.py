"""The router against plain Python, and what it says of a question."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from made_routers import made_network, made_router

from clasp_calib.router_labeling.ngrams import Hashing, canonical, features
from clasp_calib.router_labeling.router import softmax


def slow_probabilities(router, question):
    found = features(question, router.hashing).tolist()
    logits = [
        sum(float(router.weights[b, c]) for b in found) / math.sqrt(len(found)) + float(router.bias[c])
        for c in range(len(router.classes))
    ]
    powers = [math.exp(logit / router.temperature) for logit in logits]
    return [power / sum(powers) for power in powers]


@settings(deadline=None)
@given(question=st.text(max_size=80), seed=st.integers(0, 5), bits=st.integers(1, 10))
def test_probabilities_are_those_of_the_slow_reference(question, seed, bits):
    router = made_router(bits=bits, seed=seed)
    found = router.probabilities(question)
    assert found == pytest.approx(slow_probabilities(router, question), abs=1e-4)
    assert found.sum() == pytest.approx(1)


def test_it_abstains_below_its_threshold_and_says_what_was_likeliest():
    weights, bias = np.zeros((256, 3), np.float32), np.log([0.5, 0.3, 0.2]).astype(np.float32)
    sure = made_router(weights=weights, bias=bias, temperature=1.0, threshold=0.49).route("?")
    assert (sure.label, sure.likeliest, sure.abstained) == ("object", "object", False)
    assert sure.confidence == pytest.approx(0.5)
    unsure = made_router(weights=weights, bias=bias, temperature=1.0, threshold=0.51).route("?")
    assert (unsure.label, unsure.likeliest, unsure.abstained) == ("default", "object", True)


def test_the_default_class_is_never_an_abstention():
    bias = np.array([0, 0, 5], np.float32)
    decision = made_router(weights=np.zeros((256, 3), np.float32), bias=bias, threshold=1.0).route("?")
    assert (decision.label, decision.abstained) == ("default", False)


def test_reasons_are_the_ngrams_that_were_given_weight():
    hashing = Hashing(16)
    weights = np.zeros((1 << 16, 3), np.float32)
    common = set(features("How many dogs?", hashing)) & set(features("So many cats!", hashing))
    for bucket in common - set(features("Any cow?", hashing)):
        weights[bucket, 1] = 1
    router = made_router(bits=16, weights=weights, hashing=hashing)
    reasons = router.reasons("How many dogs?", "text", limit=3)
    assert len(reasons) == 3
    assert all(reason.text.strip() in "many" and reason.weight > 0 for reason in reasons)
    assert router.reasons("How many dogs?", "object") == []


def test_a_network_adds_its_logits_and_its_reasons():
    network = made_network()
    plain, both = made_router(), made_router(network=network)
    text = canonical("How many dogs?")
    assert np.allclose(both.logits("How many dogs?"), plain.logits("How many dogs?") + network.logits(text))
    words, weight = network.reasons(text, 1)[0]
    assert (words, pytest.approx(weight)) in [(one.text, one.weight) for one in both.reasons("How many dogs?", "text")]


def test_a_question_shorter_than_every_ngram_has_the_bias_alone():
    router = made_router(hashing=Hashing(8, words=(8,), characters=()))
    assert router.logits("?").tolist() == router.bias.tolist()
    assert router.reasons("?", "text") == []


def test_softmax_of_large_logits_is_finite():
    assert softmax(np.array([1000.0, 0.0]), 0.1).tolist() == [1.0, 0.0]


def test_routing_needs_neither_torch_nor_scikit_learn():
    code = (
        "import sys\n"
        "for name in ('torch', 'sklearn', 'scipy', 'transformers', 'pyarrow'): sys.modules[name] = None\n"
        "from clasp_calib.router_labeling.router_file import load_router\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
