"""Ids of prompts and answers are those that the model's own processor makes."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from tiny_models import CHAT_TEMPLATE, EOS
from tokenizers.processors import TemplateProcessing
from transformers import AddedToken, AutoProcessor, Qwen2VLConfig

from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.scoring.templates import EXAMPLE, ChatTemplate, in_shell, say_odd_template
from clasp_calib.common.errors import InputError, ModelError
from clasp_calib.common.progress import note_once
from clasp_calib.common.samples import Sample
from clasp_calib.reference.model import MODEL, PROMPT
from clasp_calib.runtime.answering import answer

sys.path.append(str(Path(__file__).parents[1] / "cache"))
from image_processors import IMAGE_PROCESSORS

RAGGED = Qwen2VLConfig()
QUESTIONS = ["What is this?", "Is {this} or {} or {question} a brace?", "¿Qué es?", " padded ", "%s \\n <b>", "a\nb"]
MISTRAL = (
    "<s>{% for m in messages %}[INST] {% for part in m.content %}{% if part.type == 'image' %}<image>\n"
    "{% else %}{{ part.text }}{% endif %}{% endfor %} [/INST]{% endfor %}"
)
LLAVA = MODEL.joinpath("chat_template.jinja").read_text()
TEMPLATES = [EXAMPLE, "<image>{question}", "{question}\n<image> Answer:", "{x} <image> {question} {{}}!"]


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


def test_a_video_is_its_tokens():
    processor = IMAGE_PROCESSORS["qwen2_vl"]()
    image, video = (processor.tokenizer.convert_tokens_to_ids(f"<{kind}>") for kind in ("image", "video"))
    prompter = Prompter(processor, RAGGED, EXAMPLE)
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


def test_a_question_has_a_place_for_every_picture_or_none(bench):
    assert bench.prompter.text("<image>\nWhat?") == bench.prompter.text("What?")
    assert bench.prompter.text("A <image>, B <image>", 2).count("<image>") == 2
    with pytest.raises(InputError, match=r"'<image> or <image>' holds <image> 2 times and comes with 1 picture\(s\)"):
        bench.prompter.prompt("<image> or <image>", 16)


def test_a_question_brings_no_token_of_a_picture():
    processor = IMAGE_PROCESSORS["qwen2_vl"]()
    prompter = Prompter(processor, RAGGED, EXAMPLE)
    for token in ("<video>",):
        with pytest.raises(InputError, match=f"holds {token}; remove it"):
            prompter.text(f"What is {token}?")
        with pytest.raises(InputError, match=f"the answer 'a {token}' holds {token}; remove it"):
            prompter.answer("What?", f"a {token}")
        with pytest.raises(InputError, match=f"the prompt template '.*' holds {token} besides <image>; remove it"):
            Prompter(processor, RAGGED, f"{token}{EXAMPLE}")


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


CONVERSATIONS = [
    (["What?"], 1),
    (["Is {this} or {question} a brace?"], 1),
    ([" padded "], 1),
    (["Both?"], 2),
    (["A: ", None, " B: ", None, " which?"], 2),
]
TRIMMED = (
    "{{ bos_token }}<|system|>Be short.{% for m in messages %}<|user|>{% for part in m.content %}"
    "{% if part.type == 'image' %}(<image>){% elif part.type == 'video' %}(<video>){% else %}{{ part.text | trim }}"
    "{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, MISTRAL, TRIMMED])
@pytest.mark.parametrize(("parts", "pictures"), CONVERSATIONS)
def test_a_prompt_is_what_the_chat_template_makes_of_a_conversation(bench, template, parts, pictures):
    processor = templated(bench, template)
    prompter = Prompter(processor, bench.model)
    question = "".join(part or "<image>" for part in parts)
    places = [None] * pictures if None not in parts else []
    content = [{"type": "text", "text": part} if part else {"type": "image"} for part in [*places, *parts]]
    for part in content:
        if part["type"] == "image":
            part["image"] = Image.new("RGB", (60, 80))
    turns = [{"role": "user", "content": content}]
    made = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=True)
    assert prompter.prompt(question, [16] * pictures) == made["input_ids"][0]


def test_what_is_recorded_of_a_chat_template_is_that_template(bench):
    processor = templated(bench, TRIMMED)
    recorded = Prompter(processor, bench.model).template
    assert recorded == "<|system|>Be short.<|user|>(<image>){question}<|assistant|>"
    again = Prompter(processor, bench.model, recorded)
    assert again.text(" padded ") == recorded.replace("{question}", "padded")
    # A model whose template has changed since is asked as it was calibrated.
    changed = Prompter(templated(bench, MISTRAL), bench.model, recorded)
    assert changed.template == recorded
    assert changed.text("Why?") == recorded.replace("{question}", "Why?")


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (None, "has no chat template"),
        ("{{ raise_exception('no pictures') }}", "fails on a picture and a question .TemplateError: no pictures"),
        ("{% for m in messages %}{{ m.content[1].text }}{% endfor %}", "makes '{question}' of a picture and the"),
    ],
)
def test_a_model_without_a_template_is_refused_until_one_is_given(bench, template, why):
    processor = templated(bench, template)
    with pytest.raises(ModelError, match=f"{why}.*; give the model's prompt with --prompt"):
        Prompter(processor, bench.model)
    assert Prompter(processor, bench.model, EXAMPLE).text("Why?") == "USER: <image>\nWhy? ASSISTANT:"


def test_pictures_that_a_chat_template_moves_are_said_once(bench, capsys):
    note_once.cache_clear()
    prompter = Prompter(templated(bench, LLAVA), bench.model)
    prompter.text("Both?", 2)
    assert not capsys.readouterr().err
    for _ in range(2):
        assert prompter.text("A: <image> B: <image>") == "USER: <image>\n<image>\nA:   B:  ASSISTANT:"
    assert capsys.readouterr().err.count("puts pictures before the text, wherever questions have <image>") == 1


@pytest.mark.parametrize(
    ("template", "question", "pictures", "made"),
    [
        (EXAMPLE, "Both?", 2, "USER: <image>\n<image>\nBoth? ASSISTANT:"),
        (EXAMPLE, "A <image> B <image>?", 2, "USER: A <image> B <image>? ASSISTANT:"),
        (EXAMPLE, "<image><image>\nBoth?", 2, "USER: <image>\n<image>\nBoth? ASSISTANT:"),
        ("<image>{question}", "Both?", 2, "<image><image>Both?"),
        ("<s><image></s>{question}:", "Both?", 2, "<s><image></s><s><image></s>Both?:"),
        ("<s><image></s>{question}:", "A <image> B <image>?", 2, "A <s><image></s> B <s><image></s>?:"),
        ("<s><image>\n{question}", "Both?", 2, "<s><image>\n<image>\nBoth?"),
    ],
)
def test_several_pictures_in_a_prompt_that_is_given(bench, template, question, pictures, made):
    assert Prompter(templated(bench, None), bench.model, template).text(question, pictures) == made


def test_a_template_for_a_shell():
    for template in (EXAMPLE, 'It\'s "so":\n<image> {question}'):
        told = subprocess.run(
            ["bash", "-c", f"printf %s {in_shell(template)}"], check=True, capture_output=True, text=True
        )
        assert told.stdout == template


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (EXAMPLE, ""),
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


def test_the_embedded_model_is_asked_as_it_was_trained():
    assert ChatTemplate(AutoProcessor.from_pretrained(MODEL)).text == PROMPT
