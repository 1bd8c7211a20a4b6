"""What enters the decoder under each method, on a whole LLaVA or LLaVA-NeXT, worked out by hand."""

import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import reference_methods as reference
import torch

sys.path.append(str(Path(__file__).parents[1] / "runtime"))

from architectures import CASES
from runtime_cases import model
from tiny_models import tiny_batch
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig

from clasp_calib.baselines.cdpruner import CDPruner, clip_similarity, embedded_similarity
from clasp_calib.baselines.choosing import proportional
from clasp_calib.baselines.controls import AveragePooling, windows
from clasp_calib.baselines.hawk import Hawk
from clasp_calib.baselines.hiprune import HiPrune
from clasp_calib.baselines.hired import HiRED
from clasp_calib.baselines.holov import HoloV
from clasp_calib.baselines.prumerge import PruMerge, PruMergePlus
from clasp_calib.baselines.prunesid import PruneSID
from clasp_calib.baselines.registry import method
from clasp_calib.baselines.scope import Scope
from clasp_calib.baselines.visionzip import VisionZip
from clasp_calib.baselines.vscan import VScan
from clasp_calib.common.errors import BudgetError, ModelError
from clasp_calib.runtime.adapters import adapter_for


@pytest.fixture(scope="module")
def llava():
    return model(attention="eager")


@pytest.fixture(scope="module")
def seen(llava):
    """One picture as the tower has it: pixels, attention by block [H, t, t], states [t, C], features [16, D]."""
    pixels = tiny_batch(llava)["pixel_values"][:1]
    with torch.no_grad():
        output = llava.model.vision_tower(pixels, output_attentions=True, output_hidden_states=True)
        features = llava.model.get_image_features(pixels, return_dict=True).pooler_output[0]
    attention = [matrix[0].double().numpy() for matrix in output.attentions]
    return pixels, attention, output.hidden_states[3][0], features


def entering(method, llava, pixels):
    """Features of one picture that enter the decoder, in order."""
    with method(llava, native="default"), torch.no_grad():
        features = llava.model.get_image_features(pixels, return_dict=True).pooler_output[0]
    return features[~features.isinf().any(1)]


def projected(llava, states):
    with torch.no_grad():
        return llava.model.multi_modal_projector(torch.as_tensor(states, dtype=torch.float32)[None])[0]


def projections(llava, block, states_tC):
    """Queries and keys of a block, of full width."""
    layer = llava.model.vision_tower.encoder.layers[block]
    with torch.no_grad():
        normed = layer.layer_norm1(states_tC)
        return layer.self_attn.q_proj(normed), layer.self_attn.k_proj(normed)


