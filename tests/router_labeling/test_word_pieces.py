"""Word pieces against the tokenizers library, which cuts words for BERT."""

import hashlib

import pytest
from hypothesis import given, settings, strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from clasp_calib.router_labeling.ngrams import canonical
from clasp_calib.router_labeling.taxonomy import packaged
from clasp_calib.router_labeling.word_pieces import LONGEST, SIZE, VOCABULARY, piece_ids, spelled


@pytest.fixture(scope="module")
def reference():
    words = packaged("assets/minilm-vocabulary.txt").read_text(encoding="utf-8").splitlines()
    places = {word: place for place, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(places, unk_token="[UNK]", max_input_chars_per_word=40))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def test_the_vocabulary_is_the_one_that_networks_name():
    content = packaged("assets/minilm-vocabulary.txt").read_bytes()
    assert hashlib.sha256(content).hexdigest() == VOCABULARY
    assert len(content.decode().splitlines()) == SIZE


def slow_ids(tokenizer, text):
    words = text.split(" ")[1:-1]
    inner = [place for word in words if word for place in (tokenizer.encode(word).ids or [100])]
    while len(inner) > LONGEST - 2:
        # Out of the middle, one by one.
        del inner[(LONGEST - 2) // 2]
    return [101, *inner, 102]


WORDS = ["How", "many", "Zébras", "photosynthesising", "x" * 41, "don't", "3.5", "日本", "naïve", "?", "\u0301"]


@settings(deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join)))
def test_words_are_cut_as_the_library_cuts_them(reference, question):
    text = canonical(question)
    assert piece_ids(text).tolist() == slow_ids(reference, text)


def test_pieces_are_spelled_as_the_text_that_they_are_of():
    ids = piece_ids(canonical("How many ZÉBRAS photosynthesise?"))
    assert spelled(ids) == "^ how many zebras photosynthesise ? $"
    assert spelled(ids[4:5]) == "s"
