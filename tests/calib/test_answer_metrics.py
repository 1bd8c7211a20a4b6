"""What an answer is worth, by the published definitions: golden values, properties, and slow references."""

from functools import cache

import pytest
from hypothesis import assume, given, strategies as st

from clasp_calib.calib.scoring.answer_metrics import anls, levenshtein
from clasp_calib.calib.scoring.metrics import METRICS, check_references, metric
from clasp_calib.calib.scoring.vqa_accuracy import normalised, vqa
from clasp_calib.common.errors import InputError
from clasp_calib.common.samples import Sample

TEXTS = st.text(st.sampled_from("abAB 0159.,'-%()yesno\n"), max_size=12)


@pytest.mark.parametrize(
    ("name", "answer", "references", "score"),
    [
        ("exact", "two", ["two"], 1),
        ("exact", "two", ["three", "two"], 1),
        ("exact", "Two", ["two"], 0),
        ("exact", "two.", ["two"], 0),
        ("exact", "two two", ["two"], 0),
        ("exact_match", "  Two. ", ["two"], 1),
        ("exact_match", "a RED  cup!", ["one cup", "a red cup"], 1),
        ("exact_match", "red", ["a red cup"], 0),
        ("exact_match", "twotwo", ["two two"], 0),
        ("exact_match", "1.5", ["15"], 0),
        ("exact_match", "-5", ["5"], 0),
        ("exact_match", "\u22125", ["-5"], 1),
        ("exact_match", "1,500", ["1500"], 1),
        ("exact_match", "It\u2019s \u201cCaf\u00e9\u201d.", ["its cafe\u0301"], 1),
        ("exact_match", "\uff32\uff25\uff24", ["red"], 1),
        ("exact_match", "", ["?"], 0),
        ("multiple_choice", "B", ["B"], 1),
        ("multiple_choice", "b", ["B"], 1),
        ("multiple_choice", "(B)", ["B"], 1),
        ("multiple_choice", "B. a cat", ["B"], 1),
        ("multiple_choice", "(B) a cat", ["B"], 1),
        ("multiple_choice", "B: a cat", ["B"], 1),
        ("multiple_choice", "The answer is B.", ["B"], 1),
        ("multiple_choice", "The answer is (B), a cat", ["B"], 1),
        ("multiple_choice", "Answer: B", ["B"], 1),
        ("multiple_choice", "Option B", ["B"], 1),
        ("multiple_choice", "B\n\nA is too small.", ["B"], 1),
        ("multiple_choice", "Answers: A lot", ["A"], 0),
        ("multiple_choice", "A cat", ["B", "a cat"], 1),
        ("multiple_choice", "A cat", ["A"], 0),
        ("multiple_choice", "Because", ["B"], 0),
        ("multiple_choice", "A", ["B", "a cat"], 0),
        ("multiple_choice", "", ["B"], 0),
        ("yes_no", "Yes, there is a cup.", ["yes"], 1),
        ("yes_no", "I think no", ["No"], 1),
        ("yes_no", "no, yes", ["yes"], 0),
        ("yes_no", "nothing", ["no"], 0),
        ("yes_no", "eyes", ["yes"], 0),
        ("yes_no", "", ["no"], 0),
        # https://github.com/AoiDragon/POPE, evaluate.py
        ("pope", "Yes, there is a cup.", ["yes"], 1),
        ("pope", "There is not a cup.", ["no"], 1),
        ("pope", "A cup. There is no spoon.", ["yes"], 1),
        ("pope", "No, there is none.", ["no"], 1),
        ("pope", "NO", ["no"], 0),
        ("pope", "There isn't a cup", ["yes"], 1),
        ("pope", "", ["yes"], 1),
        # MME's calculation.py
        ("mme", "Yes.", ["Yes"], 1),
        ("mme", " no, it is red", ["no"], 1),
        ("mme", "It is: yes", ["yes"], 0),
        ("mme", "none", ["no"], 1),
        ("mme", "other", ["no"], 0),
        # ChartQA
        ("relaxed", "10.5", ["10"], 1),
        ("relaxed", "9.49", ["10"], 0),
        ("relaxed", "10.", ["10.2"], 1),
        ("relaxed", "50%.", ["0.5"], 1),
        ("relaxed", "10..", ["10"], 0),
        ("relaxed", "10.6", ["10"], 0),
        ("relaxed", "-95", ["-100"], 1),
        ("relaxed", "50%", ["0.5"], 1),
        ("relaxed", "50", ["0.5"], 0),
        ("relaxed", "0", ["0"], 1),
        ("relaxed", "0.0", ["0"], 0),
        ("relaxed", "1,050", ["1000"], 1),
        ("relaxed", "$3.50", ["3.4"], 1),
        ("relaxed", "\u221210", ["10"], 0),
        ("relaxed", "50 %", ["50%"], 1),
        ("relaxed", "1.05", ["1"], 1),
        ("relaxed", "1e999", ["2e999"], 0),
        ("relaxed", "three", ["3"], 0),
        ("relaxed", "2019-2020", ["2019"], 0),
        ("relaxed", "nan", ["5"], 0),
        ("relaxed", "Blue ", ["blue"], 1),
        ("relaxed", "light blue", ["blue"], 0),
        ("numeric", "There are 3 cups and 2 spoons.", ["3"], 1),
        ("numeric", "three", ["3"], 1),
        ("numeric", "1,200 people", ["1200"], 1),
        ("numeric", "3.0", ["three"], 1),
        ("numeric", "-2", ["2"], 0),
        ("numeric", "someone", ["1"], 0),
        ("numeric", "none", ["0"], 0),
        ("numeric", "three hundred", ["300"], 1),
        ("numeric", "about .25 m", ["0.25"], 1),
        ("numeric", "5", [".5"], 0),
        ("numeric", "25 %", ["25%"], 1),
        ("numeric", "25 %", ["25"], 1),
        ("numeric", "25 %", ["0.25"], 1),
        ("numeric", "25 %", ["0.25 %"], 0),
        ("numeric", "0.07%", ["0.0007"], 1),
        ("numeric", "10:30", ["10"], 0),
        ("numeric", "4-6", ["4"], 0),
        ("textvqa", "Joe's, 1,000", ["joe 's 1000", "x", "x", "x"], 1 / 4),
        ("textvqa", "50", ["50", "fifty", "50", "50", "50"], 1),
        # Biten et al., 2019, eq. 1; edit distances counted by hand.
        ("anls", "kitten", ["sitting"], 1 - 3 / 7),
        ("anls", "Red  Cup", ["red cup"], 1),
        ("anls", "abcd", ["abef"], 0),
        ("anls", "abcde", ["abcef", "abcdx"], 0.8),
        ("anls", "", ["a"], 0),
        ("rouge_l", "", ["a cup"], 0),
        ("rouge_l", "Two cups", ["a red dog", "?"], 0),
        ("rouge_l", "A RED cup.", ["a red cup"], 1),
    ],
)
def test_golden_scores(name, answer, references, score):
    assert metric(name)(answer, references) == pytest.approx(score)


