"""Two artifacts compared in meaning."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from made_artifacts import CHOICE, CLASSES, made, with_numbers
from made_routers import made_router

from clasp_calib.artifacts.card import ratio
from clasp_calib.artifacts.difference import difference
from clasp_calib.artifacts.evidence import SampleScore, with_scores
from clasp_calib.artifacts.manifest import Score
from clasp_calib.common.shares import difference_interval, share_interval


def scored(artifact, values, pictures=None):
    rows = [
        SampleScore("8", "calibrated", "text", str(i), i if pictures is None else pictures[i], v)
        for i, v in enumerate(values)
    ]
    return with_scores(artifact, rows)


def test_an_artifact_does_not_differ_from_itself():
    found = difference(made("8"), made("8"))
    assert (found.settings, found.counts, found.added, found.removed) == ({}, {}, (), ())
    assert [change.label for change in found.changes] == list(CLASSES)
    assert not any(change.changed or change.gain for change in found.changes)


def test_routers_that_differ_are_named():
    plain, routed = made("8"), made("8").with_router(made_router())
    assert difference(routed, made("8").with_router(made_router())).router is None
    before, after = difference(plain, routed).router
    assert before == "none"
    assert (
        after
        == "n-grams, trained on 100 labels (111111111111), abstains below 0.40; how often it is right is not known"
    )
    assert difference(routed, made("8").with_router(made_router(seed=1))).router == (after, after)


def test_what_differs_is_named():
    first = made("8", "6")
    second = made("8", "4", version="0.2.0", positions="compact")
    alphas, rhos = first.alphas.copy(), first.rhos.copy()
    alphas[0, 1], rhos[0, 1] = np.eye(5, dtype=np.float32)[2], 0.8
    entry = second.entry("8").model_copy(
        update={
            "counts": (9, 6, 5),
            "choices": {**dict.fromkeys(CLASSES, CHOICE), "text": CHOICE.model_copy(update={"prototype": "hybrid"})},
        }
    )
    manifest = second.manifest.model_copy(update={"budgets": (entry, second.manifest.budgets[1])})
    found = difference(first, with_numbers(second.with_manifest(manifest), alphas=alphas, rhos=rhos))
    assert found.settings == {"version": ("0.1.0", "0.2.0"), "positions": ("keep", "compact")}
    assert (found.removed, found.added, found.counts) == (("6",), ("4",), {"8": ("10 / 6 / 5", "9 / 6 / 5")})
    (change,) = [c for c in found.changes if c.changed]
    assert (change.label, change.prototype, change.rho[1]) == ("text", ("deep", "hybrid"), pytest.approx(0.8))
    assert change.alpha_distance == pytest.approx(1 - float(first.alphas[0, 1, 2]), abs=1e-6)


def test_another_seeding_changes_what_is_kept_where_there_are_medoids():
    first, rhos = made("8"), made("8").rhos.copy()
    rhos[0] = 1.0, 0.5, 0.5
    other = CHOICE.model_copy(update={"seeding": "farthest"})
    (entry,) = first.manifest.budgets
    entry = entry.model_copy(update={"choices": {**dict.fromkeys(CLASSES, CHOICE), "object": other, "text": other}})
    second = first.with_manifest(first.manifest.model_copy(update={"budgets": (entry,)}))
    first, second = (with_numbers(one, alphas=first.alphas, rhos=rhos) for one in (first, second))
    changes = difference(first, second).changes
    assert [change.changed for change in changes] == [False, True, False]
    assert changes[1].seeding == ("redundancy", "farthest")


def test_another_relevance_changes_what_is_kept_where_there_are_pivots():
    plain, rhos = made("8"), made("8").rhos.copy()
    rhos[0] = 0.0, 0.5, 0.5
    (entry,) = plain.manifest.budgets
    found = []
    for one in (None, "mean-attention"):
        choice = CHOICE.model_copy(update={"relevance": one})
        choices = {**dict.fromkeys(CLASSES, CHOICE), "object": choice, "text": choice}
        at_input = {"profile": "input", "relevance": "class-token", "starts": (0,)}
        of = {"budgets": (entry.model_copy(update={"choices": choices, "counts": (8,)}),)}
        manifest = plain.manifest.model_copy(update={**at_input, **of})
        found.append(with_numbers(plain.with_manifest(manifest), alphas=plain.alphas, rhos=rhos))
    changes = difference(*found).changes
    assert [change.changed for change in changes] == [False, True, False]
    assert changes[1].relevance == ("class-token", "mean-attention")
    assert ratio(found[1], "8", "text") == "0.5, mean-attention"
    assert (ratio(found[0], "8", "text"), ratio(found[1], "8", "default")) == ("0.5", "0.5")


def test_scores_of_the_same_samples_are_paired():
    for times in (1, 4):
        before, after = scored(made("8"), [1, 0, 1, 0] * times), scored(made("8"), [1, 1, 1, 0] * times)
        gain = {c.label: c.gain for c in difference(before, after).changes}["text"]
        assert gain.paired
        assert gain.mean == 0.25
        low, high = difference_interval(0.25, 0, 4)
        normal = 1.96 * np.array([0, 1, 0, 0]).std() / 4
        assert gain.half_width == pytest.approx(max(0.25 - low, high - 0.25) if times == 1 else normal, rel=1e-4)


def test_no_difference_on_few_pictures_is_not_none_for_sure():
    gain = difference(scored(made("8"), [1, 0]), scored(made("8"), [1, 0])).changes[1].gain
    assert gain.mean == 0
    assert gain.half_width == pytest.approx(share_interval(0, 2)[1])


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=12))
def test_questions_of_one_picture_count_as_one_observation(gains):
    """Every question asked twice about its picture tells no more than asked once."""
    zeros = [0.0] * len(gains)
    once = difference(scored(made("8"), zeros), scored(made("8"), gains)).changes[1].gain
    pictures = [i for i in range(len(gains)) for _ in range(2)]
    doubled = [scored(made("8"), [v for v in of for _ in range(2)], pictures) for of in (zeros, gains)]
    twice = difference(*doubled).changes[1].gain
    assert twice.mean == pytest.approx(once.mean)
    assert twice.half_width == pytest.approx(once.half_width)


def test_other_samples_are_compared_as_independent_means():
    def evaluated(mean, half):
        artifact = made("8")
        results = {"calibrated": {"text": Score(mean=mean, low=mean - half, high=mean + half, samples=9)}}
        entry = artifact.entry("8").model_copy(update={"results": results})
        return artifact.with_manifest(artifact.manifest.model_copy(update={"budgets": (entry,)}))

    gains = {c.label: c.gain for c in difference(evaluated(0.5, 0.03), evaluated(0.75, 0.04)).changes}
    assert gains["object"] is None
    assert (gains["text"].mean, gains["text"].paired) == (0.25, False)
    assert gains["text"].half_width == pytest.approx(0.05)
