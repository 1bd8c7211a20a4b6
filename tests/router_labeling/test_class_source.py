"""Where classes come from: a taxonomy's labels, a column, or nowhere."""

import random

import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from clasp_calib.common.errors import InputError
from clasp_calib.common.fields import RESERVED
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.router_labeling.class_source import MOST, ClassSource
from clasp_calib.router_labeling.classes import Classes
from clasp_calib.router_labeling.taxonomy import load_taxonomy


def table(values, **columns):
    rows = [{"id": str(n), "question": "What?", "task": value} for n, value in enumerate(values)]
    samples = load_samples(rows)
    for name, cells in columns.items():
        samples = samples.with_table(samples.table.append_column(name, pa.array(cells)))
    return samples


def classes(source, samples):
    labelled = source.labelled(samples)
    return [s.label for s in labelled], source.classes(s.label for s in labelled)


@given(st.lists(st.sampled_from(["chart", "Photo 2", "数える", "a|b", "[red]x"]), min_size=1, max_size=20))
def test_the_values_of_a_column_are_the_classes_whatever_their_order(values):
    labels, found = classes(ClassSource(class_from="task"), table(values))
    assert labels == values
    assert (found.names, found.column, found.default) == (tuple(sorted(set(values))), "task", None)
    random.Random(0).shuffle(values)
    assert classes(ClassSource(class_from="task"), table(values))[1] == found


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1, 2], ["1", "2"]), ([1.0, 2.0], ["1", "2"]), ([True, False], ["true", "false"]), ([" a ", "b"], ["a", "b"])],
)
def test_numbers_and_truth_values_are_names_too(values, expected):
    assert classes(ClassSource(class_from="task"), table(values))[0] == expected


def test_a_column_class_may_hold_numbers():
    samples = load_samples([{"question": "What?", "class": number} for number in (3, 12, 3)])
    assert [s.label for s in samples] == ["3", "12", "3"]
    assert classes(ClassSource(class_from="class"), samples)[1].names == ("12", "3")


def test_other_columns_stay_and_a_column_class_is_replaced():
    samples = table(["a", "b"], **{"class": ["x", "y"], "intent": ["u", "v"]})
    labelled = ClassSource(class_from="task").labelled(samples)
    assert labelled.table["class"].to_pylist() == ["a", "b"]
    assert labelled.table["intent"].to_pylist() == ["u", "v"]
    assert labelled.table.column_names == samples.table.column_names
    assert [s.label for s in ClassSource(class_from="class").labelled(samples)] == ["x", "y"]


def test_missing_values_are_refused_by_their_ids_or_get_the_default_class(capsys):
    samples = table(["a", None, "b", "  "])
    with pytest.raises(InputError, match=r"2 of 4 samples have no 'task' \(ids '1', '3'\); .*--default-class"):
        ClassSource(class_from="task").labelled(samples)
    labels, found = classes(ClassSource(class_from="task", default_class="rest"), samples)
    assert labels == ["a", "rest", "b", "rest"]
    assert (found.names, found.default) == (("a", "b", "rest"), "rest")
    assert "so they are of the default class 'rest'" in capsys.readouterr().err


def test_one_class_needs_no_labels_and_reads_none():
    source = ClassSource(one_class=True)
    for samples in (table(["a", "b"]), table(["a", "b"], **{"class": ["x", None]})):
        labels, found = classes(source, samples)
        assert labels == ["all", "all"]
        assert (found.names, found.column, found.default) == (("all",), None, "all")


def test_labels_of_a_taxonomy_are_checked_and_kept():
    taxonomy = load_taxonomy()
    source = ClassSource()
    labels, found = classes(source, table(["a", "b"], **{"class": ["text", None]}))
    assert labels == ["text", None]
    assert found == Classes.of_taxonomy(taxonomy)
    assert (found.default, found.column, found.digest) == ("default", "class", taxonomy.digest)
    with pytest.raises(InputError, match=r"has class 'chart'; expected one of object, .*--class-from class"):
        source.labelled(table(["a"], **{"class": ["chart"]}))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([["a"], ["b"]], "a column that gives classes holds one a row"),
        (["a", "x" * 101], "for a class: has 101 characters; expected 100 at most"),
        (["a\x1bb", "a"], "a character that a terminal cannot print"),
        *(([name, "a"], f"'{name}' means something else") for name in RESERVED),
        ([f"c{n}" for n in range(MOST + 1)], f"{MOST + 1} different values, and an artifact has at most {MOST}"),
    ],
)
def test_what_cannot_name_classes_is_refused(values, told):
    with pytest.raises(InputError, match=told):
        ClassSource(class_from="task").labelled(table(values))


def test_a_column_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(InputError, match=r"no column 'kind' to take classes from \(it has id, question, task\)"):
        ClassSource(class_from="kind").labelled(table(["a"]))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"class_from": "task", "one_class": True}, "class_from and one_class are given"),
        ({"class_from": "task", "taxonomy": load_taxonomy()}, "taxonomy and class_from are given"),
        ({"default_class": "rest"}, "without class_from"),
        ({"class_from": "task", "default_class": "auto"}, "default_class has 'auto' for a class"),
    ],
)
def test_sources_that_contradict_each_other_are_refused(words, told):
    with pytest.raises(InputError, match=told):
        ClassSource(**words)


def test_a_digest_says_classes_column_and_default():
    found = [
        Classes.of_column("task", "ab"),
        Classes.of_column("task", "abc"),
        Classes.of_column("kind", "ab"),
        Classes.of_column("task", "ab", "b"),
        Classes.one(),
    ]
    assert len({one.digest for one in found}) == len(found)
