"""Methods with stages against a decoder that prunes slowly and obviously: one row, everything anew for each token."""

import math
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st

sys.path.append(str(Path(__file__).parents[1] / "runtime"))

from architectures import CASES as MODELS
from reference_decoder import reference_row
from runtime_cases import generated
from slow_ranking import order
from test_btp import reference_stage
from test_dart import reference as reference_dart
from test_sparsevlm import reference_recycle
from tiny_models import tiny_batch, tiny_llava

from clasp_calib.baselines.btp import Btp, spread
from clasp_calib.baselines.fitprune import FitPrune, droppable
from clasp_calib.baselines.registry import method
from clasp_calib.common.errors import BudgetError, ModelError
from clasp_calib.runtime.schedule import parse_budget, solve_schedule

BUDGET, TOKENS, LAYERS = "40%", 3, 8


class Stage:
    """What a reference sees: states, ids, visual and text places, and the layers around the stage."""

    def __init__(self, own, hidden, ids, visual, text, raters, before, entered):
        self.own, self.hidden, self.ids = own, hidden, ids
        self.visual, self.text, self.raters = visual, text, raters
        self._before, self.entered = before, entered
        self.norm = own.model.model.language_model.norm

    def attention(self):
        """[H, S, S] of the layer before."""
        return self.own.layer(*self._before)[1]

    def keys(self):
        """[S, G d] of the layer before, rotated."""
        return self._rotated("k_proj").flatten(1)

    def products(self):
        """[H, S, S] of the layer before: what the softmax makes its attention of, without a mask."""
        query, key = self._rotated("q_proj"), self._rotated("k_proj")
        share = query.shape[1] // key.shape[1]
        return torch.stack([query[:, h] @ key[:, h // share].T / query.shape[2] ** 0.5 for h in range(query.shape[1])])

    def _rotated(self, projection):
        layer, hidden, ids = self._before
        attention = layer.self_attn
        cos, sin = self.own.model.model.language_model.rotary_emb(hidden[None], ids if len(ids) == 1 else ids[:, None])
        states = getattr(attention, projection)(layer.input_layernorm(hidden)).unflatten(-1, (-1, attention.head_dim))
        a, b = states.chunk(2, -1)
        return states * cos[0][:, None] + torch.cat([-b, a], -1) * sin[0][:, None]


def count(share, tokens):
    return max(1, math.floor(share * tokens + 0.5 + 1e-9)) if share else 0


def dart(stage, number, tokens, knobs):
    keys, hidden = stage.keys(), stage.norm(stage.hidden)
    rows = [keys[stage.visual], keys[stage.text], hidden[stage.visual], hidden[stage.text]]
    return reference_dart(*rows, count(knobs.kept, tokens), 4, 4), []


def pyramiddrop(stage, number, tokens, knobs):
    attention = stage.own.layer(stage.entered, stage.hidden, stage.ids)[1].mean(0)[stage.text[-1], stage.visual]
    return sorted(order(attention.tolist())[: count(knobs.ratios[number], tokens)]), []


def btp(stage, number, tokens, knobs):
    keep = count(knobs.kept[number], tokens)
    if not keep:
        return [], []
    side = math.isqrt(tokens)
    grid = (side, side) if side * side == tokens else (1, tokens)
    cells = spread(*grid, keep // 2) if number == 0 else ()
    ranked = stage.products() if knobs.ranking == "products" else stage.attention()
    attention = ranked.mean(0)[stage.text[-1], stage.visual]
    shares = [(0.3, 0.3, 3.7), (0.1, 0.9, 1.5), (0.0, 1.0, 1.2)][number]
    return reference_stage(stage.hidden[stage.visual], attention, keep, *shares, cells), []


def sparsevlm(stage, number, tokens, knobs):
    total = solve_schedule(parse_budget(BUDGET), tokens, LAYERS, (1, 2, 4)).counts[number]
    arrived = len(stage.visual)
    if total >= arrived:
        return list(range(arrived)), []
    returning = [(int(0.3 * (arrived - k)) + 1) // 10 + 1 for k in range(arrived)]
    keep = max((k for k in range(1, arrived) if k + returning[k] <= total), default=1)
    score = stage.attention()[:, stage.raters][:, :, stage.visual].mean((0, 1))
    kept = sorted(order(score.tolist())[:keep])
    pruned = [i for i in range(arrived) if i not in kept]
    means, centres = reference_recycle(stage.hidden[stage.visual][pruned], score[pruned])
    return kept, [(torch.tensor(mean), pruned[c]) for mean, c in zip(means, centres, strict=True)]


def sparsevlm_v2(stage, number, tokens, knobs):
    keep = solve_schedule(parse_budget(BUDGET), tokens, LAYERS, (1, 2, 4)).counts[number]
    if keep >= len(stage.visual):
        return list(range(len(stage.visual))), []
    attention = stage.attention()[:, stage.raters][:, :, stage.visual]
    rotary = stage.own.model.model.language_model.rotary_emb
    ids = stage.ids if len(stage.ids) == 1 else stage.ids[:, None]
    cos, sin = (part[0] for part in rotary(stage.hidden[None], ids))
    half = cos.shape[1] // 2
    ones = cos + torch.cat([-sin[:, :half], sin[:, half:]], 1)
    freed = attention / (ones[stage.raters] @ ones[stage.visual].T / math.sqrt(2 * half))
    heads = order(freed.sum((1, 2)).tolist())[: max(1, round(len(freed) * 14 / 32))]
    return sorted(order(freed[heads].mean((0, 1)).tolist())[:keep]), []


REFERENCES = {
    "dart": (dart, (1,), False),
    "pyramiddrop": (pyramiddrop, (1, 2, 4), True),
    "btp": (btp, (1, 2, 4, 6), False),
    "sparsevlm": (sparsevlm, (1, 2, 4), True),
    "sparsevlm-v2": (sparsevlm_v2, (1, 2, 4), False),
}


@torch.no_grad()
def reference_ids(model, row, choose, starts, compact, knobs):
    """Greedy ids, and of every stage which visual tokens are left."""
    own = reference_row(model, row, solve_schedule(parse_budget("50%"), 16, LAYERS, (1, 2, 4)), 1.0)
    text = model.model.language_model
    all_visual = own.visual_S.nonzero().flatten().tolist()
    raters = own.rater_positions()
    after = [i for i in range(len(own.visual_S)) if i > max(all_visual)]
    answer, kept = [], []
    for _ in range(TOKENS):
        hidden = torch.cat([own.prompt_SD, text.embed_tokens(torch.tensor(answer, dtype=torch.long))])
        beyond = torch.arange(len(own.visual_S), len(hidden)) + own.shift
        ids = torch.cat([own.place_AS, beyond.expand(len(own.place_AS), -1)], 1)
        place, kept, before = list(range(len(hidden))), [], None
        for index, layer in enumerate(text.layers):
            if index in starts:
                visual = [k for k, i in enumerate(place) if i in all_visual]
                at = [[k for k, i in enumerate(place) if i in of] for of in (after, raters)]
                stage = Stage(own, hidden, ids, visual, *at, before, layer)
                left, added = choose(stage, starts.index(index), len(all_visual), knobs)
                stay = [k for k in range(len(place)) if k not in visual or visual.index(k) in left]
                head = [k for k in stay if k <= visual[-1]]
                centres = [visual[c] for _, c in added]
                whole = [*head, *centres, *stay[len(head) :]]
                hidden = hidden[whole].clone()
                for number, (mean, _) in enumerate(added):
                    hidden[len(head) + number] = mean
                place, ids = [place[k] for k in whole], ids[:, whole]
                if compact and len(ids) == 1:
                    ids = torch.arange(len(place))[None]
                kept.append([all_visual.index(i) for i in place if i in all_visual])
            before = (layer, hidden, ids)
            hidden = own.layer(layer, hidden, ids)[0]
        answer.append(int(model.lm_head(text.norm(hidden))[-1].argmax()))
    return answer, kept


@pytest.mark.thinned("name", "model")
@pytest.mark.parametrize("model", ["llava", "llava_next", "qwen2_5_vl"])
@pytest.mark.parametrize("name", REFERENCES)
def test_ids_and_kept_tokens_equal_the_slow_decoder(name, model):
    made = MODELS[model]
    choose, starts, compact = REFERENCES[name]
    row = made.row(3, 3, 1, 7)
    with method(name)(made.model(), budget=BUDGET) as run:
        ids = generated(made.model(), row, TOKENS)
    expected, kept = reference_ids(made.model(), row, choose, starts, compact, run.method)
    assert [stage.kept(0) for stage in run.stats.stages] == kept
    assert ids == [expected]


@pytest.mark.parametrize(
    "model", ["llava", *(pytest.param(m, marks=pytest.mark.slow) for m in ("llava_next", "qwen2_5_vl"))]
)
def test_btp_by_attention_as_the_paper_says(model):
    made, row = MODELS[model], MODELS[model].row(3, 3, 1, 7)
    choose, starts, compact = REFERENCES["btp"]
    kept = {}
    for ranking in ("attention", "products"):
        with Btp(ranking=ranking)(made.model(), budget=BUDGET) as run:
            ids = generated(made.model(), row, TOKENS)
        expected, kept[ranking] = reference_ids(made.model(), row, choose, starts, compact, run.method)
        assert [stage.kept(0) for stage in run.stats.stages] == kept[ranking]
        assert ids == [expected]
    assert kept["attention"] != kept["products"]


def fitprune(stage, number, tokens, knobs):
    """What has least, by the product of what text and visual tokens give it in the head where it is most."""
    attention = stage.attention().amax(0)
    parts = [attention[givers][:, stage.visual].mean(0) for givers in (stage.text, stage.visual)]
    keep = count(1 - sum(knobs.recipe[: FITTED[number]]), tokens)
    return sorted(order((parts[0] * parts[1]).tolist())[:keep]), []


FITTED = (1, 2, 5)


@pytest.mark.parametrize("model", ["llava", "llava_next", "qwen2_5_vl"])
def test_fitprune_drops_after_each_layer_what_its_recipe_says(model):
    made, method = MODELS[model], FitPrune(recipe=(0.3, 0.2, 0.0, 0.0, 0.25, 0.0, 0.0, 0.0))
    row = made.row(3, 3, 1, 7)
    with method(made.model(), native="default") as run:
        ids = generated(made.model(), row, TOKENS)
    expected, kept = reference_ids(made.model(), row, fitprune, FITTED, False, method)
    assert [stage.kept(0) for stage in run.stats.stages] == kept
    assert ids == [expected]


def test_fitprune_fits_a_recipe_and_refuses_one_for_another_decoder():
    made = MODELS["llava"]
    images = [made.row(seed, 1, 1, 2) for seed in range(6)]
    with pytest.raises(BudgetError, match="recipe is for a decoder of 32 layers, and this one has 8"):
        FitPrune()(made.model(), native="default").__enter__()
    other = MODELS["qwen3_5"]
    with pytest.raises(ModelError, match="expected full attention in every layer"):
        FitPrune().calibrated(other.model(), [other.row(0, 1, 1, 2)], "40%")
    dropped = []
    for budget in (5, 8, 12):
        method, spread = FitPrune().calibrated(made.model(), images, budget)
        assert abs(spread.mean - budget) <= 1
        with method(made.model(), native="default") as run, torch.no_grad():
            made.model()(**images[0])
        assert run.stats.mean_tokens[0] == pytest.approx(spread.mean)
        dropped.append(sum(method.recipe))
    assert dropped == sorted(dropped, reverse=True)


@given(seed=st.integers(0, 10_000), tokens=st.integers(1, 12), alpha=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
@settings(max_examples=40, deadline=None)
def test_what_fitprune_may_drop(seed, tokens, alpha):
    """As many of the least as leave enough of what there was; one stays."""
    got = torch.randint(1, 9, (tokens,), generator=torch.Generator().manual_seed(seed)).double()
    whole, least = float(got.sum()) + seed % 3, sorted(range(tokens), key=lambda i: (float(got[i]), i))
    lost = droppable(got, whole, alpha).nonzero().flatten().tolist()
    enough = [k for k in range(tokens) if sum(float(got[i]) for i in least[k:]) >= (1 - alpha) * whole]
    assert lost == sorted(least[: max(enough, default=0)])


def test_dart_compares_what_the_final_norm_makes():
    """Its weights are all 1 in the models above, which leaves cosines as they are."""
    model = tiny_llava(seed=4)
    with torch.no_grad():
        model.model.language_model.norm.weight.copy_(torch.linspace(-3, 3, model.config.text_config.hidden_size))
    row = tiny_batch(model, texts=[(3, 7)])
    with method("dart")(model, budget=BUDGET) as run:
        ids = generated(model, row, TOKENS)
    expected, kept = reference_ids(model, row, *REFERENCES["dart"], run.method)
    assert [stage.kept(0) for stage in run.stats.stages] == kept
    assert ids == [expected]


def in_two_calls(model, row, first):
    """Logits of a prompt whose first tokens, before any picture, come in a call of their own."""
    ids, mask = row["input_ids"], row["attention_mask"]
    cache = model(input_ids=ids[:, :first], attention_mask=mask[:, :first]).past_key_values
    return model(
        input_ids=ids[:, first:], pixel_values=row["pixel_values"], attention_mask=mask, past_key_values=cache
    ).logits[:, -1]


@pytest.mark.parametrize("name", [name for name in REFERENCES if name != "pyramiddrop"])
def test_text_that_is_cached_before_the_picture_changes_nothing(name):
    model, row = MODELS["llava"].model(), MODELS["llava"].row(2, 9, 1, 7)
    with method(name)(model, budget=BUDGET), torch.no_grad():
        whole = model(**row).logits[:, -1]
        assert (in_two_calls(model, row, 6) - whole).abs().max() < 1e-4


def test_pyramiddrop_cannot_join_a_filled_cache():
    model, row = MODELS["llava"].model(), MODELS["llava"].row(2, 9, 1, 7)
    with (
        method("pyramiddrop")(model, budget=BUDGET),
        torch.no_grad(),
        pytest.raises(ModelError, match="begin anew without past_key_values"),
    ):
        in_two_calls(model, row, 6)


@pytest.mark.parametrize(
    ("name", "budget", "why"),
    [
        ("pyramiddrop", 36, "nothing is dropped before layer 2 of 32"),
        ("sparsevlm", 54, "before layer 3 of 32 nothing is dropped"),
        ("dart", 36, "starts at layer 2 of 32"),
        ("btp", 54, "starts at layer 3 of 32"),
        ("btp", 500, r"at most 68\.75%"),
    ],
)
def test_budgets_beyond_what_stages_can_do_are_refused(name, budget, why, deep):
    with pytest.raises(BudgetError, match=why):
        method(name)(deep[0], budget=budget).__enter__()


@pytest.mark.parametrize(
    ("name", "native", "layers"),
    [
        ("pyramiddrop", "default", [576] * 8 + [288] * 8 + [144] * 8 + [72] * 8),
        ("sparsevlm", "192", [576] * 3 + [309] * 4 + [204] * 9 + [113] * 16),
        ("sparsevlm-v2", "128", [576] * 3 + [238] * 4 + [108] * 9 + [60] * 16),
        ("dart", "64", [576] * 2 + [68] * 30),
        ("btp", "default", [576] * 3 + [288] * 3 + [144] * 8 + [48] * 8 + [0] * 10),
    ],
)
def test_native_settings_work_on_the_published_numbers_of_tokens(name, native, layers, deep):
    model, row = deep
    with method(name)(model, native=native) as run:
        model(**row)
    assert list(run.stats.tokens[0]) == layers


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("budget", [192, 128, 64])
def test_budgets_are_met_in_the_published_shape(name, budget, deep):
    model, row = deep
    with method(name)(model, budget=budget) as run:
        model(**row)
    assert abs(run.stats.mean_tokens[0] - budget) < 0.5


@pytest.fixture(scope="module")
def deep():
    """576 tokens and 32 layers, as narrow as can be."""
    model = tiny_llava(decoder_layers=32, image_size=336, vision_layers=2)
    return model, tiny_batch(model, texts=[(3, 7)])
