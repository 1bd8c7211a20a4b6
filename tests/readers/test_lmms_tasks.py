"""Tasks of lmms-eval where it is not installed; tests/in_harness reads some with it."""

import sys
from types import SimpleNamespace

import pytest

from clasp_calib.common.errors import InputError
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.readers.checked_cells import Record
from clasp_calib.readers.lmms_tasks import _row


def test_lmms_eval_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "lmms_eval.tasks", None)
    with pytest.raises(InputError, match=r"lmms:gqa needs lmms-eval, .* pip install 'clasp-calib\[lmms-eval\]'"):
        load_samples("lmms:gqa")


class Named:
    """A task as lmms-eval has it, whose target is the name of a column, or of none."""

    def __init__(self, name, target="answer", metric="exact_match"):
        self.config = SimpleNamespace(
            task=name, doc_to_text=None, doc_to_choice=None, doc_to_target=target, metric_list=[{"metric": metric}]
        )
        self.lmms_eval_specific_kwargs = None

    def doc_to_text(self, doc):
        return doc.copy()["question"]

    def doc_to_visual(self, doc):
        return doc.copy().get("image")

    def doc_to_target(self, doc):
        return doc.copy().get(self.config.doc_to_target, self.config.doc_to_target)


def row_of(task, **cells):
    return _row(task, Record({"question": "What is it?", **cells}, "it: document 0"), 0, ["exact_match"])


@pytest.mark.parametrize(
    ("name", "metric"),
    [("textvqa_val", "textvqa"), ("vqav2_val", "vqa"), ("ok_vqa_val2014", "vqa"), ("vizwiz_vqa_val", "vqa")],
)
@pytest.mark.parametrize("given", [["net"] * 8 + ["mesh"] * 2, [{"answer": "net", "answer_id": 1}] * 8])
def test_the_answers_of_all_annotators_are_taken_where_the_task_names_no_column(name, metric, given):
    row = row_of(Named(name), answers=given)
    assert row["answers"] == [one if isinstance(one, str) else one["answer"] for one in given]
    assert row["metric"] == metric


def test_a_target_that_is_no_column_is_refused():
    for name in ("vqav2_test", "mine"):
        with pytest.raises(InputError, match="document 0: doc_to_target is 'answer', and the dataset has no such col"):
            row_of(Named(name), answers=None)
    assert row_of(Named("mine"), answer="answer")["answers"] == ["answer"]


def test_captions_of_coco_are_scored_as_captions():
    for name in ("coco2014_cap_val", "coco2017_cap_val_lite"):
        assert row_of(Named(name), answer=["a cat", "one cat"])["metric"] == "rouge_l"
