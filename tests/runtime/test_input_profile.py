"""The input profile against a plain model that is given the shorter sequence, whose tokens were chosen by hand."""

from dataclasses import replace
from itertools import accumulate, pairwise

import pytest
import torch
from architectures import CASES, LAYERS, together
from reference_decoder import encoded, stacked
from reference_selection import reference_select
from runtime_cases import fingerprint, generated
from transformers import LlavaConfig, LlavaForConditionalGeneration, MistralConfig, Qwen3NextConfig

from clasp_calib.common.errors import BudgetError, ModelError
from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.checks import is_recurrent, settled
from clasp_calib.runtime.deepstack import with_deepstack
from clasp_calib.runtime.finite import NonFiniteError
from clasp_calib.runtime.fusion import fuse
from clasp_calib.runtime.input_stage import pruned_at_input
from clasp_calib.runtime.pruner import prune
from clasp_calib.runtime.schedule import Schedule
from clasp_calib.runtime.selection import DualStage
from clasp_calib.runtime.stages import Plan
from clasp_calib.runtime.tower_relevance import relevances_of, with_relevance

OPTIONS = PruningOptions(profile="input")
TOKENS = 4
RHO = [0.6, 0.2, 0.4]


@pytest.fixture(params=CASES.values(), ids=lambda case: case.name)
def case(request):
    return request.param


def pictures_of(case, row):
    names = (case_pixels(case), "image_sizes", "target_sizes", "image_grid_thw", "video_grid_thw")
    return {name: row[name] for name in names if name in row}


def case_pixels(case):
    return adapter_for(case.model()).pixel_names[case.modality]


@torch.no_grad()
def relevances(case, row, kind):
    """Of every picture of a row by itself."""
    given = pictures_of(case, row)
    pixels = given.pop(case_pixels(case))
    return relevances_of(case.model(), adapter_for(case.model()), [kind], pixels, case.modality, **given)[kind]


class Slow:
    """One row, whose tokens are chosen by hand; everything is computed anew for each generated token."""

    @torch.no_grad()
    def __init__(self, case, row, rho, options=OPTIONS, share=0.4):
        self.model, options = case.model(), settled(case.model(), adapter_for(case.model()), options)
        ids = row["input_ids"][0]
        token = adapter_for(self.model).visual_token_ids[case.modality]
        visual, embeddings = (ids == token).nonzero().flatten().tolist(), self.model.get_input_embeddings()(ids)
        keep, self.kept, deepstack = list(range(len(ids))), [], None
        if visual:
            output = encoded(self.model, row, case.modality)
            pooled = output.pooler_output
            pooled = pooled if isinstance(pooled, torch.Tensor) else torch.cat(list(pooled))
            embeddings[visual] = pooled.reshape(-1, pooled.shape[-1])
            adapter = adapter_for(self.model)
            each = len(visual) if adapter.ragged else adapter.tokens_per_image
            count = len(visual) // each * int(share * each + 0.5 + 1e-9)
            rated, pivots = [0.0] * len(visual), 0
            if options.relevance != "none":
                rated = torch.cat(relevances(case, row, options.relevance)).tolist()
                pivots = int(rho * count + 0.5 + 1e-9)
            chosen, _ = reference_select(
                rated, embeddings[visual], pivots, count - pivots, options.iterations, options.seeding
            )
            self.kept = sorted(chosen)
            keep = [i for i in keep if i not in visual or visual.index(i) in chosen]
            if getattr(output, "deepstack_features", None):
                deepstack = [torch.cat(list(part))[self.kept] for part in output.deepstack_features]
        places = torch.arange(len(ids))[None, None]
        if "mm_token_type_ids" in row:
            grids = {name: value for name, value in row.items() if name.endswith("grid_thw")}
            kinds = row["mm_token_type_ids"]
            places = self.model.model.get_rope_index(row["input_ids"], mm_token_type_ids=kinds, **grids)[0]
        self.following = int(places.max()) + 1 if options.positions == "keep" else len(keep)
        self.places = places[..., keep] if options.positions == "keep" else torch.arange(len(keep))[None, None]
        self.embeddings = embeddings[keep][None]
        is_visual = torch.tensor([[i in visual for i in keep]])
        self.deepstack = {} if deepstack is None else {"deepstack_visual_embeds": deepstack}
        self.is_visual = is_visual
        types = row["token_type_ids"][0].tolist() if "token_type_ids" in row else [0] * len(ids)
        blocks = accumulate(int(now > before) for before, now in pairwise([0, *types]))
        self.blocks = [block * kind for block, kind in zip(blocks, types, strict=True)]
        self.blocks = [self.blocks[i] for i in keep]

    @torch.no_grad()
    def logits(self, answer=()):
        more = torch.tensor([list(answer)], dtype=torch.long)
        embeddings = torch.cat([self.embeddings, self.model.get_input_embeddings()(more)], 1)
        after = (self.following + torch.arange(len(answer))).expand(*self.places.shape[:-1], -1)
        places = torch.cat([self.places, after], -1)
        if self.deepstack:
            pad = torch.zeros(1, len(answer), dtype=torch.bool)
            self.deepstack["visual_pos_masks"] = torch.cat([self.is_visual, pad], 1)
        hidden = (
            adapter_for(self.model)
            .language_model(self.model)(
                inputs_embeds=embeddings,
                position_ids=places if len(places) == 3 else places[0],
                attention_mask=self.mask(len(embeddings[0])),
                use_cache=False,
                **self.deepstack,
            )
            .last_hidden_state
        )
        return self.model.lm_head(hidden)[0, -1]

    def mask(self, length):
        """Who sees whom, where tokens of a picture see all of it; else all ones, since gaps between positions would be
        taken for ends."""
        if not any(self.blocks):
            return torch.ones(1, length)
        blocks = [*self.blocks, *[0] * (length - len(self.blocks))]
        window = self.model.config.text_config.sliding_window
        full, sliding = torch.zeros(2, 1, 1, length, length, dtype=torch.bool)
        for query in range(length):
            for key in range(length):
                full[..., query, key] = key <= query or 0 < blocks[query] == blocks[key]
                sliding[..., query, key] = full[..., query, key] and query - key < window
        return {"full_attention": full, "sliding_attention": sliding}

    def generate(self, tokens):
        answer = []
        for _ in range(tokens):
            answer.append(int(self.logits(answer).argmax()))
        return answer