def test_visionzip_sends_class_token_then_dominant_then_contextual(llava, seen):
    pixels, attention, states, _ = seen
    from_class = attention[2][:, 0, 1:]
    dominant = reference.most_attended(from_class, 5)  # of 8 tokens 2 are contextual, and one is the class token
    rest = [p for p in range(16) if p not in dominant]
    with torch.no_grad():
        before = llava.model.vision_tower(pixels, output_hidden_states=True).hidden_states[2][0]
    keys = projections(llava, 2, before)[1][1:].view(16, 2, 8).mean(1).double().numpy()
    patches = states[1:].double().numpy()
    _, merged = reference.contextual(patches[rest], keys[rest], 2)
    expected = np.concatenate([states[:1].double().numpy(), patches[dominant], merged])
    got = entering(VisionZip(keep="8", context=0.25), llava, pixels)
    torch.testing.assert_close(got, projected(llava, expected), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", [PruMerge(iqr=0.5), PruMergePlus(iqr=20.0)])
def test_prumerge_sends_outliers_by_attention_then_the_rest_as_one(llava, seen, method):
    """The class attention of the last block with queries and keys as one head."""
    pixels, _, states, _ = seen
    query, key = projections(llava, 3, states)
    attention = (query[0] @ key.T / 16**0.5).softmax(-1)[1:].double().numpy()
    chosen = reference.ranked(attention)[: max(reference.outliers(attention, method.iqr), 1)]
    if method.name == "prumerge+":
        chosen += reference.spread(attention, len(chosen))
    merged = reference.merged(states[1:].double().numpy(), key[1:].double().numpy(), attention, chosen)
    got = entering(method, llava, pixels)
    assert 1 < len(got) < 16
    torch.testing.assert_close(got, projected(llava, merged), atol=1e-4, rtol=1e-4)


def test_holov_sends_strip_by_strip_by_attention(llava, seen):
    pixels, attention, _, features = seen
    from_class = attention[2][:, 0, 1:].mean(0)
    order = reference.holistic(features.double().numpy(), from_class, 7, 4, 0.09)
    assert torch.equal(entering(HoloV(keep="7", strips=4), llava, pixels), features[order])
    assert order != sorted(order)


def test_scope_keeps_what_is_salient_and_covers(llava, seen):
    pixels, attention, states, features = seen
    from_class = attention[2][:, 0, 1:].mean(0)
    chosen = reference.salient_cover(states[1:].double().tolist(), from_class, 6)
    assert torch.equal(entering(Scope(keep="6"), llava, pixels), features[chosen])


def test_hiprune_looks_at_a_middle_block_and_the_last(llava, seen):
    """By what all tokens give, the class token among them; of 4 blocks the 2nd is as deep as the 9th of 24."""
    pixels, attention, _, features = seen
    middle, last = (attention[block].mean(0)[:, 1:].mean(0) for block in (1, 2))
    told_apart = False
    for count, share in [(count, share) for count in range(3, 15) for share in (0.5, 0.8, 1.0)]:
        chosen = reference.hierarchical(middle, last, 4, count, share)
        assert torch.equal(entering(HiPrune(keep=str(count), share=share), llava, pixels), features[chosen])
        told_apart |= chosen not in (reference.hierarchical(a, a, 4, count, share) for a in (middle, last))
    assert told_apart


def test_prunesid_sends_the_class_token_and_then_group_by_group(llava, seen):
    pixels, attention, states, _ = seen
    from_class = attention[2][:, 0, 1:].mean(0)
    chosen = reference.essential(states[1:].double().numpy(), from_class, 9, 1)
    assert chosen != sorted(chosen)
    expected = torch.cat([states[:1], states[1:][chosen]])
    got = entering(PruneSID(keep="9"), llava, pixels)
    torch.testing.assert_close(got, projected(llava, expected), atol=1e-4, rtol=1e-4)


def test_vscan_merges_what_two_scans_leave_and_prunes_by_the_text_later(llava, seen):
    """The second stage against a plain decoder that is given the shorter sequence from the start."""
    pixels, attention, _, features = seen
    local, whole = (attention[block][:, 0, 1:].mean(0) for block in (0, 2))
    chosen = reference.scanned(local, whole, 4, 9, 6)
    merged = reference.merged_into_nearest(features.double().numpy(), chosen)
    vscan = VScan(keep="9", later=0.4)
    got = entering(vscan, llava, pixels)
    torch.testing.assert_close(got, torch.as_tensor(merged, dtype=torch.float32), atol=1e-4, rtol=1e-4)
    row = {name: value[:1] for name, value in tiny_batch(llava, texts=[(3, 7)]).items()}
    row["pixel_values"] = pixels
    with vscan(llava, native="default") as run, torch.no_grad():
        llava(**row)
    assert run.stats.tokens == ((9, 9, 9, 9, 4, 4, 4, 4),)
    with torch.no_grad():
        words = llava.get_input_embeddings()(row["input_ids"])[0]
        place = (row["input_ids"][0] == llava.config.image_token_id).nonzero().flatten()
        short = torch.cat([words[: place[0]], got, words[place[-1] + 1 :]])[None]
        seen_by = llava.model.language_model(inputs_embeds=short, output_attentions=True).attentions[4][0].mean(0)
    scores = seen_by[-1, place[0] : place[0] + 9].tolist()
    assert run.stats.stages[0].kept(0) == sorted(reference.ranked(scores)[:4])


def test_hawk_admits_what_the_first_layer_would_look_at(llava, seen):
    weights = (0.1, 0.6, 0.0, 0.3)
    row = tiny_batch(llava, texts=[(3, 7)])
    layer, ids = llava.model.language_model.layers[0], row["input_ids"][0]
    place = (ids == llava.config.image_token_id).nonzero().flatten()
    with Hawk(weights=weights, share=0.4)(llava, native="default") as run, torch.no_grad():
        llava(**row)
        states = llava.get_input_embeddings()(ids)
        states[place] = llava.model.get_image_features(row["pixel_values"], return_dict=True).pooler_output[0]
        normed, attend = layer.input_layernorm(states), layer.self_attn
        heads = [
            projection(normed).unflatten(-1, (-1, attend.head_dim)).transpose(0, 1)
            for projection in (attend.q_proj, attend.k_proj)
        ]
    queries, keys = heads[0][:, place[-1] + 1 :].double().numpy(), heads[1][:, place].double().numpy()
    best = reference.ranked(reference.head_weighted(queries, keys, weights))[:6]
    assert run.stats.stages[0].kept(0) == sorted(best)
    assert run.stats.tokens == ((6,) * 8,)


def test_hawk_without_weights_is_for_the_model_that_they_were_measured_on(llava):
    with pytest.raises(ModelError, match=r"^hawk cannot run on this llava model: it weighs the 4 heads"):
        Hawk()(llava, budget=6).__enter__()
    with pytest.raises(ModelError, match="was given 2 weights, and the decoder has 4 heads"):
        Hawk(weights=(1.0, 2.0))(llava, budget=6).__enter__()


def test_pooling_sends_means_of_projected_tokens(llava, seen):
    pixels, _, _, features = seen
    expected = [features.view(4, 4, -1)[h.start : h.stop, w.start : w.stop].mean((0, 1)) for h, w in windows(4, 4, 6)]
    torch.testing.assert_close(entering(AveragePooling(keep="6"), llava, pixels), torch.stack(expected))


def test_cdpruner_with_a_text_tower(llava, seen):
    pixels, _, states, features = seen
    vision = llava.model.vision_tower.config
    text = CLIPTextConfig(
        vocab_size=30,
        hidden_size=12,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=16,
        bos_token_id=0,
        eos_token_id=29,
    )
    torch.manual_seed(3)
    clip = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)).eval()
    question = torch.tensor([[0, 5, 7, 29], [0, 8, 9, 29]])
    with torch.no_grad():
        words = clip.get_text_features(input_ids=question).pooler_output
        patches = clip.visual_projection(clip.vision_model.post_layernorm(states[1:]))
    similarity = [np.mean([reference.cosine(patch, word) for word in words.tolist()]) for patch in patches.tolist()]
    kernel, chosen = reference.conditional_kernel(features.double().numpy(), similarity), []
    while len(chosen) < 5:
        left = reference.conditional_variances(kernel, chosen)
        chosen.append(left.index(max(left)))
    got = entering(CDPruner(keep="5", similarity=clip_similarity(clip, question)), llava, pixels)
    assert torch.equal(got, features[sorted(chosen)])


