"""Ids of prompts and answers are those that the model's own processor makes."""

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from tiny_models import CHAT_TEMPLATE, EOS
from tokenizers.processors import TemplateProcessing
from transformers import AddedToken, AutoProcessor, Qwen2VLConfig

from clasp_calib.calib.scoring.prompting import PROMPT, Prompter, own_template, say_odd_template, say_own_template
from clasp_calib.common.errors import InputError, ModelError
from clasp_calib.common.progress import note_once
from clasp_calib.common.samples import Sample
from clasp_calib.reference.model import MODEL
from clasp_calib.runtime.answering import answer

sys.path.append(str(Path(__file__).parents[1] / "cache"))
from image_processors import IMAGE_PROCESSORS

RAGGED = Qwen2VLConfig()
QUESTIONS = ["What is this?", "Is {this} or {} or {question} a brace?", "¿Qué es?", " padded ", "%s \\n <b>", "a\nb"]
MISTRAL = (
    "<s>{% for m in messages %}[INST] {% for part in m.content %}{% if part.type == 'image' %}<image>\n"
    "{% else %}{{ part.text }}{% endif %}{% endfor %} [/INST]{% endfor %}"
)
TEMPLATES = [PROMPT, "<image>{question}", "{question}\n<image> Answer:", "{x} <image> {question} {{}}!"]


def processed(bench, text):
    picture = Image.new("RGB", (60, 80))
    return bench.processor(images=picture, text=text, return_tensors="pt").input_ids[0].tolist()


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_prompt_is_what_the_processor_makes_of_it_with_a_picture(bench, template):
    prompter = Prompter(bench.processor, bench.model, template)
    for question in QUESTIONS:
        text = prompter.text(question)
        assert text == template.replace("{question}", question, 1)
        assert prompter.prompt(question) == processed(bench, text)


@pytest.mark.parametrize("name", IMAGE_PROCESSORS)
def test_pictures_of_any_size_in_any_architecture(name):
    """The number of their tokens is all that has to be known of them."""
    processor = IMAGE_PROCESSORS[name]()
    prompter = Prompter(processor, RAGGED)
    for size in ((60, 60), (60, 130), (100, 70)):
        picture = Image.new("RGB", size, (200, 10, 10))
        for question in QUESTIONS[:2]:
            expected = processor(images=[picture], text=prompter.text(question))["input_ids"][0]
            visual = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
            assert prompter.prompt(question, list(expected).count(visual)) == list(expected)


def test_a_video_is_its_tokens():
    processor = IMAGE_PROCESSORS["qwen2_vl"]()
    image, video = (processor.tokenizer.convert_tokens_to_ids(f"<{kind}>") for kind in ("image", "video"))
    prompter = Prompter(processor, RAGGED)
    ids = prompter.prompt("What happens?", 5, "video")
    assert ids == [video if token == image else token for token in prompter.prompt("What happens?", 5)]
    assert ids.count(video) == 5


def test_the_number_of_tokens_has_to_be_known(bench):
    with pytest.raises(InputError, match="differ in their number of visual tokens; give that of this one"):
        Prompter(bench.processor, RAGGED).prompt("What?")


@pytest.mark.parametrize("answer", ["yes", "two red", "Kühe", "{}", ""])
def test_an_answer_continues_its_prompt(bench, answer):
    for question in QUESTIONS:
        ids = bench.prompter.answer(question, answer)
        whole = processed(bench, f"{bench.prompter.text(question)} {answer}")
        assert bench.prompter.prompt(question) + ids == whole


@given(st.text(st.characters(min_codepoint=32, max_codepoint=400), max_size=12))
@settings(deadline=None, max_examples=30)
def test_decoding_undoes_an_answer(bench, answer):
    ids = bench.prompter.answer("What?", answer)
    assert bench.prompter.decode([ids]) == [answer.strip()]


def test_an_answer_that_would_merge_with_its_prompt_is_tokenised_alone(bench):
    processor = AutoProcessor.from_pretrained(bench.model.config._name_or_path)
    processor.tokenizer.add_tokens([AddedToken(": yes", normalized=False), AddedToken("\nno", normalized=False)])
    prompter = Prompter(processor, bench.model)
    assert prompter.answer("What?", "no") == bench.prompter.answer("What?", "no")
    assert prompter.answer("What?", "yes") == processor.tokenizer("yes", add_special_tokens=False).input_ids
    behind = Prompter(processor, bench.model, "<image>{question}\n")
    assert behind.answer("What?", "no") == processor.tokenizer("no", add_special_tokens=False).input_ids


@pytest.mark.parametrize("end", [" ", "\n", "\t"])
def test_no_space_comes_before_an_answer_behind_white_space(bench, end):
    prompter = Prompter(bench.processor, bench.model, f"<image>{{question}} So:{end}")
    for word in ("blue", "red"):
        assert bench.prompter.decode([prompter.answer("What?", word)]) == [word]
    whole = prompter.prompt("What?") + prompter.answer("What?", "blue")
    assert whole == processed(bench, f"<image>What? So:{end}blue")


