"""Labelling a table: rows, order and other columns stay, gold is kept, overrides correct a model."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace

import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from clasp_calib.common.errors import InputError
from clasp_calib.common.sample_table import sample_table
from clasp_calib.router_labeling.journalled import JournalledLabeler
from clasp_calib.router_labeling.labelers import Guess, KeywordLabeler, load_scheme
from clasp_calib.router_labeling.table import LABEL_COLUMNS, label_table

SCHEME = load_scheme()
KEYWORDS = JournalledLabeler(KeywordLabeler(), SCHEME)


@dataclass
class Fixed:
    """A stand-in for a model that always answers the same."""

    intent: str = "scene_understanding"
    fingerprint: str = '{"labeler":"fixed"}'
    seen: list[str] = field(default_factory=list)
    by_rules = False

    def label(self, questions: Iterable[str], total: int | None = None) -> Iterator[Guess]:
        for question in questions:
            self.seen.append(question)
            yield Guess(self.intent, 0.7, '{"intent": "..."}')


def answering(*indices: int) -> JournalledLabeler:
    """Answers questions of these places."""
    ask = lambda questions, scheme: ((index, Guess("counting", 1.0, "")) for index in indices)  # noqa: E731
    return JournalledLabeler(SimpleNamespace(fingerprint=lambda scheme: "{}", ask=ask), SCHEME)


def labelled(rows: list[dict[str, object]], labeler: object = KEYWORDS, **options: bool) -> list[dict[str, object]]:
    table = sample_table(pa.Table.from_pylist(rows), "the table")
    return label_table(table, labeler, SCHEME, **options).to_pylist()


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
WORDY = st.lists(
    st.sampled_from(["what", "is", "the", "how", "many", "left", "or", "?", "say", "why", "-ing", "’s", "ﬁ", "\n"])
).map(" ".join)


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS | WORDY, TEXTS, st.integers(0, 99)), max_size=12))
def test_rows_order_and_other_columns_stay_whatever_is_asked(rows: list[tuple[str, str, int]]):
    table = pa.table(
        {
            "note": pa.array([note for _, note, _ in rows], pa.string()),
            "id": pa.array([str(i) for i in range(len(rows))], pa.string()),
            "question": pa.array([question for question, _, _ in rows], pa.string()),
            "answers": pa.array([[note, "x"] for _, note, _ in rows], pa.list_(pa.string())),
            "value": pa.array([value for _, _, value in rows], pa.int16()),
        }
    ).replace_schema_metadata({"made": "here"})
    out = label_table(table, KEYWORDS, SCHEME)
    assert out.select(table.column_names).equals(table)
    assert out.column_names == [*table.column_names, *LABEL_COLUMNS]
    assert out.schema.metadata == table.schema.metadata
    for row in out.to_pylist():
        assert row["class"] == SCHEME.taxonomy.class_of(row["intent"])
        rule = SCHEME.rules.match(row["question"])
        assert row["rule"] == (rule.id if rule else None)
        assert row["source"] == ("rule" if rule else "default")
        assert row["labeler"] == KEYWORDS.fingerprint
    assert label_table(out, KEYWORDS, SCHEME).equals(out)


def test_gold_intent_is_kept_and_not_asked():
    model = Fixed()
    rows = labelled(
        [
            {"id": "a", "question": "How many?", "intent": "interaction"},
            {"id": "b", "question": "Is it far?", "intent": None},
        ],
        model,
    )
    assert (rows[0]["intent"], rows[0]["class"], rows[0]["source"]) == ("interaction", "action", "gold")
    assert (rows[0]["confidence"], rows[0]["rule"], rows[0]["raw"], rows[0]["labeler"]) == (
        1.0,
        None,
        None,
        None,
    )
    assert model.seen == ["Is it far?"]


def test_gold_can_be_set_aside():
    rows = labelled(
        [{"id": "a", "question": "How many?", "intent": "telepathy", "class": "scene"}],
        classes_from_gold=False,
    )
    assert (rows[0]["intent"], rows[0]["class"], rows[0]["source"]) == ("counting", "counting", "rule")


def test_gold_class_without_an_intent_is_kept():
    (row,) = labelled([{"id": "a", "question": "How many?", "class": "scene"}])
    assert (row["intent"], row["class"], row["source"]) == (None, "scene", "gold")


@pytest.mark.parametrize(
    ("gold", "complaint"),
    [
        (
            {"intent": "telepathy"},
            "'row-7' has the intent 'telepathy'; expected one of object_identification",
        ),
        ({"intent": ""}, "'row-7' has the intent ''"),
        ({"intent": 3}, "'row-7' has the intent 3"),
        ({"intent": ["counting"]}, r"'row-7' has the intent \['counting'\]"),
        ({"class": "feelings"}, "'row-7' has the class 'feelings'; expected one of object, attribute"),
        (
            {"intent": "counting", "class": "scene"},
            "class 'scene', but its intent 'counting' belongs to 'counting'",
        ),
    ],
)
def test_unusable_gold_names_row_and_value(gold: dict[str, object], complaint: str):
    with pytest.raises(InputError, match=complaint):
        labelled([{"id": "row-7", "question": "How many?", **gold}])


def test_what_was_labelled_before_does_not_harden_into_gold():
    rows = [{"id": "a", "question": "Is it far?"}, {"id": "b", "question": "Is it?", "intent": "counting"}]
    once = label_table(pa.Table.from_pylist(rows[:1]), Fixed(), SCHEME)
    again = label_table(once, Fixed("interaction"), SCHEME).to_pylist()
    assert (again[0]["intent"], again[0]["source"]) == ("interaction", "llm")
    gold = label_table(pa.Table.from_pylist(rows[1:]), Fixed(), SCHEME)
    assert label_table(gold, Fixed("interaction"), SCHEME).equals(gold)


def test_only_overrides_correct_a_model():
    sure, broad = labelled(
        [{"id": "a", "question": "Who wrote this?"}, {"id": "b", "question": "Where is the ball?"}], Fixed()
    )
    assert (sure["intent"], sure["source"], sure["rule"]) == ("text_recognition", "rule", "who-wrote")
    assert (sure["confidence"], sure["raw"], sure["labeler"]) == (1.0, '{"intent": "..."}', Fixed.fingerprint)
    assert (broad["intent"], broad["class"], broad["source"]) == ("scene_understanding", "scene", "llm")
    assert (broad["confidence"], broad["rule"]) == (0.7, None)


def test_columns_of_the_user_are_not_overwritten():
    with pytest.raises(InputError, match="a column 'source', which the labels would overwrite"):
        labelled([{"id": "a", "question": "How many?", "source": "my web shop"}])


def test_tables_that_cannot_be_labelled():
    with pytest.raises(InputError, match=r"no column 'question' \(it has id\)"):
        labelled([{"id": "a"}])
    with pytest.raises(InputError, match=r"1 rows have no question \(first id 'b'\)"):
        labelled([{"id": "a", "question": "How many?"}, {"id": "b", "question": None}])


def test_a_table_without_ids_is_labelled_and_rows_are_named_by_number():
    assert labelled([{"question": "How many?"}])[0]["class"] == "counting"
    with pytest.raises(InputError, match="row '0' has the intent 'telepathy'"):
        labelled([{"question": "How many?", "intent": "telepathy"}])


@pytest.mark.parametrize(
    ("labeler", "complaint"),
    [
        (Fixed("telepathy"), "the labeler gave row 'a' the intent 'telepathy'"),
        (answering(0), "fewer than the 2 questions"),
        (answering(0, 1, 2), "question 2 of 2"),
        (answering(0, -1), "question -1 of 2"),
        (answering(0, 1, 1), "question 1 of 2, or answered it twice"),
    ],
)
def test_a_labeler_that_breaks_its_promise(labeler: object, complaint: str):
    with pytest.raises(InputError, match=complaint):
        labelled([{"id": "a", "question": "Is it?"}, {"id": "b", "question": "Is it far?"}], labeler)