@pytest.mark.parametrize("name", ["llava", "llava_next"])
def test_embeddings_of_the_question_stand_in_for_a_text_tower(name):
    """A token is as relevant as the mean of its cosines with the words, whatever cell it shows."""
    case, question, found = CASES[name], torch.tensor([[1.0, *[0.0] * 31], [0.0, 2.0, *[0.0] * 30]]), []
    relevant = embedded_similarity(question)
    method = CDPruner(keep="5", similarity=lambda image: found.append((image, relevant(image))) or found[-1][1])
    row = case.row(0, 1, 1, 1)
    with method(case.model(), native="default"), torch.no_grad():
        case.model()(**row)
    image, similarity_U = found[0]
    for token, cell in enumerate(image.layout.cell_N.tolist()):
        if cell >= 0:
            feature = image.features_ND[token].tolist()
            expected = -np.mean([reference.cosine(feature, word) for word in question.tolist()])
            assert float(similarity_U[cell]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("keep", "alpha"), [("30", 0.5), ("60%", 0.5), ("20", 0.0), ("90%", 1.0)])
def test_hired_shares_the_budget_between_tiles_by_votes(keep, alpha):
    """The whole picture has its part, rounded down, as far as it can take it; tiles that get more votes get more."""
    case, method = CASES["llava_next"], HiRED(keep=keep, alpha=alpha)
    found = []

    class Watched(HiRED):
        def allot(self, image, tiles, count):
            found.append((image, tiles, count, super().allot(image, tiles, count)))
            return found[-1][-1]

    made, row = case.model("eager"), case.row(0, 1, 1, 1)
    with Watched(keep=keep, alpha=alpha)(made, native="default") as run, torch.no_grad():
        made(**row)
        tiles_RP = made.model.vision_tower(row["pixel_values"][0], output_attentions=True).attentions[0][:, :, 0, 1:]
    image, tiles, count, shares = found[0]
    assert sum(shares) == count == run.stats.tokens[0][0] == method.count(image)
    sizes = [len(token_P) for token_P in tiles]
    assert all(share <= size for share, size in zip(shares, sizes, strict=True))
    votes = reference.looked_at(tiles_RP[0].double().numpy(), (4, 4), image.layout.cut, max(int(16 * (1 - alpha)), 1))
    assert shares[0] == min(max(int(count * alpha), count - sum(sizes[1:])), sizes[0]) or min(votes) == 0
    ample = [i for i in range(len(votes)) if shares[i + 1] < sizes[i + 1]]
    for a in ample:
        for b in ample:
            assert votes[a] <= votes[b] or shares[a + 1] >= shares[b + 1]


