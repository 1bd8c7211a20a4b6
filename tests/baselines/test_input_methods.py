"""What enters the decoder under each method, on a whole LLaVA or LLaVA-NeXT, worked out by hand."""

import sys
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

from clasp_calib.baselines.cdpruner import CDPruner, clip_similarity
from clasp_calib.baselines.controls import AveragePooling, windows
from clasp_calib.baselines.hired import HiRED
from clasp_calib.baselines.holov import HoloV
from clasp_calib.baselines.prumerge import PruMerge, PruMergePlus
from clasp_calib.baselines.registry import method
from clasp_calib.baselines.visionzip import VisionZip
from clasp_calib.common.errors import BudgetError
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


@pytest.mark.parametrize("name", ["fastervlm", "vispruner", "hired", "divprune", "grid", "random"])
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
