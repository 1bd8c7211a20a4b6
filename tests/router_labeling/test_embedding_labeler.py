"""The embedding's labels: what the packaged head knows, whom it asks, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest

import clasp_calib as cc
from clasp_calib.common.errors import InputError
from clasp_calib.router_labeling import available
from clasp_calib.router_labeling.embedding_labeler import EmbeddingLabeler, rule_votes
from clasp_calib.router_labeling.escalation import EscalatingLabeler
from clasp_calib.router_labeling.fallback import packaged_router
from clasp_calib.router_labeling.intent_head import NO_VOTE, load_head
from clasp_calib.router_labeling.labelers import Guess, KeywordLabeler, load_scheme
from clasp_calib.router_labeling.measured import CONFUSIONS, expected_accuracy
from clasp_calib.router_labeling.plain_question import LONGEST, plain_question
from clasp_calib.router_labeling.server_labeler import ServerLabeler
from clasp_calib.router_labeling.taxonomy import packaged
from clasp_calib.router_labeling.vllm_labeler import VLLMLabeler

SCHEME = load_scheme()
REPORT = Path(__file__).parent / "intents_report.jsonl"


def labelled(questions, labeler=None):
    return dict((labeler or EmbeddingLabeler()).ask(questions, SCHEME))


def macro(rows, guesses) -> float:
    right = {}
    for row, guess in zip(rows, guesses, strict=True):
        right.setdefault(row["class"], []).append(SCHEME.taxonomy.class_of(guess.intent) == row["class"])
    return float(np.mean([np.mean(found) for found in right.values()]))


def test_it_is_better_than_rules_on_questions_that_neither_was_made_on():
    pytest.importorskip("onnxruntime")
    rows = [json.loads(line) for line in REPORT.read_text(encoding="utf-8").splitlines()]
    questions = [row["question"] for row in rows]
    guesses, rules = labelled(questions), dict(KeywordLabeler().ask(questions, SCHEME))
    found, theirs = (macro(rows, [of[place] for place in range(len(rows))]) for of in (guesses, rules))
    assert found > theirs + 0.1
    sure = np.array([guesses[place].confidence for place in range(len(rows))])
    right = np.array([SCHEME.taxonomy.class_of(guesses[n].intent) == row["class"] for n, row in enumerate(rows)])
    assert right[sure > 0.9].mean() > right[sure < 0.5].mean() + 0.25


def test_the_same_question_has_the_same_label_in_any_company():
    pytest.importorskip("onnxruntime")
    questions = [f"How many {thing} are on the {place}?" for thing in ("cups", "dogs") for place in ["table", "roof"]]
    together = labelled([*questions, "x " * 500])
    for place, question in enumerate(questions):
        alone = labelled([question])[0]
        assert alone.intent == together[place].intent == "counting"
        assert alone.confidence == pytest.approx(together[place].confidence, abs=2e-4)
        assert json.loads(alone.raw) == {"intent": "counting"}
        assert alone.source == "embedding"


def test_unsure_answers_become_the_default_intent_if_wanted():
    pytest.importorskip("onnxruntime")
    question = "the sign by the kettle"
    (plain,) = labelled([question]).values()
    assert (plain.intent != SCHEME.taxonomy.default_intent, plain.source) == (True, "embedding")
    (guess,) = labelled([question], EmbeddingLabeler(default_below=1.0)).values()
    assert (guess.intent, guess.source, guess.raw) == (SCHEME.taxonomy.default_intent, "default", "")
    assert guess.confidence == plain.confidence
    for wrong in (2, None):
        with pytest.raises(InputError, match="from 0 to 1"):
            EmbeddingLabeler(default_below=wrong)


@pytest.mark.parametrize(
    "form",
    [
        "{}\nA. yes\nB. no\nAnswer with the option's letter from the given choices directly.",
        "<image>\n{} Answer the question using a single word or phrase.",
        "   {}" + " " * 3000,
    ],
)
def test_answer_formats_change_no_label(form):
    pytest.importorskip("onnxruntime")
    questions = ["How many cups are there?", "What does the label say?", "Is the dog left of the car?"]
    plain, dressed = labelled(questions), labelled([form.format(question) for question in questions])
    assert [plain[n].intent for n in range(3)] == [dressed[n].intent for n in range(3)]


def test_of_a_long_question_both_ends_are_seen():
    assert plain_question("a " * 900 + "why?", SCHEME.rules).endswith(" a why?")
    assert len(plain_question("x" * 5000, SCHEME.rules)) == LONGEST
    assert plain_question("  What   is\nthis ", SCHEME.rules) == "what is this"
    assert plain_question("a\ud800b", SCHEME.rules) == "a?b"
    assert plain_question("<image>", SCHEME.rules) == "<image>"


def test_the_packaged_head_fits_what_is_packaged_beside_it():
    head = load_head(Path(str(packaged("assets/intent-head.safetensors"))))
    assert head.taxonomy == SCHEME.taxonomy.digest
    assert head.rules == SCHEME.rules.digest, "the rules changed: python -m tools.labels.train"


def test_another_taxonomy_and_another_embedder_are_refused(tmp_path):
    other = SCHEME.taxonomy.model_copy(update={"default_intent": "counting"})
    with pytest.raises(InputError, match="packaged head knows the packaged taxonomy only"):
        EmbeddingLabeler().fingerprint(load_scheme(other))
    with pytest.raises(InputError, match="trained on vectors of"):
        EmbeddingLabeler(embedder=str(tmp_path)).fingerprint(SCHEME)


def test_votes_are_places_of_intents():
    intents = list(SCHEME.taxonomy.intents)
    assert rule_votes(["How many dogs?", "zxcv"], SCHEME.rules, intents) == [intents.index("counting"), NO_VOTE]


class Fixed:
    """Says one intent with a confidence by question, and remembers what it was asked."""

    def __init__(self, intent, confidences=None):
        self.intent, self.confidences, self.asked = intent, confidences or {}, []

    def fingerprint(self, scheme):
        return json.dumps({"labeler": self.intent})

    def ask(self, questions, scheme):
        self.asked += questions
        for place, question in reversed(list(enumerate(questions))):
            yield place, Guess(self.intent, self.confidences.get(question), "")


def test_only_unsure_questions_are_passed_on():
    cheap, dear = Fixed("counting", {"a": 0.9, "b": 0.59, "c": 0.6}), Fixed("other")
    labeler = EscalatingLabeler(cheap, dear, 0.6)
    found = dict(labeler.ask(["a", "b", "c", "d"], SCHEME))
    assert [found[place].intent for place in range(4)] == ["counting", "other", "counting", "other"]
    assert sorted(dear.asked) == ["b", "d"]
    assert json.loads(labeler.fingerprint(SCHEME))["second"] == {"labeler": "other"}
    assert EscalatingLabeler(cheap, dear, 0.7).fingerprint(SCHEME) != labeler.fingerprint(SCHEME)
    with pytest.raises(InputError, match="above 0, up to 1"):
        EscalatingLabeler(cheap, dear, 0)


def test_what_the_second_labeler_cannot_answer_keeps_the_first_guess():
    class Failing(Fixed):
        def ask(self, questions, scheme):
            for place, _ in enumerate(questions):
                yield place, Guess("other", None, "no label after 3 attempts", "default")

    found = dict(EscalatingLabeler(Fixed("counting", {"a": 0.1}), Failing("other"), 0.6).ask(["a"], SCHEME))
    assert (found[0].intent, found[0].confidence) == ("counting", 0.1)


def test_what_is_not_english_is_passed_on_however_sure_the_embedding_is():
    pytest.importorskip("onnxruntime")
    german, dear = "Wie viele Hunde sind auf dem Bild zu sehen?", Fixed("counting")
    (guess,) = labelled([german]).values()
    assert (guess.confidence, guess.source) == (None, "embedding")
    assert len(dict(EscalatingLabeler(EmbeddingLabeler(), dear, 0.01).ask([german, "How many dogs?"], SCHEME))) == 2
    assert dear.asked == [german]


def test_sure_questions_cost_no_call():
    cheap, dear = Fixed("counting", {"a": 0.9}), Fixed("other")
    assert len(dict(EscalatingLabeler(cheap, dear, 0.6).ask(["a"], SCHEME))) == 1
    assert dear.asked == []


def test_the_best_labeler_there_is(monkeypatch):
    monkeypatch.setattr(available, "_lacking_for_vllm", lambda _: "vLLM is not installed")
    monkeypatch.setattr(available, "lacking_for_embedding", lambda: None)
    embedding = EmbeddingLabeler()

    def best(**changes):
        told = {"server": None, "offline": VLLMLabeler(), "embedding": embedding, "scheme": SCHEME}
        return available.best_labeler(**{**told, **changes})

    assert best()[0] is embedding
    assert "an embedding is installed" in best()[1]
    other = load_scheme(SCHEME.taxonomy.model_copy(update={"default_intent": "counting"}))
    with pytest.raises(InputError, match="cannot read"):
        best(embedding=EmbeddingLabeler(head="no-such-head"))
    labeler, why = best(scheme=other)
    assert isinstance(labeler, KeywordLabeler)
    assert "packaged taxonomy only" in why
    assert best(server=ServerLabeler("http://127.0.0.1:9/v1"))[0] is embedding
    monkeypatch.setattr(available, "lacking_for_embedding", lambda: "onnxruntime cannot be found")
    labeler, why = best()
    assert isinstance(labeler, KeywordLabeler)
    assert "onnxruntime cannot be found" in why


def test_what_to_expect_is_said_of_what_was_measured():
    assert "% right on 405 varied questions" in expected_accuracy(KeywordLabeler(), SCHEME)
    assert "% right on 405 varied questions" in expected_accuracy(EmbeddingLabeler(), SCHEME)
    mine = EmbeddingLabeler(head=EmbeddingLabeler().trained)
    assert "held out in training" in expected_accuracy(mine, SCHEME)
    assert expected_accuracy(EmbeddingLabeler(default_below=0.5), SCHEME) is None
    assert expected_accuracy(VLLMLabeler(), SCHEME) is None
    other = load_scheme(SCHEME.taxonomy.model_copy(update={"default_intent": "counting"}))
    assert expected_accuracy(KeywordLabeler(), other) is None


def test_the_packaged_routers_confusions_are_those_of_today():
    rows = [json.loads(line) for line in REPORT.read_text(encoding="utf-8").splitlines()]
    told = json.loads(packaged(CONFUSIONS).read_text(encoding="utf-8"))["packaged router"]
    counts = np.zeros((len(told["classes"]),) * 2, int)
    for row in rows:
        given = packaged_router().route(row["question"]).label
        counts[told["classes"].index(row["class"]), told["classes"].index(given)] += 1
    assert np.abs(np.array(told["counts"]) - counts).sum() / 2 <= 1, "run benchmarks/labels.py"


@pytest.mark.parametrize("name", ["keywords", "embedding"])
def test_the_packaged_confusions_are_those_of_today(name):
    """Of labels as `label` gives them; a few questions may lie so close between two classes that rounding decides."""
    pytest.importorskip("onnxruntime")
    rows = [json.loads(line) for line in REPORT.read_text(encoding="utf-8").splitlines()]
    packaged_counts = json.loads(packaged(CONFUSIONS).read_text(encoding="utf-8"))[name]
    classes = SCHEME.taxonomy.classes
    labeler = KeywordLabeler() if name == "keywords" else EmbeddingLabeler()
    made = cc.label([{"question": row["question"]} for row in rows], labeler=labeler)
    counts = np.zeros((len(classes), len(classes)), int)
    for row, given in zip(rows, made.table["class"].to_pylist(), strict=True):
        counts[classes.index(row["class"]), classes.index(given)] += 1
    assert packaged_counts["classes"] == list(classes)
    moved = np.abs(np.array(packaged_counts["counts"]) - counts).sum() / 2
    assert moved <= (0 if name == "keywords" else 2), "run benchmarks/labels.py"