def test_a_tokenizer_that_ends_every_text_is_refused(bench):
    processor = AutoProcessor.from_pretrained(bench.model.config._name_or_path)
    processor.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", EOS)]
    )
    with pytest.raises(ModelError, match=r"appends '</s>' to every text, .* \(add_eos_token=False, or"):
        Prompter(processor, bench.model)


def test_as_many_tokens_are_generated_as_the_longest_accepted_answer_needs(bench):
    sample = Sample("s", "What?", None, answers=("red", "12345678", "red yes"))
    assert [bench.prompter.limit(sample, least) for least in (1, 9, 10, 11)] == [10, 10, 10, 11]


@pytest.mark.parametrize(
    "template", ["{question}", "<image>", "<image> <image> {question}", "<image>{question} {question}"]
)
def test_a_template_has_one_picture_and_a_question(bench, template):
    with pytest.raises(InputError, match=r"must hold <image> and \{question\}, once each; for instance 'USER"):
        Prompter(bench.processor, bench.model, template)


def test_a_question_brings_no_picture_of_its_own(bench):
    with pytest.raises(InputError, match="holds <image>; remove it"):
        bench.prompter.prompt("What is <image>?")


def test_an_answer_brings_no_picture_either(bench):
    with pytest.raises(InputError, match="the answer 'an <image>' holds <image>; remove it"):
        bench.prompter.answer("What?", "an <image>")


def test_a_question_is_unicode(bench):
    with pytest.raises(InputError, match=r"the question 'caf\\udce9\?' holds bytes that are not UTF-8"):
        bench.prompter.prompt("caf\udce9?")
    with pytest.raises(InputError, match=r"the prompt template '.*caf\\udce9' holds bytes that are not UTF-8"):
        say_odd_template(bench.processor, "<image>{question} caf\udce9")


def test_a_prompt_longer_than_the_context_is_refused(bench, monkeypatch):
    length = len(bench.prompter.prompt("What?"))
    config = bench.model.config.text_config
    monkeypatch.setattr(config, "max_position_embeddings", length)
    assert bench.prompter.prompt("What?")
    monkeypatch.setattr(config, "max_position_embeddings", length - 1)
    for attempt in (lambda: bench.prompter.prompt("What?"), lambda: said_of(bench, "What?")):
        with pytest.raises(InputError, match=rf"a prompt of {length} tokens.*longer than the {length - 1}.*shorten"):
            attempt()


def said_of(bench, question):
    picture = Image.new("RGB", (60, 80))
    return answer(bench.model, bench.processor, picture, bench.prompter.text(question), 1)


def templated(bench, template):
    processor = AutoProcessor.from_pretrained(bench.model.config._name_or_path)
    processor.chat_template = template
    return processor


def test_a_chat_template_becomes_a_prompt_template(bench):
    assert own_template(templated(bench, CHAT_TEMPLATE)) == PROMPT
    assert own_template(templated(bench, MISTRAL)) == "[INST] <image>\n{question} [/INST]"
    assert own_template(templated(bench, None)) is None
    assert own_template(templated(bench, "{{ raise_exception('no pictures') }}")) is None


def test_another_chat_template_is_said_once_and_its_own_is_a_prompt(bench, capsys):
    note_once.cache_clear()
    for template in (CHAT_TEMPLATE, f"{CHAT_TEMPLATE}\n", None):
        say_own_template(templated(bench, template))
    assert not capsys.readouterr().err
    for _ in range(2):
        say_own_template(templated(bench, MISTRAL))
    told = capsys.readouterr().err
    assert told.count(r"--prompt $'[INST] <image>\n{question} [/INST]' (in Python") == 1
    assert Prompter(bench.processor, bench.model, own_template(templated(bench, MISTRAL))).text("Why?")
    say_own_template(templated(bench, f"{'long ' * 200}{MISTRAL}"))
    assert len(capsys.readouterr().err) < 1500
    say_own_template(templated(bench, f'{MISTRAL} It\'s "so":'))
    assert r"""--prompt $'[INST] <image>\n{question} [/INST] It\'s "so":' (in""" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (PROMPT, ""),
        ('<image> {question} Answer as {"answer": ...} in \\boxed{}:', ""),
        (r"USER: <image>\n{question}\nASSISTANT:", r"holds \n, which the model sees so"),
        ("<image>{context} {question} {options}", "holds {context} and {options}, which"),
        ("<image>{{question}}", "holds {{question}}, which"),
        ("<s>USER: <image> {question}", "begins with <s>, which the tokenizer puts before every text"),
    ],
)
def test_what_of_a_template_may_be_meant_otherwise_is_said_once(bench, capsys, template, told):
    note_once.cache_clear()
    for _ in range(2):
        say_odd_template(bench.processor, template)
    found = capsys.readouterr().err
    assert found.count(told) == 1 if told else not found


def test_the_embedded_model_and_its_template_agree():
    processor = AutoProcessor.from_pretrained(MODEL)
    assert own_template(processor) in (None, PROMPT)
