import itertools

import pytest
import torch
from reference_decoder import reference_rows
from runtime_cases import LATER, SCHEDULE, generated, model, pruned_under
from tiny_models import PAD, tiny_batch

from clasp_calib.baselines.random_pruning import RandomPruning
from clasp_calib.runtime import stages
from clasp_calib.runtime.pruner import prune

BATCHES = {
    "one": {"texts": [(3, 7)]},
    "ragged": {"texts": [(3, 7), (2, 5), (5, 9)]},
    "text-only row": {"texts": [(3, 7), (5, 2), (1, 4)], "images": [1, 0, 1]},
    "two pictures": {"texts": [(3, 7), (1, 4)], "images": [1, 2]},
}


def compare(batch, schedule, rho, **settings):
    """Prune with the runtime and with the reference; ids, kept tokens and cache lengths must be equal."""
    tokens, settings = 5, {"rho": rho, **settings}
    runtime_model = model()
    with pruned_under(runtime_model, schedule=schedule, **settings) as pruner:
        out = runtime_model.generate(**batch, max_new_tokens=tokens, return_dict_in_generate=True)
    rows = reference_rows(runtime_model, batch, schedule, **settings)
    assert out.sequences[:, batch["input_ids"].shape[1] :].tolist() == [row.generate(tokens) for row in rows]
    kept = pruner.stats.stages
    assert [stage.start for stage in kept] == list(schedule.starts)
    for index, row in enumerate(rows):
        assert [stage.kept(index) for stage in kept] == (row.kept or [[], [], []])
    lengths = [layer.keys.shape[-2] for layer in out.past_key_values.layers]
    assert lengths == [max(row.lengths[layer] for row in rows) for layer in range(schedule.layers)]
    return pruner.stats


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("rho", [0.0, 0.6, 1.0])
def test_equals_the_slow_reference(name, rho):
    compare(tiny_batch(model(), **BATCHES[name]), SCHEDULE, rho)


@pytest.mark.parametrize("schedule", [SCHEDULE, LATER])
@pytest.mark.parametrize(
    "settings", [{"raters": "all"}, {"raters": "last"}, {"positions": "compact"}, {"iterations": 1}]
)
def test_options_equal_the_slow_reference(schedule, settings):
    compare(tiny_batch(model()), schedule, 0.5, **settings)


def test_rows_have_their_own_rho():
    batch = tiny_batch(model(), [(3, 7)] * 3)
    for key in batch:
        batch[key][1:] = batch[key][0]
    stats = compare(batch, SCHEDULE, [0.0, 0.5, 1.0])
    pivots = [len(stats.stages[0].pivots(row)) for row in range(3)]
    assert pivots == [0, 5, 9]
    assert len({tuple(stats.stages[1].kept(row)) for row in range(3)}) > 1


def test_pruning_changes_what_is_generated():
    batch = tiny_batch(model())
    with prune(model(), schedule=SCHEDULE, rho=0.5):
        pruned = generated(model(), batch)
    assert pruned != generated(model(), batch)


def test_stats_count_tokens_of_every_layer_and_origins():
    batch = tiny_batch(model(), **BATCHES["text-only row"])
    with prune(model(), schedule=SCHEDULE, rho=0.5) as pruner:
        assert pruner.stats is None
        model()(**batch)
    stats = pruner.stats
    assert stats.mean_tokens == (SCHEDULE.mean_tokens, 0, SCHEDULE.mean_tokens)
    assert set(stats.seconds) == {"cosines", "scoring", "selection"}
    assert all(seconds > 0 for seconds in stats.seconds.values())
    assert stats.tokens[0] == SCHEDULE.per_layer == (16, 9, 6, 6, 3, 3, 3, 3)
    assert stats.tokens[1] == (0,) * 8
    for stage, count, pivots in zip(stats.stages, (9, 6, 3), (5, 3, 2), strict=True):
        assert len(stage.kept(0)) == count
        assert len(stage.pivots(0)) == pivots
        assert sorted(stage.pivots(0) + stage.medoids(0)) == stage.kept(0)
        assert stage.kept(1) == []
        assert stage.scores(1) == {}
        scores = stage.scores(0)
        assert min(scores[patch] for patch in stage.pivots(0)) >= max(scores[patch] for patch in stage.medoids(0))
        assert all(score > 0 for score in scores.values())
    for before, after in itertools.pairwise(stats.stages):
        assert set(after.kept(0)) < set(before.kept(0))
        assert list(after.scores(0)) == before.kept(0)
    assert list(stats.stages[0].scores(0)) == list(range(16))


def test_without_grouped_heads_and_with_another_seed():
    other = model(3, kv_heads=4)
    batch = tiny_batch(other)
    with prune(other, schedule=LATER, rho=0.3):
        ids = generated(other, batch)
    assert ids == [row.generate(6) for row in reference_rows(other, batch, LATER, 0.3)]


