"""vLLM in this process, stood in for: what it is asked, what is asked again, and how it is known."""

import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from clasp_calib.common.errors import LabelerError
from clasp_calib.router_labeling.journalled import JournalledLabeler
from clasp_calib.router_labeling.labelers import load_scheme
from clasp_calib.router_labeling.prompt import longest_answer, messages
from clasp_calib.router_labeling.vllm_labeler import VLLMLabeler

SCHEME = load_scheme()
GOOD = '{"intent":"counting"}'


class LLM:
    """Answers ``counting``; to questions that hold "bad" with no JSON, as often as ``bad`` says."""

    made: list["LLM"] = []  # noqa: RUF012 - of the whole test
    bad = 99

    def __init__(self, model: str, revision: str | None, **settings: Any):
        if "no such" in model:
            raise OSError("no such model")
        self.settings = settings
        self.model_config = SimpleNamespace(max_model_len=settings["max_model_len"])
        self.calls: list[tuple[list[str], float]] = []
        self.made.append(self)

    def get_tokenizer(self) -> Any:
        return SimpleNamespace(encode=lambda text: text.split())

    def chat(self, conversations: Any, sampling: Any, **_: Any) -> list[Any]:
        questions = [conversation[1]["content"] for conversation in conversations]
        if any("die" in question for question in questions):
            raise RuntimeError("the engine died")
        attempts = sum(any("bad" in question for question in asked) for asked, _ in self.calls)
        self.calls.append((questions, sampling.temperature))
        texts = ["what?" if "bad" in question and attempts < self.bad else GOOD for question in questions]
        place = SimpleNamespace(decoded_token=GOOD, logprob=-0.5)
        return [
            SimpleNamespace(
                outputs=[SimpleNamespace(text=text, finish_reason="stop", token_ids=[7], logprobs=[{7: place}])]
            )
            for text in texts
        ]


@pytest.fixture
def vllm(monkeypatch):
    module = SimpleNamespace(LLM=LLM, SamplingParams=SimpleNamespace, __version__="0.99")
    monkeypatch.setitem(sys.modules, "vllm", module)
    params = SimpleNamespace(StructuredOutputsParams=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", params)
    monkeypatch.setattr(LLM, "made", [])
    return LLM


def test_questions_are_asked_in_chunks_and_bad_replies_again(vllm, monkeypatch):
    monkeypatch.setattr(vllm, "bad", 1)
    guesses = dict(VLLMLabeler("m", chunk=2).ask(["How many?", "a bad one", "And now?"], SCHEME))
    assert {(guess.intent, guess.source) for guess in guesses.values()} == {("counting", "llm")}
    assert guesses[0].confidence == pytest.approx(0.6065, abs=1e-3)
    (engine,) = vllm.made
    assert [(len(asked), temperature) for asked, temperature in engine.calls] == [(2, 0.0), (1, 0.7), (1, 0.0)]


def test_what_gets_no_label_says_why(vllm):
    taken = len(messages(SCHEME.taxonomy, "")[0]["content"].split()) + longest_answer(SCHEME.taxonomy) + 32
    labeler = VLLMLabeler("m", engine={"max_model_len": taken + 100})
    guesses = dict(labeler.ask(["bad", "a " * 400, "How many?", "a" * 400], SCHEME))
    assert [guesses[n].source for n in range(4)] == ["default", "default", "llm", "llm"]
    assert "no label after 3 attempts: the reply is not JSON" in guesses[0].raw
    assert "does not fit into the model's context" in guesses[1].raw
    assert guesses[1].intent == SCHEME.taxonomy.default_intent
    assert not any("a a a" in question for asked, _ in labeler.llm.calls for question in asked)


def test_the_engine_starts_when_it_is_needed_and_once(vllm, tmp_path):
    labeler = VLLMLabeler("m", revision="v1", engine={"max_num_seqs": 3})
    told = json.loads(labeler.fingerprint(SCHEME))
    assert (told["labeler"], told["vllm"], told["model"], told["revision"]) == ("vllm", "0.99", "m", "v1")
    assert vllm.made == []
    for _ in range(2):
        list(JournalledLabeler(labeler, SCHEME, tmp_path).label(["a", "b"]))
    (engine,) = vllm.made
    assert len(engine.calls) == 1
    assert engine.settings["max_num_seqs"] == 3
    list(JournalledLabeler(labeler, SCHEME, tmp_path).label(["c"]))
    assert len(vllm.made) == 1


def test_what_goes_wrong_says_what_to_do(vllm, monkeypatch):
    with pytest.raises(LabelerError, match=r"cannot load the model 'no such one' .*--labeler-model"):
        list(VLLMLabeler("no such one").ask(["a"], SCHEME))
    with pytest.raises(LabelerError, match=r"engine died .* give the same command again"):
        list(VLLMLabeler("m").ask(["die"], SCHEME))
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(LabelerError, match=r"needs vLLM, .* pip install 'clasp-calib\[vllm\]'"):
        VLLMLabeler("m").fingerprint(SCHEME)
