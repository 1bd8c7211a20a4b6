"""Positions of pruned prompts, as vLLM's runner asks a model for them, against those of the whole prompt."""

from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from tiny_qwen_vl import tiny_qwen_vl

from clasp_calib.serving.vllm_plugin import MODELS
from clasp_calib.serving.vllm_plugin.mrope import CHANNELS, with_places, without_places

pytestmark = pytest.mark.vllm

CLASSES = {"qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration", "qwen3_vl": "Qwen3VLForConditionalGeneration"}
WIDTH, MERGE, TEXT = 8, 2, 7
WIDE, TALL, SQUARE = (1, 4, 10), (1, 12, 4), (1, 8, 8)
FILM = (3, 4, 6)


@pytest.fixture(scope="module", params=CLASSES)
def both(request):
    """The model of transformers, and vLLM's without its weights."""
    theirs = tiny_qwen_vl(request.param)
    module, _, name = MODELS[CLASSES[request.param]].partition(":")
    kind = getattr(import_module(f"clasp_calib.serving.vllm_plugin.{module}"), name)
    ours, plain = object.__new__(kind), object.__new__(kind)
    vars(ours).update(config=theirs.config, clasp=object())
    vars(plain).update(config=theirs.config, clasp=None)
    return SimpleNamespace(theirs=theirs, ours=ours, plain=plain)


def whole(grid):
    return grid[0] * grid[1] * grid[2] // MERGE**2


def prompt_of(both, pictures):
    """A prompt of text, and pictures and videos with text between them; ``pictures`` are (grid, places that stay).

    Returns:
        Ids, features as the runner has them, what vLLM keeps of each picture, and positions and the next one's, as
        transformers would have them had all stayed; as vLLM would, behind videos, where they differ.
    """
    from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange

    config = both.theirs.config
    ids, all_ids, kinds, stays, features, all_features, rows = [], [], [], [], [], [], []

    def add(token, kind, count, kept=None):
        kept = range(count) if kept is None else kept
        ids.extend([token] * len(kept))
        all_ids.extend([token] * count)
        kinds.extend([kind] * count)
        stays.extend(place in kept for place in range(count))

    add(TEXT, 0, 3)
    for grid, stay in pictures:
        video, tokens, at, all_at = grid[0] > 1, whole(grid), len(ids), len(all_ids)
        kept = list(range(tokens)) if stay is None else stay
        name = "video" if video else "image"
        if video and config.model_type == "qwen3_vl":
            for _ in range(grid[0]):
                add(TEXT, 0, 2)
                add(config.vision_start_token_id, 0, 1)
                add(config.video_token_id, 2, tokens // grid[0])
                add(config.vision_end_token_id, 0, 1)
        else:
            add(config.video_token_id if video else config.image_token_id, 2 if video else 1, tokens, kept)
        data = {f"{name}_grid_thw": SimpleNamespace(data=torch.tensor(grid))}
        shown = torch.tensor(ids[at:]) == config.video_token_id if video else None
        features.append(MultiModalFeatureSpec(data, name, "hash", PlaceholderRange(at, len(ids) - at, shown)))
        all_place = PlaceholderRange(all_at, len(all_ids) - all_at, shown)
        all_features.append(replace(features[-1], mm_position=all_place))
        features_KD = torch.randn(len(kept), WIDTH)
        rows.append(
            torch.cat([features_KD, torch.zeros(len(kept), CHANNELS)], 1)
            if video
            else with_places(features_KD, torch.tensor(kept), grid[2] // MERGE)
        )
        add(TEXT, 0, 2)
    if any(grid[0] > 1 for grid, _ in pictures):
        all_3S, ahead = both.plain.get_mrope_input_positions(all_ids, all_features)
    else:
        all_31S, ahead = both.theirs.model.get_rope_index(
            torch.tensor([all_ids]),
            mm_token_type_ids=torch.tensor([kinds], dtype=torch.int),
            image_grid_thw=torch.tensor([grid for grid, _ in pictures]),
        )
        all_3S = all_31S[:, 0]
    return ids, features, rows, all_3S[:, torch.tensor(stays)], len(all_ids) + int(ahead)


def run(both, ids, features, rows, cached, chunk):
    """What the runner computes with: positions of what is not cached, and the next one's."""
    positions_3S, ahead = both.ours.get_mrope_input_positions(ids, features)
    assert positions_3S.shape == (3, len(ids))
    used = [positions_3S[:, :0]]
    for start in range(cached, len(ids), chunk):
        end, parts = min(start + chunk, len(ids)), []
        for feature, of in zip(features, rows, strict=True):
            place = feature.mm_position
            first, last = max(start - place.offset, 0), min(end - place.offset, place.length)
            part = of[slice(*place.get_embeds_indices_in_range(first, last))] if first < last else of[:0]
            parts += [part] if len(part) else []
        found, positions_3S, ahead = both.ours.recompute_mrope_positions(ids, parts, positions_3S, start)
        assert [part[:, :WIDTH].tolist() for part in parts] == [part.tolist() for part in found]
        used.append(positions_3S[:, start:end])
    _, _, ahead_later = both.ours.recompute_mrope_positions(ids, [], positions_3S, len(ids))
    assert ahead_later == ahead
    return torch.cat(used, dim=1), len(ids) + ahead


CASES = {
    "the corner stays": [(SQUARE, [0, 5, 15])],
    "the corner goes": [(SQUARE, [0, 1, 4])],
    "a tall picture": [(TALL, [1, 6, 9])],
    "a tall picture, whole": [(TALL, None)],
    "a wide picture": [(WIDE, [2, 3, 9])],
    "one token": [(WIDE, [7])],
    "two pictures": [(TALL, [0, 11]), (WIDE, [1, 2, 8])],
    "three, one whole": [(SQUARE, [3]), (TALL, None), (WIDE, [0, 9])],
    "a video behind a picture": [(TALL, [2, 3]), (FILM, None)],
    "a video before a picture": [(FILM, None), (SQUARE, [4, 9, 10])],
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_positions_are_those_of_the_whole_prompt(both, case, chunk):
    ids, features, rows, expected_3S, following = prompt_of(both, CASES[case])
    for cached in range(len(ids)):
        used_3S, next_one = run(both, ids, features, rows, cached, chunk)
        assert torch.equal(used_3S, expected_3S[:, cached:]), cached
        assert next_one == following


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_places_survive_any_dtype(dtype):
    columns = 4097
    row_K, column_K = torch.tensor([0, 255, 256, 257, 513, 4095]), torch.tensor([4096, 1, 257, 0, 2049, 255])
    rows_KE = with_places(torch.randn(6, WIDTH).to(dtype), row_K * columns + column_K, columns)
    features_KD, offset_2K = without_places(rows_KE)
    assert rows_KE.dtype == features_KD.dtype == dtype
    assert features_KD.shape == (6, WIDTH)
    assert torch.equal(offset_2K, torch.stack([row_K, column_K]))


def test_all_that_are_served_are_tried_here():
    assert {architecture for architecture in MODELS if "Qwen" in architecture} == {*CLASSES.values()}
