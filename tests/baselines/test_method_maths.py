"""The mathematics of every method against slow float64 references, on random inputs in which ties are common."""

import math

import numpy as np
import pytest
import reference_methods as reference
import torch
from hypothesis import given, settings, strategies as st

from clasp_calib.baselines import (
    cdpruner,
    controls,
    divprune,
    fastervlm,
    ficoco_v,
    hawk,
    hiprune,
    hired,
    holov,
    prumerge,
    prunesid,
    scope,
    tome,
    visionzip,
    vispruner,
    vscan,
)
from clasp_calib.baselines.choosing import proportional
from clasp_calib.baselines.mechanisms.merging import TowerTokens

# Vectors of +1 and -1 of length 16 have norm 4, so that equal cosines are equal to the last bit.
WIDTH = 16
SEEDS, PATCHES = st.integers(0, 10_000), st.integers(5, 28)
few = settings(max_examples=25, deadline=None)


def signs(rng, count, width=WIDTH):
    """Few different vectors, so that many are alike."""
    pool = rng.choice([-1.0, 1.0], size=(max(count // 2, 2), width))
    return pool[rng.integers(len(pool), size=count)]


def coarse(rng, *shape):
    """Attention with ties that float64 and float32 agree on."""
    return rng.integers(1, 12, size=shape) / 64


def tensor(array):
    return torch.from_numpy(np.ascontiguousarray(array))


@few
@given(seed=SEEDS, patches=PATCHES, data=st.data())
def test_most_attended(seed, patches, data):
    attention, count = coarse(np.random.default_rng(seed), 4, patches), data.draw(st.integers(1, patches))
    assert fastervlm.most_attended(tensor(attention), count).tolist() == reference.most_attended(attention, count)


@few
@given(
    seed=SEEDS, rows=st.integers(2, 6), columns=st.integers(2, 6), cut=st.tuples(st.integers(1, 3), st.integers(1, 3))
)
def test_votes_of_hired(seed, rows, columns, cut):
    attention = coarse(np.random.default_rng(seed), 4, rows * columns)
    count = max(rows * columns // 2, 1)
    got = hired.looked_at(tensor(attention), (rows, columns), cut, count)
    assert got == reference.looked_at(attention, (rows, columns), cut, count)
    assert sum(got) == count


@few
@given(seed=SEEDS, patches=PATCHES, data=st.data())
def test_contextual_tokens_of_visionzip(seed, patches, data):
    rng, count = np.random.default_rng(seed), data.draw(st.integers(1, patches))
    states, keys = rng.normal(size=(patches, 5)), signs(rng, patches)
    targets, merged = visionzip.contextual(tensor(states), tensor(keys), count)
    expected = reference.contextual(states, keys, count)
    assert targets.tolist() == expected[0]
    np.testing.assert_allclose(merged.numpy(), expected[1], atol=1e-12)


@few
@given(seed=SEEDS, patches=PATCHES, data=st.data())
def test_max_min_choice_of_divprune(seed, patches, data):
    features, count = signs(np.random.default_rng(seed), patches), data.draw(st.integers(1, patches - 1))
    assert divprune.max_min_diverse(tensor(features), count).tolist() == reference.max_min_diverse(features, count)


@few
@given(seed=SEEDS, patches=PATCHES, step=st.sampled_from([1, 3, 8]), data=st.data())
def test_important_and_diverse_of_vispruner(seed, patches, step, data):
    rng, count = np.random.default_rng(seed), data.draw(st.integers(1, patches - 1))
    important = data.draw(st.integers(0, count))
    attention, states = coarse(rng, patches), signs(rng, patches)
    got = vispruner.important_and_diverse(tensor(attention), tensor(states), count, important, step).tolist()
    assert got == reference.important_and_diverse(attention, states, count, important, step)
    assert len(set(got)) == count


@few
@given(seed=SEEDS, patches=PATCHES, directions=st.sampled_from([2, 5, 40]), flat=st.booleans(), data=st.data())
def test_greedy_determinant_of_cdpruner(seed, patches, directions, flat, data):
    """Every choice has the largest variance that is left, and where none is, the largest relevance; or is the first."""
    rng = np.random.default_rng(seed)
    features, similarity = rng.normal(size=(patches, directions)), np.ones(patches) if flat else coarse(rng, patches)
    features[1] = features[0]
    kernel = cdpruner.conditional_kernel(tensor(features), tensor(similarity))
    np.testing.assert_allclose(kernel.numpy(), reference.conditional_kernel(features, similarity), atol=1e-12)
    count, chosen = data.draw(st.integers(1, patches - 2)), []
    relevance = kernel.numpy().diagonal() / kernel.numpy().max()
    while len(chosen) < count:
        left = reference.conditional_variances(kernel.numpy() / kernel.numpy().max(), chosen)
        if max(left) <= 1e-6:
            left = [-np.inf if i in chosen else round(of, 6) for i, of in enumerate(relevance)]
        chosen.append(next(i for i, of in enumerate(left) if of >= max(left) - 1e-6))
    assert cdpruner.likeliest_subset(kernel, count).tolist() == sorted(chosen)


@pytest.mark.parametrize(("width", "directions"), [(32, 32), (64, 64), (4096, 40)])
def test_cdpruner_chooses_as_many_as_it_should_where_features_have_few_directions(width, directions):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(576, directions)) @ rng.normal(size=(directions, width))
    kernel = cdpruner.conditional_kernel(tensor(features.astype(np.float32)), tensor(rng.random(576)))
    chosen = cdpruner.likeliest_subset(kernel, 192).tolist()
    assert len(set(chosen)) == 192
    by_relevance = sorted(range(576), key=lambda i: -float(kernel[i, i]))
    others = [i for i in by_relevance if i not in chosen]
    added = [i for i in chosen if kernel[i, i] > kernel[others[0], others[0]]]
    assert len(added) >= 192 - directions


@few
@given(seed=SEEDS, patches=PATCHES, strips=st.sampled_from([1, 4, 16]), data=st.data())
def test_strips_of_holov(seed, patches, strips, data):
    rng, count = np.random.default_rng(seed), data.draw(st.integers(1, patches))
    features, attention = signs(rng, patches), coarse(rng, patches) * 0.01
    got = holov.holistic(tensor(features), tensor(attention), count, strips, 0.09).tolist()
    assert got == reference.holistic(features, attention, count, strips, 0.09)
    assert len(set(got)) == count


@few
@given(seed=SEEDS, patches=PATCHES, strips=st.sampled_from([1, 4, 7]), alpha=st.sampled_from([2.0, 1e6, 1e20]))
def test_the_largest_weights_of_holov_in_single_precision(seed, patches, strips, alpha):
    rng = np.random.default_rng(seed)
    features, attention = rng.normal(size=(patches, 4)).astype(np.float32), rng.random(patches).astype(np.float32)
    count = patches // 2 + 1
    got = holov.holistic(torch.tensor(features), torch.tensor(attention), count, strips, alpha).tolist()
    assert got == reference.holistic(features.astype(float), attention.astype(float).tolist(), count, strips, alpha)


@few
@given(seed=SEEDS, patches=PATCHES, iqr=st.sampled_from([-2.0, 0.0, 0.5, 1.5]))
def test_outliers_of_prumerge(seed, patches, iqr):
    attention = coarse(np.random.default_rng(seed), patches) ** 4
    assert prumerge.outliers(tensor(attention), iqr) == reference.outliers(attention, iqr)


@few
@given(seed=SEEDS, patches=st.integers(5, 60), data=st.data())
def test_merging_of_prumerge(seed, patches, data):
    rng, top = np.random.default_rng(seed), data.draw(st.integers(1, patches // 2))
    attention, states, keys = coarse(rng, patches), rng.normal(size=(patches, 5)), signs(rng, patches)
    steps = prumerge.spread(tensor(attention), top)
    assert steps.tolist() == reference.spread(attention, top)
    chosen = [*reference.ranked(attention)[:top], *steps.tolist()]
    got = prumerge.merged(tensor(states), tensor(keys), tensor(attention), torch.tensor(chosen))
    np.testing.assert_allclose(got.numpy(), reference.merged(states, keys, attention, chosen), atol=1e-12)


@few
@given(seed=SEEDS, tokens=st.integers(3, 24), images=st.integers(1, 3), data=st.data())
def test_merging_of_tome(seed, tokens, images, data):
    rng, count = np.random.default_rng(seed), data.draw(st.integers(0, (tokens - 1) // 2))
    states, keys = rng.normal(size=(images, tokens, 5)), np.stack([signs(rng, tokens) for _ in range(images)])
    sizes = rng.integers(1, 5, size=(images, tokens, 1)).astype(float)
    places = np.stack([rng.permutation(tokens) for _ in range(images)])
    given_ = TowerTokens(tensor(states), tensor(sizes), tensor(places))
    got = tome.merge_pairs(given_, tensor(keys), count)
    for image in range(images):
        expected = reference.merge_pairs(states[image], sizes[image, :, 0], places[image], keys[image], count)
        np.testing.assert_allclose(got.states_RtC[image].numpy(), expected[0], atol=1e-12)
        assert got.size_Rt1[image, :, 0].tolist() == expected[1]
        assert got.place_Rt[image].tolist() == expected[2]
        assert got.size_Rt1[image].sum() == sizes[image].sum()


@few
@given(seed=SEEDS, side=st.integers(2, 5), data=st.data())
def test_merging_of_ficoco(seed, side, data):
    rng = np.random.default_rng(seed)
    patches = data.draw(st.integers(2, side**2))
    places = np.sort(rng.permutation(side**2)[:patches])
    logits, count = rng.integers(-8, 9, size=(patches + 1, patches + 1)) / 4, data.draw(st.integers(1, patches - 1))
    logits[0, 1], logits[1, 1] = 1.0, logits[1, 1] + 0.125  # not all nothing
    states = rng.normal(size=(patches + 1, 5))
    scores = ficoco_v.redundancy(tensor(logits), tensor(places), side, 0.35)
    np.testing.assert_allclose(scores.numpy(), reference.ficoco_scores(logits, places, side, 0.35), atol=1e-12)
    merged, left = ficoco_v.merge_one(tensor(states), tensor(logits), tensor(places), count, side, 0.35)
    expected = reference.ficoco_merge(states, logits, places, count, side, 0.35)
    assert left.tolist() == expected[1]
    np.testing.assert_allclose(merged.numpy(), expected[0], atol=1e-12)


def test_ficoco_shares_out_a_token_that_looks_at_itself_alone():
    logits = torch.zeros(4, 4)
    logits[1, 1], logits[1, 3] = 200.0, 2.0
    assert torch.equal(ficoco_v.shares(logits, torch.tensor([1]), torch.tensor([0, 2, 3])), torch.tensor([[0.0, 0, 1]]))


@few
@given(seed=SEEDS, patches=PATCHES, data=st.data())
def test_salient_cover_of_scope(seed, patches, data):
    rng, count = np.random.default_rng(seed), data.draw(st.integers(1, patches))
    states, saliency = signs(rng, patches), coarse(rng, patches)
    got = scope.salient_cover(tensor(states), tensor(saliency), count).tolist()
    assert got == reference.salient_cover(states, saliency, count)
    assert len(got) == count


@few
@given(seed=SEEDS, patches=PATCHES, power=st.sampled_from([1, 2, 20, 400]), data=st.data())
def test_the_largest_powers_of_scope_in_single_precision(seed, patches, power, data):
    rng, count = np.random.default_rng(seed), data.draw(st.integers(1, patches))
    states, saliency = rng.normal(size=(patches, 4)), rng.random(patches).astype(np.float32) / 100
    got = scope.salient_cover(torch.tensor(states).float(), torch.tensor(saliency), count, float(power)).tolist()
    assert got == reference.salient_cover(states, saliency.tolist(), count, power)


def test_the_most_salient_patches_are_chosen_at_the_largest_power():
    saliency = torch.tensor([0.1, 0.3, 0.2, 0.4])
    assert scope.salient_cover(torch.eye(4), saliency, 2, 1e308).tolist() == [1, 3]


@few
@given(seed=SEEDS, rows=st.integers(1, 6), columns=st.integers(1, 6), share=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_anchors_buffers_and_registers_of_hiprune(seed, rows, columns, share):
    rng, patches = np.random.default_rng(seed), rows * columns
    middle, last, count = coarse(rng, patches), coarse(rng, patches), int(rng.integers(1, patches + 1))
    got = hiprune.hierarchical(tensor(middle), tensor(last), columns, count, share).tolist()
    assert got == reference.hierarchical(middle, last, columns, count, share)
    assert len(set(got)) == count


def test_hiprune_takes_its_published_number_of_anchors():
    """Of 192, 128 and 64 tokens a tenth for anchors of five each: 4, 3 and 1."""
    middle, last = torch.zeros(576), torch.arange(576.0)
    middle[[50, 150, 250, 350]] = torch.tensor([4.0, 3.0, 2.0, 1.0])
    for count, anchors in ((192, 4), (128, 3), (64, 1)):
        chosen = hiprune.hierarchical(middle, last, 24, count, 0.1)
        assert int((chosen < 576 - count).sum()) == 5 * anchors


@few
@given(seed=SEEDS, rows=st.integers(1, 9), columns=st.integers(1, 9), window=st.sampled_from([1, 2, 4, 6]))
def test_scans_of_vscan(seed, rows, columns, window):
    rng, patches = np.random.default_rng(seed), rows * columns
    local, whole, count = coarse(rng, patches), coarse(rng, patches), int(rng.integers(1, patches + 1))
    got = vscan.scanned(tensor(local), tensor(whole), columns, count, window).tolist()
    assert got == reference.scanned(local, whole, columns, count, window)
    assert len(set(got)) == count


@few
@given(seed=SEEDS, patches=PATCHES, data=st.data())
def test_merging_of_vscan(seed, patches, data):
    rng, count = np.random.default_rng(seed), data.draw(st.integers(1, patches))
    features, chosen = signs(rng, patches), sorted(rng.permutation(patches)[:count].tolist())
    got = vscan.merged(tensor(features), torch.tensor(chosen))
    np.testing.assert_allclose(got.numpy(), reference.merged_into_nearest(features, chosen), atol=1e-12)


@few
@given(seed=SEEDS, patches=st.integers(6, 40), attended=st.booleans(), data=st.data())
def test_groups_of_prunesid(seed, patches, attended, data):
    rng, heads = np.random.default_rng(seed), int(attended)
    count = data.draw(st.integers(1 + heads, patches))
    states, attention = rng.normal(size=(patches, 50)) + rng.normal(size=50), coarse(rng, patches)
    states[rng.integers(patches)] = states[rng.integers(patches)]
    scores = tensor(attention) if attended else None
    got = prunesid.essential(tensor(states), scores, count, heads).tolist()
    assert got == reference.essential(states, attention if attended else None, count, heads)
    assert len(set(got)) == count - heads


@few
@given(seed=SEEDS, groups=st.sampled_from([1, 2]), words=st.integers(1, 5), patches=PATCHES)
def test_weighed_heads_of_hawk(seed, groups, words, patches):
    rng = np.random.default_rng(seed)
    queries, keys = rng.normal(size=(4, words, 6)), rng.normal(size=(groups, patches, 6))
    weights = rng.random(4)
    got = hawk.head_weighted(tensor(queries), tensor(keys), tensor(weights).float())
    np.testing.assert_allclose(got.numpy(), reference.head_weighted(queries, keys, weights), atol=1e-5)


@few
@given(rows=st.integers(1, 12), columns=st.integers(1, 12), data=st.data())
def test_even_grids_and_windows(rows, columns, data):
    count = data.draw(st.integers(1, rows * columns))
    grid = controls.even_grid(rows, columns, count).tolist()
    assert len(set(grid)) == count
    assert grid == sorted(grid)
    assert grid[0] >= 0
    assert grid[-1] < rows * columns
    windows = controls.windows(rows, columns, count)
    covered = {(r, c) for height, width in windows for r in height for c in width}
    assert len(windows) == count
    assert covered == {(r, c) for r in range(rows) for c in range(columns)}
    features = torch.arange(rows * columns, dtype=torch.float64).view(rows, columns, 1)
    for mean, (height, width) in zip(controls.pooled(features, count)[:, 0], windows, strict=True):
        assert math.isclose(mean, np.mean([r * columns + c for r in height for c in width]), abs_tol=1e-9)


def test_even_grids_are_even():
    """Of 24 x 24 tokens 64 are every third of every third line."""
    grid = controls.even_grid(24, 24, 64)
    assert torch.equal(grid, (torch.arange(1, 24, 3)[:, None] * 24 + torch.arange(1, 24, 3)).flatten())
    windows = controls.windows(24, 24, 64)
    assert {(len(height), len(width)) for height, width in windows} == {(3, 3)}


def test_random_tokens_are_alike_likely_and_repeatable():
    drawn = torch.cat([controls.at_random(8, 2, seed) for seed in range(4000)])
    assert (torch.bincount(drawn) / 4000 - 0.25).abs().max() < 0.03
    assert torch.equal(controls.at_random(64, 9, 3), controls.at_random(64, 9, 3))


@few
@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=6), count=st.integers(0, 100))
def test_proportional_shares(sizes, count):
    shares = proportional(sizes, count)
    assert sum(shares) == min(count, sum(sizes))
    assert all(0 <= share <= size for share, size in zip(shares, sizes, strict=True))
    if 0 < count <= sum(sizes):
        assert all(abs(share - count * size / sum(sizes)) < 1 for share, size in zip(shares, sizes, strict=True))


@pytest.mark.parametrize("limits", [[1, 5, 5], [0, 0, 9]])
def test_what_is_over_a_limit_goes_to_the_others(limits):
    shares = proportional([8.0, 1.0, 1.0], 9, limits)
    assert sum(shares) == 9
    assert all(s <= limit for s, limit in zip(shares, limits, strict=True))
