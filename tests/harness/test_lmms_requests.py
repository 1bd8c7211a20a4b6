"""Requests of lmms-eval in all their shapes, made as its tasks make them."""

from functools import partial
from types import SimpleNamespace

import pytest
from PIL import Image

from clasp_calib.common.errors import ComputationError, InputError
from clasp_calib.harness.lmms_requests import BEAMS, LONGEST, LmmsRequest

PICTURE = Image.new("RGB", (4, 4), "red")
OTHER = Image.new("RGB", (4, 4), "blue")


class Task:
    """What a request needs of an ``lmms_eval.api.task.Task``."""

    def __init__(self, text=None, around=None):
        self.config = SimpleNamespace(doc_to_text=text)
        self.lmms_eval_specific_kwargs = around

    def doc_to_visual(self, doc):
        return doc["shown"]

    def doc_to_messages(self, doc, **of_round):
        return doc["messages"] if not of_round else (doc["messages"], len(of_round["previous_output"]) > 1, None, None)

    def doc_to_text(self, doc):
        return self.config.doc_to_text(doc)


def with_prompts(doc, around):
    return f"{around['pre_prompt']}{doc['question']}{around['mca_post_prompt']}"


def request(kind, *arguments, doc, settings=None, metadata=None):
    every = (*arguments, 0, "gqa", "test")
    instance = SimpleNamespace(args=every, task_name="gqa", request_type=kind, idx=0, metadata=metadata)
    return LmmsRequest.of(instance, {"gqa": {"test": [doc]}})


def simple(doc, task=None, settings=None, text="What is this?"):
    task = task or Task()
    return request("generate_until", text, settings or {}, task.doc_to_visual, doc=doc)


def chat(messages, task=None):
    task = task or Task()
    return request("generate_until", "?", task.doc_to_messages, {}, doc={"messages": messages})


def test_a_text_and_pictures_are_one_turn():
    asked = simple({"shown": [PICTURE, [OTHER]]}).prompted()
    assert asked.turns == (("user", [None, None, "What is this?"]),)
    assert asked.media == (PICTURE, OTHER)
    assert asked.question == "What is this?"
    assert asked.name == "document 0 of the task gqa"


def test_places_in_a_text_are_kept():
    asked = simple({"shown": [PICTURE, OTHER]}, text="Is <image> or <image> red?").prompted()
    assert asked.turns == (("user", ["Is ", None, " or ", None, " red?"]),)
    with pytest.raises(InputError, match="holds <image> 2 times and comes with 1 picture"):
        simple({"shown": [PICTURE]}, text="Is <image> or <image> red?").prompted()


def test_nothing_shown_is_text_alone():
    assert simple({"shown": None}).prompted().modality == "text"
    assert simple({"shown": ["a/film.mp4"]}).prompted().modality == "video"


def test_messages_are_turns_with_pictures_in_their_places():
    turns = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "First "}, {"type": "image", "url": PICTURE}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
        {"role": "user", "content": [{"type": "image", "url": OTHER}, {"type": "text", "text": "And this?"}]},
    ]
    asked = chat(turns).prompted()
    assert asked.turns == (
        ("system", ["Be short."]),
        ("user", ["First ", None]),
        ("assistant", ["A cat."]),
        ("user", [None, "And this?"]),
    )
    assert asked.media == (PICTURE, OTHER)
    assert asked.question == "And this?"


def test_a_text_in_messages_may_say_itself_where_pictures_are():
    content = [{"type": "image", "url": PICTURE}, {"type": "text", "text": "Is <image> red?"}]
    assert chat([{"role": "user", "content": content}]).prompted().turns == (("user", ["Is ", None, " red?"]),)


def test_the_class_is_that_of_the_question_alone():
    task = Task(with_prompts, {"pre_prompt": "Look. ", "mca_post_prompt": "\nAnswer A or B.", "frame_num": 8})
    doc = {"question": "Where is it?", "shown": [PICTURE]}
    assert simple(doc, task, text="Look. Where is it?\nAnswer A or B.").prompted().question == "Where is it?"


def test_a_task_whose_function_fails_without_prompts_is_routed_by_all(capsys):
    def fussy(doc, around):
        return {"": 1}["no such key"] if not around["pre_prompt"] else "Look. Where is it?"

    doc = {"shown": [PICTURE]}
    asked = simple(doc, Task(fussy, {"pre_prompt": "Look. "}), text="Look. Where is it?").prompted()
    assert asked.question == "Look. Where is it?"
    assert "the class of questions of the task gqa is found by its whole prompts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "tool", "content": "?"}, "has a message of 'tool'; expected one of system, user, assistant"),
        ({"role": "assistant", "content": "Yes."}, "does not end with a message of the user"),
        ({"role": "user", "content": [{"type": "audio", "url": "a.wav"}]}, "has a part of the type 'audio'"),
        ({"role": "user", "content": [{"type": "video", "url": "a.gif"}]}, "shows the video 'a.gif'"),
        ({"role": "user", "content": [{"type": "image", "url": 3}]}, "shows a int; expected pictures"),
    ],
)
def test_what_cannot_be_asked_is_named(message, expected):
    with pytest.raises(InputError, match=f"document 0 of the task gqa {expected}"):
        chat([message]).prompted()