@pytest.mark.parametrize(
    ("said", "count", "score"),
    # min(1, n/3) averaged over the ten sets of nine: the table of https://visualqa.org/evaluation.html
    [("red", 0, 0.0), ("red", 1, 0.3), ("red", 2, 0.6), ("red", 3, 0.9), ("red", 4, 1.0), ("red", 10, 1.0)],
)
def test_an_answer_of_vqa_counts_as_far_as_annotators_gave_it(said, count, score):
    assert vqa(said, ["red"] * count + ["blue"] * (10 - count)) == pytest.approx(score)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat.", "cat"),
        ("Two dogs, a cat", "2 dogs cat"),
        ("none", "0"),
        ("dont know", "don't know"),
        ("couldntve", "couldntve"),
        ("couldnt've", "couldn't've"),
        ("it is 1,000 m", "it is 1000 m"),
        ("3.5", "3.5"),
        ("U.S.", "us"),
        ("red/blue", "red blue"),
        ("red/ blue", "red blue"),
        ("well-known", "well known"),
        ("well-known -", "wellknown"),
        (" yes\n", "yes"),
        ("a\tdog", "dog"),
        ("somebody'd", "somebodyd"),
        ("'ows'at", "'ow's'at"),
    ],
)
def test_vqa_answers_are_normalised_as_the_official_script_does(text, expected):
    assert normalised(text) == expected


