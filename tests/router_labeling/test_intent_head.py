"""A labeler's head: its arithmetic, its file, and what is no such file."""

import dataclasses

import numpy as np
import pytest
from safetensors.numpy import save

from clasp_calib.common.errors import InputError
from clasp_calib.router_labeling.intent_head import (
    NO_VOTE,
    HeadQuality,
    IntentHead,
    class_probabilities,
    load_head,
    mixed,
    write_head,
)
from clasp_calib.router_labeling.ngrams import Hashing, features
from clasp_calib.router_labeling.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
HASHING = Hashing(bits=6)


def head(seed=0, **changes) -> IntentHead:
    rng = np.random.default_rng(seed)
    count = len(TAXONOMY.intents)
    made = IntentHead(
        tuple(TAXONOMY.intents),
        TAXONOMY.digest,
        '{"embedder":"none"}',
        rng.normal(size=(4, count)).astype(np.float32),
        rng.normal(size=(64, count)).astype(np.float16),
        rng.normal(size=count).astype(np.float32),
        0.8,
        0.25,
        "5" * 64,
        30,
        HeadQuality(30, 0.5, 0.4, 0.1),
        HASHING,
    )
    return dataclasses.replace(made, **changes)


def test_probabilities_are_those_of_the_slow_formula():
    rng = np.random.default_rng(1)
    questions, vectors = ["How many?", "what colour is it", ""], rng.normal(size=(3, 4)).astype(np.float32)
    made = head()
    found = made.probabilities(questions, vectors, [2, NO_VOTE, 0])
    for row, (question, vote) in enumerate(zip(questions, (2, None, 0), strict=True)):
        logits = made.bias.astype(float).copy()
        for place in range(4):
            logits += vectors[row, place] * made.weights[place].astype(float)
        buckets = features(question, HASHING)
        for bucket in buckets:
            logits += made.ngram_weights[bucket].astype(float) / len(buckets) ** 0.5
        powers = np.exp((logits - logits.max()) / 0.8)
        slow = powers / powers.sum()
        if vote is not None:
            slow *= 0.75
            slow[vote] += 0.25
        assert np.abs(found[row] - slow).max() < 1e-5


def test_mixed_probabilities_sum_to_one():
    found = mixed(np.random.default_rng(0).normal(size=(5, 3)), 1.5, [0, 1, NO_VOTE, 2, NO_VOTE], 0.3)
    assert np.allclose(found.sum(1), 1)


def test_a_class_has_what_its_intents_have():
    probabilities = np.eye(len(TAXONOMY.intents))
    sums = class_probabilities(probabilities, list(TAXONOMY.intents), TAXONOMY)
    assert [TAXONOMY.classes[place] for place in sums.argmax(1)] == [i.class_ for i in TAXONOMY.intents.values()]
    assert np.allclose(sums.sum(1), 1)


def test_the_file_gives_the_head_back_and_is_the_same_each_time(tmp_path):
    made = head()
    write_head(made, tmp_path / "a")
    write_head(made, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    read = load_head(tmp_path / "a")
    assert read.digest == made.digest
    assert (read.quality, read.hashing, read.questions) == (made.quality, made.hashing, made.questions)
    assert all(np.array_equal(getattr(read, n), getattr(made, n)) for n in ("weights", "ngram_weights", "bias"))


@pytest.mark.parametrize("change", ["weights", "ngram_weights", "bias", "temperature", "rules_weight", "embedder"])
def test_whatever_decides_a_label_is_in_the_digest(change):
    value = getattr(head(), change)
    other = value + "x" if isinstance(value, str) else value * 0.5
    assert head(**{change: other}).digest != head().digest


def test_what_is_no_head_is_refused(tmp_path):
    good = tmp_path / "good"
    write_head(head(), good)
    nan = head()
    nan.bias[3] = np.nan
    write_head(nan, tmp_path / "nan")
    write_head(head(bias=np.zeros(3, np.float32)), tmp_path / "short")
    (tmp_path / "cut").write_bytes(good.read_bytes()[:-9])
    (tmp_path / "empty").touch()
    (tmp_path / "other").write_bytes(save({"weights": np.zeros((2, 2), np.float32)}, {"router": "{}"}))
    for name, complaint in (
        ("nan", "no bias of finite"),
        ("short", "no bias of finite"),
        ("cut", "no labeler's head"),
        ("empty", "no labeler's head"),
        ("other", "no labeler's head"),
        ("absent", "cannot read"),
    ):
        with pytest.raises(InputError, match=complaint):
            load_head(tmp_path / name)


def test_other_widths_and_n_grams_without_length_are_refused(tmp_path):
    with pytest.raises(InputError, match="for embeddings 4 wide"):
        head().probabilities(["what?"], np.zeros((1, 5), np.float32), [NO_VOTE])
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        write_head(head(hashing=Hashing(bits=6, words=(-1,))), tmp_path / "odd")