def pruned(case, rho, options=OPTIONS, budget="40%", **more):
    return prune(case.model(), schedule=schedule_for(case.model(), budget, options), rho=rho, options=options, **more)


@pytest.mark.shows("input", "batch")
@pytest.mark.thinned("case", "pictures")
@pytest.mark.parametrize("pictures", [(1,), (1, 0, 2)], ids=["one", "mixed"])
def test_ids_and_logits_are_those_of_the_shorter_sequence(case, pictures):
    model, rows = case.model(), case.rows(pictures)
    inputs, before, rho = together(rows), fingerprint(case.model()), RHO[: len(pictures)]
    with pruned(case, rho) as pruner, torch.no_grad():
        logits = model(**with_positions(case, inputs)).logits[:, -1]
        assert generated(model, inputs, TOKENS, use_cache=False) == generated(model, inputs, TOKENS)
        out = model.generate(**inputs, max_new_tokens=TOKENS, return_dict_in_generate=True)
    slow = [Slow(case, row, share) for row, share in zip(rows, rho, strict=True)]
    width = inputs["input_ids"].shape[1]
    assert out.sequences[:, width:].tolist() == [row.generate(TOKENS) for row in slow]
    for index, row in enumerate(slow):
        assert (logits[index] - row.logits()).abs().max() < 1e-3
        assert pruner.stats.stages[0].kept(index) == row.kept
        assert pruner.stats.tokens[index] == (len(row.kept),) * LAYERS
    layers = out.past_key_values.layers
    assert len({layer.get_seq_length() for layer in layers if hasattr(layer, "get_seq_length")}) == 1
    assert fingerprint(model) == before


def with_positions(case, inputs):
    """A padded forward needs them; generate makes them by itself."""
    if "mm_token_type_ids" in inputs or case.model().config.model_type == "qwen3_vl":
        return inputs
    return {**inputs, "position_ids": (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)}


