"""What a router sees of a rendered prompt."""

import pytest

from clasp_calib.serving.last_question import LastQuestion

LLAVA = "USER: <image>\n{question}\nAnswer the question using a single word or phrase. ASSISTANT:"
QWEN = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    "<|vision_start|><|image_pad|><|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n"
)
MARKS = {
    "llava": ["<s>", "</s>", "<image>"],
    "qwen": ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"],
}


def llava(messages):
    text = ""
    for message in messages:
        said = "".join(part.get("text", "<image>\n") for part in message["content"])
        text += f"USER: {said} " if message["role"] == "user" else f"ASSISTANT: {said}</s>"
    return f"{text}ASSISTANT:"


def qwen(messages):
    text = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    for message in messages:
        picture = "<|vision_start|><|image_pad|><|vision_end|>"
        said = "".join(part.get("text", picture) for part in message["content"])
        text += f"<|im_start|>{message['role']}\n{said}<|im_end|>\n"
    return f"{text}<|im_start|>assistant\n"


TEMPLATES = {"llava": (LLAVA, llava), "qwen": (QWEN, qwen)}


def turn(role, *parts):
    return {"role": role, "content": [{"type": "image"} if part is None else {"text": part} for part in parts]}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([turn("user", None, "What colour is it?")], "What colour is it?"),
        ([turn("user", "What colour is it?", None)], "What colour is it?"),
        ([turn("user", None, "Which is left,", None, " this one?")], "Which is left, this one?"),
        (
            [turn("user", None, "What is it?"), turn("assistant", "A cup."), turn("user", "How many\nare there?")],
            "How many\nare there?",
        ),
        ([turn("user", None, "What does the USER say: hello?")], "What does the USER say: hello?"),
        ([turn("user", None, "Which superuser: john or jane?")], "Which superuser: john or jane?"),
        ([turn("user", None, "What does the sign USER: say?")], "What does the sign USER: say?"),
        ([turn("user", None, "Does it say ASSISTANT: or user?")], "Does it say ASSISTANT: or user?"),
        ([turn("user", None, "")], ""),
    ],
)
def test_it_is_the_last_turn_without_template_and_pictures(name, messages, expected):
    prompt, render = TEMPLATES[name]
    words = str.split
    found, follows = LastQuestion.of(prompt, render, MARKS[name])(render(messages))
    assert words(found) == words(expected)
    assert follows


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_the_calibration_had_behind_every_question_is_left_out(name):
    _, render = TEMPLATES[name]
    asked = "What is it?\nAnswer the question using a single word or phrase."
    (before, behind) = render([turn("user", None, "\0")]).split("\0")
    template = f"{before}{asked.replace('What is it?', '{question}')}{behind}"
    found = LastQuestion.of(template, render, MARKS[name])
    assert found(render([turn("user", None, asked)])) == ("What is it?", True)
    assert found(render([turn("user", None, "What is it?")])) == ("What is it?", True)


def test_a_tokenizer_may_change_case_and_white_space():
    prompt, render = TEMPLATES["llava"]
    found = LastQuestion.of(prompt, render, MARKS["llava"])
    assert found("user:   <image> what  is it? assistant:") == ("what  is it?", True)


@pytest.mark.parametrize("name", TEMPLATES)
def test_without_a_chat_template_the_calibration_s_own_is_followed(name):
    template, _ = TEMPLATES[name]
    found = LastQuestion.of(template, None, MARKS[name])
    assert found(template.replace("{question}", "Is it red?")) == ("Is it red?", True)


def test_a_prompt_of_another_template_is_all_question():
    prompt, render = TEMPLATES["qwen"]
    assert LastQuestion.of(prompt, render, MARKS["qwen"])("Look: what is it?") == ("Look: what is it?", False)
