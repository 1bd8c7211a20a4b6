"""Hashed n-grams against a slow, obvious reference."""

from hypothesis import given, settings, strategies as st

from clasp_calib.router_labeling.ngrams import CHARACTER, LONGEST, WORD, Hashing, buckets, canonical, features, spans

MODULUS = 2**64
BASE = 0x9E3779B97F4A7C15
SALTS = {WORD: 0x2545F4914F6CDD1D, CHARACTER: 0xD6E8FEB86659FD93}


def slow_bucket(ngram: str, kind: int, bits: int) -> int:
    value = sum((ord(character) + 1) * BASE**place for place, character in enumerate(ngram)) % MODULUS
    value ^= SALTS[kind]
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % MODULUS
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % MODULUS
    return value >> (64 - bits)


def slow_ngrams(text: str, hashing: Hashing) -> list[tuple[str, int]]:
    words = text.split(" ")
    found = [(" ".join(words[i : i + n]), WORD) for n in hashing.words for i in range(len(words) - n + 1)]
    return found + [(text[i : i + n], CHARACTER) for n in hashing.characters for i in range(len(text) - n + 1)]


lengths = st.lists(st.integers(1, 6), max_size=4, unique=True).map(tuple)
hashings = st.builds(Hashing, bits=st.integers(1, 20), words=lengths, characters=lengths).filter(
    lambda h: h.words or h.characters
)
questions = st.text(max_size=60) | st.sampled_from(
    ["How many dogs are there?", "", "  ", "¿Cuántos perros?", "🐶🐶 \ud800"]
)


@settings(deadline=None)
@given(question=questions, hashing=hashings)
def test_all_ngrams_are_found_and_hashed_as_the_slow_reference_says(question, hashing):
    text = canonical(question)
    found = spans(text, hashing)
    told = [
        (text[s:e], k) for s, e, k in zip(found.starts.tolist(), found.ends.tolist(), found.kinds.tolist(), strict=True)
    ]
    expected = slow_ngrams(text, hashing)
    assert told == expected
    slow = [slow_bucket(ngram, kind, hashing.bits) for ngram, kind in expected]
    assert buckets(text, found, hashing.bits).tolist() == slow
    assert features(question, hashing).tolist() == sorted(set(slow))


def test_the_canonical_text_has_one_space_between_words_and_marks():
    assert canonical("What's  “this”,\nplease?") == '^ what is " this " , please ? $'


def test_case_and_layout_make_no_difference():
    assert features("HOW many dogs?", Hashing()).tolist() == features("how\nmany  dogs ?", Hashing()).tolist()


def test_a_word_and_the_same_characters_are_different_features():
    assert slow_bucket("dog", WORD, 20) != slow_bucket("dog", CHARACTER, 20)


def test_only_the_beginning_of_a_long_question_is_looked_at():
    long = "dog " * LONGEST
    assert canonical(long) == canonical(long[:LONGEST])