@pytest.mark.thinned("name", "words")
@pytest.mark.parametrize("name", ["llava", "llava_next", "qwen2_5_vl", "internvl", "gemma3", "qwen3_5", "minicpmv4_6"])
@pytest.mark.parametrize("words", [{"relevance": "mean-attention"}, {"relevance": "none"}, {"seeding": "k-center"}])
def test_other_relevances_and_seeds(name, words):
    case, options = CASES[name], PruningOptions(profile="input", **words)
    rows = case.rows((1, 1))
    with pruned(case, 0.5, options) as pruner:
        ids = generated(case.model(), together(rows), TOKENS)
    slow = [Slow(case, row, 0.5, options) for row in rows]
    assert [pruner.stats.stages[0].kept(index) for index in range(2)] == [row.kept for row in slow]
    assert ids == [row.generate(TOKENS) for row in slow]


@pytest.mark.parametrize("name", ["llava", "llava_next"])
@pytest.mark.parametrize("how", [{}, {"num_beams": 2}])
def test_rows_may_be_rated_each_in_its_own_way(name, how):
    case, rows, kinds = CASES[name], CASES[name].rows((1, 0, 2, 1)), ("class-token", "mean-attention") * 2
    model, schedule = case.model(), schedule_for(case.model(), "40%", OPTIONS)
    options = [settled(model, adapter_for(model), replace(OPTIONS, relevance=kind)) for kind in kinds]
    plan = Plan(schedule, torch.tensor([0.75]), DualStage(), options[0], relevances=kinds)
    with pruned_at_input(model, adapter_for(model), plan) as together_:
        ids = generated(model, together(rows), TOKENS, **how)
    for index, row in enumerate(rows):
        with pruned(case, 0.75, options[index]) as alone:
            assert ids[index] == generated(model, row, TOKENS, **how)[0]
        beam = index * how.get("num_beams", 1)
        if index != 1:
            assert together_.stats.stages[0].kept(beam) == alone.stats.stages[0].kept(0)
    with pruned(case, 0.75, options[0]) as other:
        model.generate(**rows[3], max_new_tokens=1)
    assert other.stats.stages[0].kept(0) != together_.stats.stages[0].kept(3 * how.get("num_beams", 1))


def test_positions_may_be_kept_where_they_have_one_axis():
    case, options = CASES["llava"], PruningOptions(profile="input", positions="keep")
    rows = case.rows((1, 1))
    with pruned(case, 0.5, options):
        ids = generated(case.model(), together(rows), TOKENS)
    assert ids == [Slow(case, row, 0.5, options).generate(TOKENS) for row in rows]
    assert ids != [Slow(case, row, 0.5).generate(TOKENS) for row in rows]


@pytest.mark.shows("beams")
@pytest.mark.thinned("name", "how")
@pytest.mark.parametrize("how", [{"num_beams": 3, "num_return_sequences": 2}, {"do_sample": True}])
@pytest.mark.parametrize("name", ["llava", "gemma3", "qwen2_5_vl", "qwen3_vl", "llava_onevision video"])
def test_with_cache_equals_without(name, how):
    case, results = CASES[name], []
    for use_cache in (True, False):
        with pruned(case, RHO):
            torch.manual_seed(7)
            results.append(generated(case.model(), together(case.rows((1, 1, 1))), TOKENS, use_cache=use_cache, **how))
    assert results[0] == results[1]


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "qwen3_vl"])
def test_forward_goes_on_from_a_cache_that_was_filled_here(name):
    """Also after it was cut back, and with several tokens at once."""
    case = CASES[name]
    model, row = case.model(), case.rows((1,))[0]
    slow = Slow(case, row, 0.5)
    expected = slow.generate(TOKENS)
    with pruned(case, 0.5), torch.no_grad():
        cache = model(**row).past_key_values
        two = torch.tensor([expected[:2]])
        logits = model(input_ids=two, past_key_values=cache).logits[0]
        assert (logits[1] - slow.logits(expected[:2])).abs().max() < 1e-3
        cache.crop(-1)
        again = model(input_ids=two[:, 1:], past_key_values=cache).logits[0]
        assert (again[0] - logits[1]).abs().max() < 1e-4