def test_prumerge_says_how_to_meet_a_budget_and_how_much_it_varies():
    llava = model()
    with pytest.raises(BudgetError, match=r"PruMerge\(\)\.calibrated\(model, images, budget='7'\)"):
        PruMerge()(llava, budget=7).__enter__()
    images = [tiny_batch(llava, seed=seed) for seed in range(20)]
    solved, spread = PruMerge().calibrated(llava, images, budget=7)
    assert spread.images == 60
    assert abs(spread.mean - 7) <= 1
    counts = []
    with solved(llava, native="default") as run:
        for batch in images:
            with torch.no_grad():
                llava(**batch)
            counts += [tokens[0] for tokens in run.stats.tokens]
    assert sum(counts) / 60 == pytest.approx(spread.mean)
    assert (min(counts), max(counts)) == (spread.least, spread.most)
    assert "get_image_features" not in vars(llava.model)
    with pytest.raises(BudgetError, match="prunes nothing"):
        PruMerge().calibrated(llava, images, budget=16)


def test_adapters_of_methods_are_those_of_the_model():
    assert HiRED().adapter_for(CASES["llava"].model()).class_tokens == 1
    assert adapter_for(CASES["qwen2_5_vl"].model()).class_tokens == 0


@pytest.mark.parametrize(
    "name", ["fastervlm", "vispruner", "hired", "divprune", "grid", "random-input", "scope", "hiprune"]
)
def test_kept_tokens_stand_line_by_line_across_the_tiles(name):
    made = CASES["llava_next"]
    row = made.row(2, 3, 1, 7)
    pictures = {key: row[key] for key in ("pixel_values", "image_sizes")}

    def features():
        with torch.no_grad():
            (found,) = made.model().model.get_image_features(**pictures, return_dict=True).pooler_output
        return found

    whole = features()
    with method(name)(made.model(), budget="40%"):
        kept = features()
    kept = kept[~kept.isinf().any(1)]
    places = torch.cdist(kept, whole).argmin(1).tolist()
    assert torch.equal(kept, whole[places])
    assert places == sorted(places)
    assert 1 < len(places) < len(whole)


def of_tiles(method):
    """The one picture of a row of LLaVA-NeXT: its layout, all its features, and those that enter under a method."""
    made = CASES["llava_next"]
    pictures = {key: value for key, value in made.row(2, 3, 1, 7).items() if key in ("pixel_values", "image_sizes")}
    (layout,) = adapter_for(made.model()).layouts(made.model(), pictures)
    found = []
    for context in (nullcontext(), method(made.model(), native="default")):
        with context, torch.no_grad():
            (features,) = made.model().model.get_image_features(**pictures, return_dict=True).pooler_output
            found.append(features[~features.isinf().any(1)])
    return layout, *found