def test_a_failing_function_of_a_task_is_named():
    with pytest.raises(ComputationError, match=r"making the prompt of document 0 of the task gqa failed \(KeyError"):
        simple({}).prompted()


def test_unconditional_likelihoods_are_refused():
    instance = SimpleNamespace(args=("", "red"), task_name="gqa", request_type="loglikelihood", idx=0, metadata={})
    with pytest.raises(InputError, match="acc_mutual_info; ask for acc alone"):
        LmmsRequest.of(instance, {})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (LONGEST, [], {})),
        ({"max_new_tokens": 16, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False}, (16, [], {})),
        ({"until": ["\n\n", "Q:"]}, (LONGEST, ["Q:"], {})),
        ({"until": ["\n", "\n\n", ""]}, (LONGEST, ["\n"], {})),
        ({"until": "ASSISTANT:"}, (LONGEST, ["ASSISTANT:"], {})),
        (
            {"temperature": 0.2, "top_p": 0.9, "num_beams": 3},
            (LONGEST, [], {"num_beams": 3, **BEAMS, "do_sample": True, "temperature": 0.2, "top_p": 0.9}),
        ),
    ],
)
def test_decoding_is_as_the_task_says(settings, expected):
    assert simple({"shown": []}, settings=settings).how_decoded() == expected


def test_decoding_that_cannot_be_followed_is_said(capsys):
    simple({"shown": []}, settings={"image_aspect_ratio": "pad"}).how_decoded()
    assert "the task gqa sets image_aspect_ratio for decoding, which clasp does not follow" in capsys.readouterr().err
    with pytest.raises(InputError, match="the task gqa decodes with"):
        simple({"shown": []}, settings={"max_new_tokens": "many"}).how_decoded()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"until": [3]}, r"ends answers at \[3\]; expected a text, or texts"),
        ({"until": 3}, "ends answers at 3; expected"),
        ({"max_new_tokens": float("inf")}, "decodes with .*max_new_tokens"),
        ({"max_new_tokens": -1}, "max_new_tokens': -1.*expected max_new_tokens and num_beams of at least 1"),
        ({"num_beams": -2}, "num_beams': -2.*expected"),
        ({"temperature": float("nan")}, "temperature': nan.*a finite temperature"),
        ({"temperature": float("inf")}, "temperature': inf.*a finite temperature"),
        ({"temperature": -0.5}, "temperature': -0.5.*not negative"),
    ],
)
def test_decoding_that_means_nothing_is_refused(settings, told):
    with pytest.raises(InputError, match=f"the task gqa {told}|the task gqa decodes with .*{told}"):
        simple({"shown": []}, settings=settings).how_decoded()


def test_an_answer_ends_at_the_first_text_that_ends_it():
    assert simple({"shown": []}, settings={"until": ["Q:", "\n\n"]}).cut(" red\n\nQ: And?") == "red"


def talk(rounds, answers):
    said = [next(rounds)]
    for answer in answers:
        try:
            said.append(rounds.send(answer))
        except StopIteration as end:
            return said, end.value
    return said, None


def test_rounds_of_texts_go_on_until_the_task_ends_them():
    def step(doc, *, previous_output, round_idx, previous_round_info):
        if round_idx == 2:
            return None, None, True, [*previous_output, "seen"], None
        return [OTHER], f"And {previous_output[-1]}?", False, previous_output, {"round": round_idx}

    task = Task()
    settings, doc = {}, {"shown": [PICTURE]}
    of = request("generate_until_multi_round", "What?", settings, task.doc_to_visual, partial(step), doc=doc)
    asked, said = talk(of.rounds(), ["a", "b"])
    assert [one.question for one in asked] == ["What?", "And a?"]
    assert [one.media for one in asked] == [(PICTURE,), (OTHER,)]
    assert said == ["a", "b", "seen"]


def test_rounds_of_messages_go_on_until_the_task_ends_them():
    messages = [{"role": "user", "content": [{"type": "text", "text": "What?"}]}]
    of = request("generate_until_multi_round", "?", Task().doc_to_messages, {}, doc={"messages": messages})
    asked, said = talk(of.rounds(), ["a", "b"])
    assert (len(asked), said) == (2, ["a", "b"])