def test_generate_goes_on_where_as_many_visual_tokens_are_left_out():
    case, row = CASES["llava"], CASES["llava"].rows((1,))[0]
    model, ids = case.model(), row["input_ids"][0].tolist()
    with pruned(case, 0.5), torch.no_grad():
        expected = generated(model, row, TOKENS)
        cache = model(**row).past_key_values
        with pytest.raises(ModelError, match="begin anew"):
            model.generate(row["input_ids"], past_key_values=cache)
        cache.crop(-1)
        first = ids.index(model.config.image_token_id)
        short = torch.tensor([[*ids[:first], *ids[first + 16 - 6 :]]])
        assert generated(model, {"input_ids": short, "past_key_values": cache}, TOKENS) == expected


def test_mixtures_and_features_that_were_computed_before(case):
    """Live towers that mix their layers, against features that bring their relevance."""
    model, rows, adapter = case.model(), case.rows((1, 1, 1)), adapter_for(case.model())
    generator = torch.Generator().manual_seed(0)
    alpha_BL = torch.rand(3, adapter.vision_layers + 1, generator=generator).mul(4).softmax(-1)
    kind = adapter.relevances[0]
    with pruned(case, RHO, alpha_BL=alpha_BL):
        live = generated(model, together(rows), TOKENS)
    for index, row in enumerate(rows):
        with pruned(case, RHO[index], alpha_BL=alpha_BL[index : index + 1]):
            assert generated(model, row, TOKENS)[0] == live[index]
    features, rated, deepstack = [], [], [[] for _ in adapter.taps]
    for alpha_L, row in zip(alpha_BL, rows, strict=True):
        sizes = pictures_of(case, row)
        pixels = sizes.pop(case_pixels(case))
        with torch.no_grad():
            layers_BLTC = adapter.capture(model, pixels, case.modality, **sizes)
            fused_BTC = fuse(layers_BLTC, alpha_L.expand(len(layers_BLTC), -1))
            features += adapter.project(model, fused_BTC, case.modality, **sizes)
            deepstack = stacked(deepstack, adapter, model, layers_BLTC, case.modality)
        rated += relevances(case, row, kind)
    prompts = {key: value for key, value in together(rows).items() if key != case_pixels(case)}

    def given():
        return with_deepstack(adapter.encoder_outputs(features, case.modality), deepstack)

    with pruned(case, RHO):
        rating = with_relevance(given(), rated)
        assert generated(model, {**prompts, "mm_encoder_outputs": rating}, TOKENS) == live
        with pytest.raises(ModelError, match="give pixels rather than features"):
            model.generate(**prompts, mm_encoder_outputs=given(), max_new_tokens=1)
        rating = with_relevance(given(), rated)
        if is_recurrent(model):
            with pytest.raises(ModelError, match="use num_beams=1"):
                model.generate(**prompts, mm_encoder_outputs=rating, max_new_tokens=1, num_beams=2)
            return
        beams = generated(model, {**prompts, "mm_encoder_outputs": rating}, TOKENS, num_beams=2)
    with pruned(case, RHO, alpha_BL=alpha_BL):
        assert generated(model, together(rows), TOKENS, num_beams=2) == beams


@pytest.mark.parametrize("name", ["llava", "llava_next", "qwen2_5_vl", "gemma3"])
def test_candidates_that_share_a_picture_are_as_if_each_were_alone(name):
    """Behind a cached beginning of the prompt, as a search does it."""
    case = CASES[name]
    model, row, adapter = case.model(), case.rows((1,))[0], adapter_for(case.model())
    ids, held = row["input_ids"], 2
    sizes = {name: row[name] for name in ("image_sizes", "image_grid_thw") if name in row}
    with torch.no_grad():
        features = list(encoded(model, row, "image").pooler_output)
    rated = relevances(case, row, adapter.relevances[0])
    alone = []
    for rho in RHO:
        with pruned(case, rho), torch.no_grad():
            alone.append(model(**row).logits[0, -1])
    with torch.no_grad():
        cache = model(input_ids=ids[:, :held], use_cache=True).past_key_values
    grids = {name: value for name, value in sizes.items() if name.endswith("thw")}
    places = adapter.positions(model, ids, **grids)
    given = with_relevance(adapter.encoder_outputs(features), rated)
    with pruned(case, RHO, fan=[0, 0, 0]) as pruner, torch.no_grad():
        logits = model(
            input_ids=ids[:, held:],
            position_ids=None if places is None else places[..., held:],
            past_key_values=cache,
            mm_encoder_outputs=given,
            use_cache=True,
            **adapter.prompt_inputs(ids),
        ).logits[:, -1]
        more = model(input_ids=torch.tensor([[40]] * 3), past_key_values=cache).logits[:, -1]
    assert (logits - torch.stack(alone)).abs().max() < 1e-4
    assert cache.layers[0].keys.shape[0] == len(more) == len(pruner.stats.tokens) == 3
    slow = [Slow(case, row, rho) for rho in RHO]
    for index, one in enumerate(slow):
        assert (more[index] - one.logits([40])).abs().max() < 1e-3


