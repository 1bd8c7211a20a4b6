"""What a labelling came to."""

import json

import pyarrow as pa
import pytest

from clasp_calib.common.errors import InputError
from clasp_calib.router_labeling.embedders import MiniLM
from clasp_calib.router_labeling.journalled import JournalledLabeler
from clasp_calib.router_labeling.label_report import label_report
from clasp_calib.router_labeling.labelers import Guess, KeywordLabeler, Scheme, load_scheme
from clasp_calib.router_labeling.rules import RuleSet
from clasp_calib.router_labeling.table import label_table

SCHEME = load_scheme()
TAXONOMY = SCHEME.taxonomy
KEYWORDS = JournalledLabeler(KeywordLabeler(), SCHEME)
QUESTIONS = {"Who wrote this?": "text", "How many dogs?": "counting", "Who wrote that?": "text", "Hm?": "object"}


class Model:
    """Says counting to everything, and fails on the third."""

    fingerprint = "{}"
    by_rules = False

    def label(self, questions, total=None):
        for number, _ in enumerate(questions):
            yield (
                Guess("other", 0.0, "no", "default") if number == 2 else Guess("counting", 0.9, '{"intent":"counting"}')
            )


def labelled(labeler, **more):
    return label_table(pa.table({"question": list(QUESTIONS), **more}), labeler, SCHEME)


def test_overrides_are_counted_against_what_the_model_had_said():
    report = label_report(labelled(Model(), gold_class=list(QUESTIONS.values())), TAXONOMY)
    assert report.rows == 4
    assert report.overridden[("counting", "text")] == 1
    assert report.overridden[("default", "text")] == 1
    assert report.sources["rule"] == sum(report.overridden.values())
    assert report.agreement == {"before": 0.25, "after": 0.75}
    assert report.confusion["before"][("text", "counting")] == 1
    assert report.confusion["after"][("text", "text")] == 2


def test_keyword_labels_override_nobody():
    report = label_report(labelled(KEYWORDS), TAXONOMY)
    assert report.overridden == {}
    assert report.agreement == {}
    assert list(report.classes) == list(TAXONOMY.classes)
    assert sum(report.classes.values()) == sum(report.sources.values()) == 4


GERMAN = ["Wie viele Hunde sind das?", "Welche Farbe hat das Auto?"]


def test_questions_that_the_rules_cannot_read_are_told():
    table = pa.table({"question": [*GERMAN, "How many dogs?", "OK"]})
    report = label_report(label_table(table, KEYWORDS, SCHEME), TAXONOMY)
    told = f"50% of the questions (2) do not look English, such as {GERMAN[0]!r}"
    assert str(report.not_english) == told
    assert f"{told}; what labelled them knows English alone" in str(report)
    assert f"{told}. What labelled them knows English alone." in report.to_markdown()
    assert "do not look English" in report._repr_html_()
    assert label_report(label_table(table, Model(), SCHEME), TAXONOMY).not_english is None
    gold = table.append_column("class", pa.array(["counting", "attribute", None, None]))
    assert label_report(label_table(gold, KEYWORDS, SCHEME), TAXONOMY).not_english is None


def test_rules_of_ones_own_may_know_another_language():
    pattern = {"id": "wie-viele", "intent": "counting", "pattern": ["wie viele"]}
    scheme = Scheme(TAXONOMY, RuleSet.model_validate({"version": 1, "rules": [pattern]}))
    own = JournalledLabeler(KeywordLabeler(), scheme)
    tables = (label_table(pa.table({"question": of}), own, scheme) for of in (GERMAN, GERMAN[:1]))
    assert [report.not_english and report.not_english.questions for report in map(told, tables)] == [1, None]


def test_the_packaged_embedding_knows_english_alone_and_others_may_not():
    for embedder, found in ((MiniLM().identity, 2), ("another", None)):
        labeler = Model()
        labeler.fingerprint = json.dumps({"labeler": "embedding", "embedder": embedder})
        report = told(label_table(pa.table({"question": GERMAN}), labeler, SCHEME))
        assert (report.not_english and report.not_english.questions) == found


def told(table):
    return label_report(table, TAXONOMY)


def test_rows_without_gold_are_left_out_of_the_confusion():
    report = label_report(labelled(Model(), gold_class=["text", None, None, None]), TAXONOMY)
    assert report.agreement == {"before": 0, "after": 1}


@pytest.mark.parametrize("gold", ["Text", 2, ["text"]])
def test_gold_classes_that_no_label_can_be_are_refused_before_anybody_is_asked(gold):
    with pytest.raises(InputError, match=r"row 1 has the gold_class .* \(2 rows have such\).*expected one of object"):
        labelled(None, gold_class=pa.array([None, gold, gold, None]))
    table = labelled(KEYWORDS).append_column("gold_class", pa.array([None, gold, gold, None]))
    with pytest.raises(InputError, match="row 1 has the gold_class"):
        label_report(table, TAXONOMY)


def test_the_page_holds_the_matrices():
    page = label_report(labelled(Model(), gold_class=list(QUESTIONS.values())), TAXONOMY).to_markdown()
    assert "| text | 2 | 50.0% |" in page
    assert "before overrides: 25.0% right" in page
    assert "after overrides: 75.0% right" in page
    assert "| text | 0 | 0 | 0 | 0 | 0 | 1 | 0 | 0 | 1 |" in page
    assert "| text | 0 | 0 | 2 | 0 | 0 | 0 | 0 | 0 | 0 |" in page


@pytest.mark.parametrize("gold", [False, True])
def test_the_page_leaves_out_what_there_is_not(gold):
    more = {"gold_class": list(QUESTIONS.values())} if gold else {}
    page = label_report(labelled(KEYWORDS, **more), TAXONOMY).to_markdown()
    assert "What rules made of" not in page
    assert ("Against the gold classes" in page) == gold