@given(TEXTS, st.lists(TEXTS, min_size=4, max_size=10))
def test_vqa_is_the_mean_over_all_but_one_annotator(answer, references):
    gold, scores = [normalised(text) for text in references], []
    assume(any(gold))
    for number in range(len(gold)):
        others = gold[:number] + gold[number + 1 :]
        scores.append(min(1, sum(other == normalised(answer) for other in others) / 3))
    assert vqa(answer, references) == pytest.approx(sum(scores) / len(scores))


@given(TEXTS, TEXTS)
def test_levenshtein_equals_the_recursion(one, other):
    @cache
    def distance(a, b):
        if not a or not b:
            return len(a) + len(b)
        return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))

    assert levenshtein(one, other) == distance(one, other)


@pytest.mark.parametrize("name", METRICS)
@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=4), st.randoms())
def test_scores_are_shares_whatever_the_order_of_references(name, answer, references, chance):
    if name in ("yes_no", "pope", "mme"):
        references = [chance.choice(["yes", "no"])] * len(references)
    elif name == "numeric":
        references = [f"7 apples {reference}" for reference in references]
    elif name == "rouge_l":
        references = [f"cup {reference}" for reference in references]
    elif name in ("vqa", "textvqa"):
        references = [*references, "7"] * 2 + ["5"] * 2
    score = metric(name)(answer, references)
    assert 0 <= score <= 1
    shuffled = chance.sample(references, len(references))
    assert metric(name)(answer, shuffled) == pytest.approx(score)
    assert metric(name)(references[0], references) > 0
    if name not in ("vqa", "textvqa"):
        assert metric(name)(references[0], references) == 1
        assert metric(name)(answer, [*references, references[0]]) == score


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=3), TEXTS)
def test_another_reference_never_hurts(answer, references, another):
    for name in ("exact", "exact_match", "multiple_choice", "relaxed", "anls"):
        assert metric(name)(answer, [*references, another]) >= metric(name)(answer, references)


@given(TEXTS, TEXTS)
def test_anls_is_nothing_or_above_one_half(answer, reference):
    assert anls(answer, [reference]) == 0 or anls(answer, [reference]) > 0.5


@pytest.mark.parametrize(
    ("name", "references", "message"),
    [
        ("yes_no", ["red"], r"has the answers \['red'\]; expected yes or no"),
        ("pope", ["yes", "no"], "expected yes or no"),
        ("mme", [], "expected yes or no"),
        ("numeric", ["3", "many"], r"numbers, and \['3', 'many'\] has an answer without a clear one"),
        ("textvqa", ["red"], r"the metric textvqa needs the answers of all"),
        ("vqa", ["the", "a", "?", "an"], "is all that .* are"),
        ("numeric", ["4-6"], "without a clear one"),
        ("vqa", ["red", "red", "blue"], r"needs the answers of all annotators .* take exact_match"),
    ],
)
def test_references_that_a_metric_cannot_compare_with_are_refused(name, references, message):
    with pytest.raises(InputError, match=message):
        metric(name)("", references)


@pytest.mark.parametrize(
    ("question", "answers", "message"),
    [
        ("Which? A. ice B. fog", ["0"], r"compares letters of options, and \['0'\] has none; give the letter"),
        ("Which?", ["ice"], "compares letters of options"),
        ("Which? A. ice B. fog", ["C"], r"\['C'\] name no option of the question, which has A to B"),
        ("Which?\n(a) ice\n(b) fog\n(c) dew", ["E", "snow"], "which has A to C"),
    ],
)
def test_letters_that_can_never_be_answered_are_refused_before_a_run(question, answers, message):
    with pytest.raises(InputError, match=message):
        check_references(Sample("1", question, answers=answers, metric="multiple_choice"))


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        ("Which? A. ice B. fog", ["B"]),
        ("Which? A. ice B. fog", ["b"]),
        ("Which? (A) ice (B) fog (C) dew", ["(C) dew", "dew"]),
        ("Which?", ["E"]),
        ("Who is J. Smith?", ["B"]),
        ("What did A. say? B", ["D"]),
    ],
)
def test_letters_of_options_pass(question, answers):
    check_references(Sample("1", question, answers=answers, metric="multiple_choice"))


def test_what_other_metrics_refuse_is_refused_before_a_run():
    for name, answers in (("numeric", ["many"]), ("yes_no", ["red"]), ("vqa", ["red"])):
        with pytest.raises(InputError):
            check_references(Sample("1", "?", answers=answers, metric=name))
    check_references(Sample("1", "?", answers=["anything"]))