@pytest.mark.parametrize("name", ["llava", "gemma3", "qwen2_5_vl", "qwen3_5"])
def test_a_full_budget_changes_nothing(name):
    case = CASES[name]
    model, inputs = case.model(), together(case.rows((1, 0, 2)))
    with torch.no_grad():
        expected = model(**inputs).logits
        with pruned(case, 0.5, budget="100%"):
            assert torch.equal(model(**inputs).logits, expected)


class TestRelevance:
    """What the tower's attention says of every token, against transformers' own matrices."""

    @torch.no_grad()
    def eager(self, case, row):
        model = case.model("eager")
        tower = adapter_for(model).vision_tower(model, case.modality)
        pixels = row[case_pixels(case)]
        pixels = pixels.flatten(0, 1) if pixels.ndim == 5 else pixels
        block = adapter_for(model).attention_block
        return tower(pixels, output_attentions=True).attentions[block].mean(1)

    @pytest.mark.parametrize(("kind", "by_class"), [("class-token", True), ("mean-attention", False)])
    def test_of_patches(self, kind, by_class):
        case = CASES["llava"]
        row = case.rows((2,))[0]
        own_Rtt = self.eager(case, row)
        expected = 16 * (own_Rtt[:, 0, 1:] if by_class else own_Rtt[:, 1:, 1:].mean(1))
        torch.testing.assert_close(torch.stack(relevances(case, row, kind)), expected)

    @pytest.mark.parametrize(("name", "side"), [("internvl", 8), ("idefics3", 4), ("smolvlm", 4)])
    def test_of_patches_that_are_shuffled_to_one_token(self, name, side):
        case = CASES[name]
        row, adapter = case.rows((2,))[0], adapter_for(case.model())
        own_Rtt = self.eager(case, row)
        given = side**2 * (own_Rtt[:, 0, 1:] if adapter.class_tokens else own_Rtt.mean(1)).view(-1, side, side)
        expected = given.unflatten(1, (-1, 2)).unflatten(3, (-1, 2)).mean((2, 4)).flatten(1)
        got = torch.stack(relevances(case, row, adapter.relevances[0]))
        torch.testing.assert_close(got.sort().values, expected.sort().values)
        # Which token is where the projector put it: a patch that alone differs changes its own token alone.
        model, patch = case.model(), side * 2 + side // 2 + 1
        state = torch.randn(1, side**2, 16)
        other = state.clone()
        other[0, patch] += torch.arange(16)
        with torch.no_grad():
            a, b = (adapter.project(model, one)[0] for one in (state, other))
        (token,) = (a != b).any(1).nonzero().flatten().tolist()
        values = torch.zeros(1, side**2)
        values[0, patch] = 1
        (placed,) = adapter.token_values(model, [values], {}, "image")
        assert placed.nonzero().flatten().tolist() == [token]
        assert placed[token] == 0.25

    @pytest.mark.parametrize("name", ["llava_next", "llava_onevision"])
    def test_of_tiles_is_packed_as_their_tokens_are(self, name):
        """A tile's map is that of its tokens, and what ends a line gets nothing."""
        case = CASES[name]
        model, row = case.model(), case.rows((1,))[0]
        got = relevances(case, row, adapter_for(model).relevances[0])[0]
        with torch.no_grad():
            features = encoded(model, row, "image").pooler_output[0]
        ends = (features == model.model.image_newline).all(1)
        assert ends.any()
        assert (got[ends] == 0).all()
        assert (got[~ends] > 0).all()

    def test_of_frames_whose_class_token_goes_on_too(self):
        case = CASES["video_llava video"]
        row = case.rows((1,))[0]
        (got,) = relevances(case, row, "class-token")
        expected = 16 * self.eager(case, row)[:, 0]
        expected[:, 0] = 0
        torch.testing.assert_close(got, expected.flatten())

    def test_of_frames_that_are_pooled(self):
        case = CASES["llava_onevision video"]
        row = case.rows((1,))[0]
        (got,) = relevances(case, row, "mean-attention")
        given = 16 * self.eager(case, row).mean(1).view(3, 4, 4)
        expected = given.unflatten(1, (2, 2)).unflatten(3, (2, 2)).mean((2, 4)).flatten()
        torch.testing.assert_close(got, torch.cat([expected, torch.zeros(1)]))

    @torch.no_grad()
    @pytest.mark.parametrize("name", ["glm4v", "qwen2_vl", "qwen2_5_vl", "qwen3_5", "qwen3_vl", "qwen2_5_vl video"])
    def test_of_patches_that_are_merged(self, name):
        """By hand from the block's input; each frame attends to itself, and windows are undone by likeness.

        Pictures of different sizes are alike in the mean, so that a small one's tokens do not win by being few.
        """
        case, noted = CASES[name], {}
        model, row = case.model(), case.rows((2,))[0]
        adapter = adapter_for(model)
        tower = adapter.vision_tower(model)
        block = tower.blocks[adapter.attention_block]

        def note(_, args, kw):
            noted.update(x=args[0] if args else kw["hidden_states"], turns=kw["position_embeddings"])

        hooks = (
            block.attn.register_forward_pre_hook(note, with_kwargs=True),
            tower.blocks[0].register_forward_pre_hook(
                lambda _, args, kw: noted.update(taken=args[0] if args else kw["hidden_states"]), with_kwargs=True
            ),
            tower.patch_embed.register_forward_hook(lambda _, __, out: noted.update(patches=out)),
        )
        got = relevances(case, row, "mean-attention")
        for hook in hooks:
            hook.remove()
        order = torch.arange(len(noted["x"]))
        if name.startswith("qwen2_5"):
            order = torch.cdist(noted["patches"].double(), noted["taken"].double()).argmin(1)
        qkv = block.attn.qkv(noted["x"]).detach().view(len(order), 3, model.config.vision_config.num_heads, -1)
        cos, sin = (part[:, None] for part in noted["turns"])

        def turned(x):
            a, b = x.chunk(2, -1)
            return (x * cos + torch.cat([-b, a], -1) * sin).double()

        query, key = turned(qkv[:, 0]), turned(qkv[:, 1])
        grids = row[f"{case.modality}_grid_thw"].tolist()
        frames = [height * width for time, height, width in grids for _ in range(time)]
        assert len(set(frames)) == 2 or case.modality == "video"
        given = []
        for frame in torch.arange(len(order)).split(frames):
            logits = torch.einsum("ihd,jhd->hij", query[frame], key[frame]) * query.shape[-1] ** -0.5
            given.append(logits.softmax(-1).mean((0, 1)) * len(frame))
        expected = torch.cat(given)[order].unflatten(0, (-1, 4)).mean(1)
        torch.testing.assert_close(torch.cat(got).double(), expected, atol=1e-6, rtol=1e-4)
        assert [float(one.mean()) for one in got] == pytest.approx([1.0, 1.0], abs=1e-5)


