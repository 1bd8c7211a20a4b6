"""The metric exact is what `generate` says under the model's own generation config, whatever that asks for."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings, strategies as st
from PIL import Image
from speaking_models import WORDS
from tiny_models import EOS

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.features import CachedFeatures
from clasp_calib.calib.scoring.greedy_paths import GreedyPaths
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.common import progress
from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.decoding import Greedy

OWN = Candidate("own", (0, 0, 0, 1, 0), 1.0)
LONGEST = 6
WORD = st.sampled_from(range(len(WORDS)))
CONFIGS = {
    "eos_token_id": st.one_of(st.none(), st.lists(WORD, max_size=2, unique=True)),
    "repetition_penalty": st.sampled_from([0.5, 1.05, 3.0]),
    "no_repeat_ngram_size": st.sampled_from([1, 2]),
    "suppress_tokens": st.lists(WORD, min_size=1, max_size=3, unique=True),
    "begin_suppress_tokens": st.lists(WORD, min_size=1, max_size=3, unique=True),
    "bad_words_ids": st.lists(st.lists(WORD, min_size=1, max_size=2), min_size=1, max_size=2),
    "sequence_bias": st.lists(st.tuples(WORD, st.sampled_from([-30.0, 30.0])), min_size=1, max_size=2),
    "forced_eos_token_id": st.just(EOS),
    "min_new_tokens": st.integers(1, 3),
    "min_length": st.integers(30, 60),
    "exponential_decay_length_penalty": st.just((1, 1.5)),
    "stop_strings": st.sampled_from([["red"], ["d"], [" yes no"]]),
    "do_sample": st.just(True),
    "temperature": st.just(3.0),
    "num_beams": st.just(3),
    "max_length": st.just(2),
    "use_cache": st.just(False),
    "return_dict_in_generate": st.just(True),
}
ENDS = ["", " ", "\n", ":", " The answer is"]


@st.composite
def configs(draw):
    names = draw(st.lists(st.sampled_from(sorted(CONFIGS)), max_size=3, unique=True))
    made = {name: draw(CONFIGS[name]) for name in names}
    # What has no end of sequence cannot favour it: transformers refuses.
    assume(made.get("eos_token_id", EOS) is not None or "exponential_decay_length_penalty" not in made)
    return made


def with_ids(bench, config):
    """The config with ids in place of numbers of words."""
    ids = bench.processor.tokenizer.convert_tokens_to_ids([f" {word}" for word in WORDS])
    made = dict(config)
    for name in ("suppress_tokens", "begin_suppress_tokens"):
        if name in made:
            made[name] = [ids[word] for word in made[name]]
    if made.get("eos_token_id"):
        made["eos_token_id"] = [EOS, *(ids[word] for word in made["eos_token_id"])]
    if "bad_words_ids" in made:
        made["bad_words_ids"] = [[ids[word] for word in words] for words in made["bad_words_ids"]]
    if "sequence_bias" in made:
        made["sequence_bias"] = [[[ids[word]], bias] for word, bias in made["sequence_bias"]]
    return made


@pytest.fixture
def configured(bench):
    """Sets the model's generation config; it is put back."""
    before = bench.model.generation_config

    def configure(config):
        bench.model.generation_config = deepcopy(before)
        for name, value in with_ids(bench, config).items():
            setattr(bench.model.generation_config, name, value)

    yield configure
    bench.model.generation_config = before


@torch.inference_mode()
def generated(bench, prompter, sample, longest):
    """What transformers says, the picture's pixels and all."""
    text = prompter.text(sample.question)
    inputs = bench.processor(images=Image.open(sample.image), text=text, return_tensors="pt")
    plain = {"do_sample": False, "num_beams": 1, "use_cache": True, "return_dict_in_generate": False}
    output = bench.model.generate(**inputs, **plain, max_new_tokens=longest, tokenizer=bench.processor.tokenizer)
    return prompter.decode(output[:, inputs["input_ids"].shape[1] :])[0]


@given(configs(), st.sampled_from(ENDS), st.integers(0, 17), st.lists(st.sampled_from(WORDS), max_size=3))
@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_exact_scores_what_is_generated(bench, configured, config, end, number, words):
    configured(config)
    prompter = Prompter(bench.processor, bench.model, f"USER: <image>\n{{question}} ASSISTANT:{end}")
    evaluator = Evaluator(bench.model, prompter, CachedFeatures(bench.store, (3,)), LONGEST)
    sample = bench.samples[number]
    said = generated(bench, prompter, sample, LONGEST)
    for answers in ((said,), (" ".join(words),), (said[:-1], f"{said} red"), (f" {said} ", "no")):
        asked = replace(sample, answers=answers)
        longest = prompter.limit(asked, LONGEST)
        text = said if longest == LONGEST else generated(bench, prompter, sample, longest)
        expected = (float(text in [answer.strip() for answer in answers]),)
        assert evaluator.scores(asked, [OWN], Pruning(None)).score == expected
        assert evaluator.scores(asked, [OWN], Pruning(None), generate=True).score == expected


@pytest.fixture(scope="module")
def plainly_said(bench):
    """About every sample, under the config of the model's directory."""
    return [generated(bench, bench.prompter, sample, LONGEST) for sample in bench.samples]


