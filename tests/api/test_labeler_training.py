"""Training a labeler by one call: what it learns from, what it passes over, and what it refuses."""

import pytest

import clasp_calib as cc
from clasp_calib.common.errors import InputError

pytest.importorskip("sklearn")
THINGS = "dog cat car boat tree lamp shoe bird plane chair cup ball house horse plate clock phone fence".split()  # noqa: SIM905
ROWS = [
    {"question": text.format(thing), "intent": intent}
    for thing in THINGS
    for text, intent in (("what number of {}s", "counting"), ("tint of that {}", "attribute_recognition"))
]


@pytest.fixture(autouse=True)
def needs_the_embedding():
    pytest.importorskip("onnxruntime")


def test_a_trained_head_labels(tmp_path):
    head = cc.train_labeler(ROWS, tmp_path / "head", rules_weight=0.0)
    assert head.quality.macro > 0.9
    for given in (tmp_path / "head", head):
        labelled = cc.label([{"question": "tint of that zebra"}], labeler=cc.EmbeddingLabeler(given))
        assert labelled.table["class"].to_pylist() == ["attribute"]
    with pytest.raises(InputError, match="expected one such as"):
        cc.label([{"question": "what?"}], labeler="embedding")


def test_rows_that_teach_nothing_are_passed_over_and_counted(capsys):
    more = [{"question": f"zip {n}", "source": "rule", "intent": "other"} for n in range(3)]
    more += [{"question": "what?", "source": "default", "intent": "other"}, {"question": "which?"}]
    head = cc.train_labeler([*ROWS, *more, {"question": "where is it", "class": "spatial"}], rules_weight=0.0)
    assert head.questions == len(ROWS) + 1, "a class with one intent has that"
    assert "5 of 42 rows are passed over: 3 that keyword rules labelled" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"intent": "counting", "class": "object"}, "belongs to 'counting'"),
        ({"class": "nonsense"}, "expected object, attribute"),
        ({"intent": "nonsense"}, "unknown intent|expected one of"),
    ],
)
def test_rows_of_another_taxonomy_are_refused(row, complaint):
    with pytest.raises(InputError, match=complaint):
        cc.train_labeler([*ROWS, {"question": "what?", **row}])


def test_arguments_that_do_nothing_are_refused():
    with pytest.raises(InputError, match="without an embedder"):
        cc.train_labeler(ROWS, revision="v1")
    with pytest.raises(InputError, match="without an embedder"):
        cc.EmbeddingLabeler(revision="v1")
    for wrong in (1, "x"):
        with pytest.raises(InputError, match="expected a share"):
            cc.train_labeler(ROWS, rules_weight=wrong)