SAMPLED = {"do_sample": True, "temperature": 3.0, "num_return_sequences": 3}
BEAMS = {"num_beams": 3, "num_return_sequences": 2}


@pytest.mark.parametrize("how", [SAMPLED, BEAMS, {"do_sample": False}], ids=["sampling", "beams", "greedy"])
@pytest.mark.parametrize("name", ["ragged", "text-only row"])
def test_with_cache_equals_without(how, name):
    """Without a cache every step prunes the whole sequence anew; only the prompt may rate."""
    batch = tiny_batch(model(), **BATCHES[name])
    rho = [0.2, 0.5, 0.9]
    results = []
    for use_cache in (True, False):
        length = batch["input_ids"].shape[1]
        with prune(model(), schedule=SCHEDULE, rho=rho, prompt_lengths=length):
            torch.manual_seed(7)
            results.append(generated(model(), batch, use_cache=use_cache, **how))
    assert results[0] == results[1]
    assert len(results[0]) == 3 * how.get("num_return_sequences", 1)


def test_a_second_turn_may_be_ragged():
    """Padding between the turns is seen by no layer, whatever the lengths of its cache."""
    batch = tiny_batch(model(), [(3, 7), (2, 4)])
    turns, mask = torch.tensor([[11, 45, 87, 30], [PAD, PAD, 99, 31]]), torch.tensor([[1] * 4, [0, 0, 1, 1]])
    with prune(model(), schedule=SCHEDULE, rho=0.5):
        first = model().generate(**batch, max_new_tokens=3, return_dict_in_generate=True)
        ids = torch.cat([first.sequences, turns], 1)
        seen = torch.cat([batch["attention_mask"], torch.ones(2, 3, dtype=torch.long), mask], 1)
        second = model().generate(ids, attention_mask=seen, past_key_values=first.past_key_values, max_new_tokens=3)
    for index, row in enumerate(reference_rows(model(), batch, SCHEDULE, 0.5)):
        answer = [*row.generate(3), *turns[index][mask[index].bool()].tolist()]
        for _ in range(3):
            answer.append(int(row.logits(answer).argmax()))
        assert second[index, -3:].tolist() == answer[-3:]


def test_a_picture_in_a_later_turn_is_pruned_alone():
    first, later = tiny_batch(model(), [(3, 7)]), tiny_batch(model(), [(1, 5)], seed=9)
    with prune(model(), schedule=SCHEDULE, rho=0.5) as pruner:
        out = model().generate(**first, max_new_tokens=3, return_dict_in_generate=True)
        ids = torch.cat([out.sequences, later["input_ids"]], 1)
        out = model().generate(
            ids,
            pixel_values=later["pixel_values"],
            past_key_values=out.past_key_values,
            max_new_tokens=2,
            return_dict_in_generate=True,
        )
    lengths = [layer.keys.shape[-2] for layer in out.past_key_values.layers]
    assert lengths == [ids.shape[1] + 1 - 2 * (16 - count) for count in SCHEDULE.per_layer]
    assert [len(stage.kept(0)) for stage in pruner.stats.stages] == [9, 6, 3]


def test_what_the_layers_receive():
    """No position ids after a stage (gaps would be taken for packed sequences), and the rope of what was kept."""
    batch, seen = tiny_batch(model(), [(3, 7)]), {}

    def spy(index):
        def note(_, args, kwargs):
            seen[index] = (args[0].shape[1], kwargs["position_ids"] is None, kwargs["position_embeddings"][0].shape[1])

        return note

    with torch.no_grad(), prune(model(), schedule=LATER, rho=0.5):
        handles = [
            layer.register_forward_pre_hook(spy(index), with_kwargs=True)
            for index, layer in enumerate(model().model.language_model.layers)
        ]
        model()(**batch)
    for handle in handles:
        handle.remove()
    width = batch["input_ids"].shape[1]
    expected = [width - 16 + count for count in LATER.per_layer]
    assert [seen[index] for index in range(8)] == [(n, index >= 2, n) for index, n in enumerate(expected)]


@pytest.mark.parametrize("settings", [{"rho": 1.0}, {"rho": 0.5, "selector": RandomPruning(0)}])
def test_cosines_are_computed_only_when_needed(settings, monkeypatch):
    def refuse(features):
        raise AssertionError("computed")

    monkeypatch.setattr(stages, "gram_matrix", refuse)
    with prune(model(), schedule=SCHEDULE, **settings):
        generated(model(), tiny_batch(model()))
    with pytest.raises(AssertionError, match="computed"), prune(model(), schedule=SCHEDULE, rho=[1.0, 1.0, 0.9]):
        generated(model(), tiny_batch(model()))
