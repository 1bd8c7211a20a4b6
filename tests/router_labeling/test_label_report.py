"""What a labelling came to."""

import pyarrow as pa
import pytest

from clasp_calib.common.errors import InputError
from clasp_calib.router_labeling.journalled import JournalledLabeler
from clasp_calib.router_labeling.label_report import label_report
from clasp_calib.router_labeling.labelers import Guess, KeywordLabeler, load_scheme
from clasp_calib.router_labeling.table import label_table

SCHEME = load_scheme()
TAXONOMY = SCHEME.taxonomy
KEYWORDS = JournalledLabeler(KeywordLabeler(), SCHEME)
QUESTIONS = {"Who wrote this?": "text", "How many dogs?": "counting", "Who wrote that?": "text", "Hm?": "object"}


class Model:
    """Says counting to everything, and fails on the third."""

    fingerprint = "{}"

    def label(self, questions):
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
