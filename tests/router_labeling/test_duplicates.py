"""Near-duplicates against all pairs compared one by one."""

import re

from hypothesis import given, settings, strategies as st

from clasp_calib.router_labeling.duplicates import duplicate_groups
from clasp_calib.router_labeling.rules import normalise

questions = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=7).map(" ".join), max_size=14)


def slow_groups(texts, similar):
    sets = [set(re.findall(r"\w+", normalise(text))) or {text} for text in texts]
    groups = [{place} for place in range(len(texts))]
    for i, first in enumerate(sets):
        for j, second in enumerate(sets[:i]):
            if len(first & second) / len(first | second) >= similar - 1e-9 and groups[i] is not groups[j]:
                joined = groups[i] | groups[j]
                for place in joined:
                    groups[place] = joined
    return {frozenset(group) for group in groups}


@settings(deadline=None)
@given(texts=questions, similar=st.sampled_from([0.3, 0.5, 0.6, 0.7, 0.75, 0.9, 1.0]))
def test_the_groups_are_those_of_all_pairs(texts, similar):
    found = {}
    for place, number in enumerate(duplicate_groups(texts, similar)):
        found.setdefault(number, set()).add(place)
    assert {frozenset(group) for group in found.values()} == slow_groups(texts, similar)


def test_questions_that_say_nearly_the_same_are_one_group():
    first, second, third = duplicate_groups(
        ["How many dogs are in the picture?", "how many DOGS are there in the picture", "What colour is the dog?"]
    )
    assert first == second != third