def test_means_stand_line_by_line_across_the_tiles():
    layout, whole, got = of_tiles(AveragePooling(keep="40%"))
    cells, size = layout.cell_N.tolist(), layout.cells // layout.tiles
    tiles = [[n for n, cell in enumerate(cells) if cell >= 0 and cell // size == tile] for tile in range(layout.tiles)]
    tiles = [tile for tile in tiles if tile]
    means = {}
    for tile, count in zip(tiles, proportional(list(map(len, tiles)), len(got)), strict=True):
        rows = len({cells[n] // layout.grid[1] for n in tile})
        place_RC = torch.tensor(tile).view(rows, -1)
        for height, width in windows(*place_RC.shape, count):
            place = int(place_RC[height[len(height) // 2], width[len(width) // 2]])
            means[place] = whole[place_RC[height.start : height.stop, width.start : width.stop]].mean((0, 1))
    torch.testing.assert_close(got, torch.stack([means[place] for place in sorted(means)]))
    assert list(means) != sorted(means)


def test_visionzip_goes_through_the_tiles_in_turn():
    layout, whole, got = of_tiles(VisionZip(keep="40%", context=0))
    places = torch.cdist(got, whole).argmin(1)
    torch.testing.assert_close(got, whole[places])
    tiles = (layout.cell_N[places] // (layout.cells // layout.tiles)).tolist()
    assert tiles == sorted(tiles)
    assert len(set(tiles)) > 1
    assert places.tolist() != sorted(places.tolist())


@pytest.mark.parametrize("name", ["scope", "hiprune", "prunesid", "vscan"])
def test_newer_methods_choose_tile_by_tile(name):
    """Each tile by its own class attention and states, in proportion to what is shown of it."""
    case, kind, found = CASES["llava_next"], type(method(name)), []

    class Watched(kind):
        def choose(self, image):
            found.append((image, super().choose(image)))
            return found[-1][-1]

    made, row = case.model("eager"), case.row(0, 3, 1, 7)
    with Watched(keep="40%")(made, native="default"), torch.no_grad():
        made(**row)
        tower = made.model.vision_tower(row["pixel_values"][0], output_attentions=True, output_hidden_states=True)
    image, kept = found[0]
    tiles, size, expected, merged = image.patches(), image.layout.cells // image.layout.tiles, [], []
    counts = proportional([len(token_P) for token_P in tiles], kind(keep="40%").count(image))
    assert len(set(map(len, tiles))) > 1
    for token_P, count in zip(tiles, counts, strict=True):
        cell_P, (_, columns) = image.cells(token_P), image.shown(token_P)
        tile, patch = int(cell_P[0]) // size, 1 + cell_P % size
        by_class, by_all = (
            [attention[tile].mean(0)[givers].mean(0)[patch].double().numpy() for attention in tower.attentions]
            for givers in (slice(0, 1), slice(None))
        )
        states = tower.hidden_states[3][tile][patch].double().numpy()
        features = image.features_ND[token_P].double().numpy()
        if name == "scope":
            chosen = reference.salient_cover(states, by_class[2], count)
        elif name == "hiprune":
            chosen = reference.hierarchical(by_all[1], by_all[2], columns, count, 0.1)
        elif name == "prunesid":
            chosen = reference.essential(states, by_class[2], count, 0)
        else:
            chosen = reference.scanned(by_class[0], by_class[2], columns, count, 6)
            merged += zip(token_P[chosen].tolist(), reference.merged_into_nearest(features, chosen), strict=True)
        expected += token_P[chosen].tolist()
    assert kept.place_T.tolist() == (expected if name == "prunesid" else sorted(expected))
    if merged:
        values = np.array([value for _, value in sorted(merged, key=lambda pair: pair[0])])
        np.testing.assert_allclose(kept.features_TD.double().numpy(), values, atol=1e-4)