def llava_on(text):
    config = LlavaConfig(
        vision_config=CASES["llava"].model().config.vision_config,
        text_config=text,
        image_token_id=CASES["llava"].model().config.image_token_id,
        image_seq_length=16,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration._from_config(config, attn_implementation="sdpa").eval()
    with torch.no_grad():
        for parameter in model.model.language_model.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    return model


class Made:
    """A model that is no case of its own, with the prompts of LLaVA's."""

    modality = "image"

    def __init__(self, text):
        self._model = llava_on(text)

    def model(self):
        return self._model

    def rows(self, pictures):
        return CASES["llava"].rows(pictures)


WIDTHS = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def test_a_sliding_window_slides_over_what_entered():
    """A window that the whole prompt is beyond, and what entered too."""
    case = Made(MistralConfig(sliding_window=9, **WIDTHS))
    rows, schedule = case.rows((1, 1)), Schedule(16, 4, (1, 2, 3), (9, 6, 3))
    with pytest.raises(ModelError, match="sliding window"), prune(case.model(), schedule=schedule, rho=0.5):
        pass
    with pruned(case, 0.5):
        ids = generated(case.model(), together(rows), 12)
    assert ids == [Slow(case, row, 0.5).generate(12) for row in rows]


def test_layers_of_linear_attention_read_what_entered():
    text = Qwen3NextConfig(
        **WIDTHS,
        head_dim=8,
        linear_num_value_heads=2,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=0,
        decoder_sparse_step=1,
        mlp_only_layers=[0, 1, 2, 3],
        layer_types=["linear_attention", "linear_attention", "linear_attention", "full_attention"],
    )
    case = Made(text)
    rows = case.rows((1, 1))
    with pruned(case, 0.5):
        ids = generated(case.model(), together(rows), TOKENS)
    assert ids == [Slow(case, row, 0.5).generate(TOKENS) for row in rows]


class TestWhatCannotBe:
    @pytest.mark.parametrize(
        ("words", "error", "expected"),
        [
            ({"profile": "input", "starts": (2, 6, 15, 20)}, BudgetError, "one stage, before it"),
            ({"profile": "input", "raters": "all"}, ModelError, "for stages inside the decoder"),
            ({"profile": "input", "features": "hidden"}, ModelError, "for stages inside the decoder"),
            ({"relevance": "none"}, ModelError, "the instruction does"),
            ({"profile": "input", "relevance": "cls"}, ModelError, "expected one of class-token"),
        ],
    )
    def test_options(self, words, error, expected):
        with pytest.raises(error, match=expected):
            PruningOptions(**words)

    def test_a_relevance_that_the_tower_does_not_give(self):
        options = PruningOptions(profile="input", relevance="class-token")
        with (
            pytest.raises(ModelError, match="give 'mean-attention' or 'none'"),
            pruned(CASES["qwen2_vl"], 0.5, options),
        ):
            pass

    def test_compact_positions_of_several_axes(self):
        with (
            pytest.raises(ModelError, match="use positions='keep'"),
            pruned(CASES["qwen2_vl"], 0.5, PruningOptions(profile="input", positions="compact")),
        ):
            pass

    def test_schedules_of_the_other_profile(self):
        model = CASES["llava"].model()
        stages = schedule_for(model, "40%", PruningOptions(starts=(1, 2, 4)))
        with (
            pytest.raises(BudgetError, match="stages at layers"),
            prune(model, schedule=stages, rho=1, options=OPTIONS),
        ):
            pass
        with (
            pytest.raises(BudgetError, match="stages at layers"),
            prune(model, schedule=schedule_for(model, 6, OPTIONS), rho=1),
        ):
            pass

    def test_budgets(self):
        assert schedule_for(CASES["llava"].model(), 6, OPTIONS).per_layer == (6,) * LAYERS
        assert schedule_for(CASES["llava_next"].model(), "25%", OPTIONS).counts_for(50) == (13,)
        with pytest.raises(BudgetError, match="prunes nothing"):
            schedule_for(CASES["llava"].model(), 16, OPTIONS)
        with pytest.raises(BudgetError, match="give a percentage"):
            schedule_for(CASES["llava_next"].model(), 16, OPTIONS)

    def test_two_at_a_time(self):
        case = CASES["llava"]
        before = fingerprint(case.model())
        with pruned(case, 0.5), pytest.raises(ModelError, match="pruned already"), pruned(case, 0.5):
            pass
        assert fingerprint(case.model()) == before

    def test_generate_with_a_fan(self):
        case = CASES["llava"]
        with pruned(case, [0.1, 0.2], fan=[0, 0]), pytest.raises(ModelError, match="candidates fan out"):
            case.model().generate(**case.rows((1,))[0], max_new_tokens=1)

    @torch.no_grad()
    def test_numbers_that_are_not_finite(self):
        case = CASES["llava"]
        row, adapter = case.rows((1,))[0], adapter_for(case.model())
        with torch.no_grad():
            features = list(encoded(case.model(), row, "image").pooler_output)
        rated = [torch.full((16,), torch.nan)]
        prompt = {key: value for key, value in row.items() if key != "pixel_values"}
        given = with_relevance(adapter.encoder_outputs(features), rated)
        with pruned(case, 0.5), pytest.raises(NonFiniteError, match="not finite"):
            case.model()(**prompt, mm_encoder_outputs=given)