@pytest.mark.parametrize(
    "config",
    [
        {"suppress_tokens": [0, 1, 2]},
        {"repetition_penalty": 0.2},
        {"no_repeat_ngram_size": 1},
        {"min_new_tokens": 3},
        {"eos_token_id": [0, 1, 2, 3]},
        {"stop_strings": ["e"]},
    ],
    ids=lambda config: next(iter(config)),
)
def test_these_configs_change_what_is_said(bench, plainly_said, configured, config):
    """Else the test above would tell nothing of them."""
    configured(config)
    said = [generated(bench, bench.prompter, sample, LONGEST) for sample in bench.samples]
    assert said != plainly_said
    assert len({len(text.split()) for text in said}) > 1 or len(set(said)) > 1


def test_the_answer_in_other_tokens_counts(bench):
    """The model says it letter by letter; the tokenizer would write it as one word."""
    sample = replace(bench.samples[0], answers=("red", "two"))
    letters = bench.processor.tokenizer("red", add_special_tokens=False).input_ids
    (word,) = bench.processor.tokenizer.convert_tokens_to_ids([" red"])
    paths = GreedyPaths(Greedy(bench.model), bench.prompter, sample, 3)
    logits_BTV = torch.zeros(3, 2, len(bench.processor.tokenizer))
    for row, tokens in enumerate(([word, EOS], [letters[0], EOS], [letters[1], EOS])):
        logits_BTV[row, range(2), tokens] = 1
    paths.follow([1, 2], [word], logits_BTV, 8)
    assert paths.untold
    paths.settle(torch.tensor([[0] * 4, [*letters, EOS], [letters[1], EOS, 0, 0]]))
    assert paths.scores == (1.0, 1.0, 0.0)
    assert not paths.untold


def test_ends_that_the_model_cannot_say_end_nothing(bench, configured):
    sample, (own,) = bench.samples[0], [OWN]
    evaluator = Evaluator(bench.model, bench.prompter, CachedFeatures(bench.store, (3,)))
    expected = evaluator.scores(replace(sample, answers=("two",)), [own], Pruning(None))
    configured({})
    bench.model.generation_config.eos_token_id = [EOS, -1, 10**6]
    assert Greedy(bench.model).ends == (EOS,)
    evaluator = Evaluator(bench.model, bench.prompter, CachedFeatures(bench.store, (3,)))
    assert evaluator.scores(replace(sample, answers=("two",)), [own], Pruning(None)) == expected


def test_a_word_that_pads_is_in_no_answer(bench, configured):
    """As Qwen's 0, which is an exclamation mark."""
    configured({"suppress_tokens": [0, 1]})
    (word,) = bench.processor.tokenizer.convert_tokens_to_ids([" yes"])
    bench.model.generation_config.pad_token_id = word
    evaluator = Evaluator(bench.model, bench.prompter, CachedFeatures(bench.store, (0, 1, 2, 3)))
    candidates = [Candidate(str(n), tuple(float(n == layer) for layer in range(5)), 1.0) for n in range(4)]
    lengths = 0
    for sample in bench.samples[::2]:
        together = evaluator.answers(sample, candidates, Pruning(None))
        assert together == [evaluator.answers(sample, [one], Pruning(None))[0] for one in candidates]
        lengths = max(lengths, len({len(text.split()) for text in together}))
    assert lengths > 1


def test_settings_are_what_an_answer_depends_on(bench, configured):
    plain = Greedy(bench.model).settings
    assert plain == {"eos_token_id": str(EOS)}
    configured({"temperature": 0.3, "top_p": 0.1, "do_sample": True, "num_beams": 5, "max_new_tokens": 3})
    assert Greedy(bench.model).settings == plain
    configured({"repetition_penalty": 1.1, "min_length": 3})
    assert Greedy(bench.model).settings == {**plain, "min_length": "3", "repetition_penalty": "1.1"}
    configured({"eos_token_id": [0]})
    assert Greedy(bench.model).settings != plain


def test_what_is_not_followed_is_said_once(bench, configured, capsys):
    progress.note_once.cache_clear()
    Greedy(bench.model).say()
    assert not capsys.readouterr().err
    configured({"do_sample": True, "num_beams": 4, "stop_strings": ["x"], "repetition_penalty": 2.0})
    for _ in range(2):
        Greedy(bench.model).say()
    told = capsys.readouterr().err
    assert told.count("asks for do_sample=True, num_beams=4, which is not followed") == 1
    assert told.count("ends answers at stop_strings") == 1
    assert "repetition_penalty" not in told


@pytest.mark.parametrize(
    "config",
    [
        {"eos_token_id": None, "exponential_decay_length_penalty": (1, 1.5)},
        {"bad_words_ids": [["red"]]},
        {"bad_words_ids": [[10**6]]},
        {"sequence_bias": [[[10**6], 1.0]]},
        {"sequence_bias": "red"},
        {"repetition_penalty": -1.0},
        {"min_new_tokens": "two"},
    ],
    ids=str,
)
def test_a_config_that_cannot_be_used_is_refused(bench, monkeypatch, config):
    monkeypatch.setattr(bench.model, "generation_config", deepcopy(bench.model.generation_config))
    for name, value in config.items():
        setattr(bench.model.generation_config, name, value)
    with pytest.raises(ModelError, match=r"generation config cannot be used \(.+\); mend its generation_config.json"):
        Greedy(bench.model)
