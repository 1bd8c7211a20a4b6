"""Pruning at the decoder's input against a decoder that is given the shorter sequence in the first place."""

import pytest
import torch
from architectures import CASES, together
from runtime_cases import fingerprint, generated
from transformers import StaticCache

from clasp_calib.common.errors import ModelError
from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.encoding import Kept, chosen_tokens
from clasp_calib.runtime.entry import Entry
from clasp_calib.runtime.pruner import prune

TOKENS = 3


def every_third(image):
    """Of every image the tokens 1, 4, 7..."""
    return Kept(torch.arange(1, len(image.layout.cell_N), 3))


class Attached:
    """A model of which every third visual token enters the decoder."""

    def __init__(self, case, positions):
        self.model = case.model()
        adapter = adapter_for(self.model)
        self.entry = Entry(self.model, adapter, positions)
        self.parts = (
            chosen_tokens(self.model, adapter, (), every_third, in_place=positions == "keep"),
            self.entry.attached(),
        )

    def __enter__(self):
        for part in self.parts:
            part.__enter__()
        return self.entry

    def __exit__(self, *error):
        for part in reversed(self.parts):
            part.__exit__(*error)


@torch.no_grad()
def slow_ids(case, row, positions):
    """One row: the tokens that stay are picked by hand, and everything is computed anew for each generated token."""
    model, ids = case.model(), row["input_ids"][0]
    arguments = {name: row[name] for name in ("pixel_values", "image_sizes", "image_grid_thw") if name in row}
    visual, embeddings = ids == model.config.image_token_id, model.get_input_embeddings()(ids)
    keep = torch.ones_like(visual)
    if visual.any():
        features = model.model.get_image_features(**arguments, return_dict=True).pooler_output
        embeddings[visual] = torch.cat(list(features))
        keep[visual] = torch.cat([torch.arange(len(part)) % 3 == 1 for part in features])
    places = torch.arange(len(ids))[None, None]
    if positions == "keep":
        grids = {"image_grid_thw": row["image_grid_thw"]} if "image_grid_thw" in row else {}
        places = model.model.get_rope_index(row["input_ids"], mm_token_type_ids=row["mm_token_type_ids"], **grids)[0]
    embeddings, answer = embeddings[keep][None], []
    places = torch.arange(int(keep.sum()))[None, None] if positions == "compact" else places[:, :, keep]
    for _ in range(TOKENS):
        hidden = model.model.language_model(
            inputs_embeds=embeddings, position_ids=places if positions == "keep" else places[0], use_cache=False
        ).last_hidden_state
        answer.append(int(model.lm_head(hidden)[0, -1].argmax()))
        embeddings = torch.cat([embeddings, model.get_input_embeddings()(torch.tensor([[answer[-1]]]))], 1)
        places = torch.cat([places, places.max() + 1 + torch.zeros_like(places[..., :1])], -1)
    return answer


CASES_OF_POSITIONS = [("llava", "compact"), ("llava_next", "compact"), ("qwen2_5_vl", "keep"), ("qwen2_vl", "keep")]


@pytest.mark.parametrize(("name", "positions"), CASES_OF_POSITIONS)
def test_generated_ids_equal_those_of_the_shorter_sequence(name, positions):
    case = CASES[name]
    rows = case.rows((1, 0, 2))
    expected = [slow_ids(case, row, positions) for row in rows]
    before = fingerprint(case.model())
    with Attached(case, positions) as entry:
        lookup = generated(case.model(), rows[0], TOKENS, prompt_lookup_num_tokens=2)
        assert lookup[0][:TOKENS] == expected[0]
        assert generated(case.model(), together(rows), TOKENS, use_cache=False) == expected
        assert generated(case.model(), together(rows), TOKENS) == expected
    assert fingerprint(case.model()) == before
    visual = [int((row["input_ids"] == case.model().config.image_token_id).sum()) for row in rows]
    assert entry.stats.tokens[1][0] == 0
    assert entry.stats.tokens[0] == (len(range(1, visual[0], 3)),) * 8


@pytest.mark.parametrize(("name", "positions"), CASES_OF_POSITIONS[::2])
def test_all_layers_of_the_cache_are_as_short(name, positions):
    case, row = CASES[name], CASES[name].rows((1,))[0]
    with Attached(case, positions) as entry:
        out = case.model().generate(**row, max_new_tokens=TOKENS, return_dict_in_generate=True)
    visual = int((row["input_ids"] == case.model().config.image_token_id).sum())
    dropped = visual - entry.stats.tokens[0][0]
    width = row["input_ids"].shape[1]
    lengths = {layer.keys.shape[-2] for layer in out.past_key_values.layers}
    assert lengths == {width - dropped + TOKENS - 1}
    assert torch.equal(out.sequences[:, :width], row["input_ids"])
    assert entry.stats.stages[0].kept(0) == list(range(1, visual, 3))


def test_forward_goes_on_from_a_cache_that_was_filled_here():
    case, row = CASES["llava"], CASES["llava"].rows((1,))[0]
    model, answer = case.model(), []
    with Attached(case, "compact"), torch.no_grad():
        expected = generated(model, row, TOKENS)[0]
        output, mask = model(**row), row["attention_mask"]
        for _ in range(TOKENS):
            answer.append(int(output.logits[0, -1].argmax()))
            mask = torch.cat([mask, mask[:, :1]], 1)
            token = torch.tensor([[answer[-1]]])
            output = model(input_ids=token, attention_mask=mask, past_key_values=output.past_key_values)
    assert answer == expected


@torch.no_grad()
def test_what_cannot_be_is_refused():
    case, row = CASES["llava"], CASES["llava"].rows((1,))[0]
    model = case.model()
    with torch.no_grad():
        given = {"image": model.model.get_image_features(row["pixel_values"], return_dict=True)}
    prompt = {key: value for key, value in row.items() if key != "pixel_values"}
    with Attached(case, "compact"):
        cache = model.generate(**row, max_new_tokens=1, return_dict_in_generate=True).past_key_values
        with pytest.raises(ModelError, match="begin anew"):
            model.generate(**row, past_key_values=cache)
        with pytest.raises(ModelError, match="give pixel_values"):
            model.generate(**prompt, mm_encoder_outputs=given)
        with pytest.raises(ModelError, match="give pixel_values"):
            model(**prompt, mm_encoder_outputs=given)
        with pytest.raises(ModelError, match="DynamicCache"):
            model.generate(**row, cache_implementation="static")
        with pytest.raises(ModelError, match="DynamicCache"):
            model(**row, past_key_values=StaticCache(config=model.config.get_text_config(), max_cache_len=64))
        with pytest.raises(ModelError, match="padded on the left"):
            model(**{**row, "attention_mask": torch.cat([row["attention_mask"][:, 1:], torch.zeros(1, 1).long()], 1)})
        with pytest.raises(ModelError, match="input_ids"):
            model(inputs_embeds=torch.zeros(1, 4, 32))
        with pytest.raises(ModelError, match="4 dimensions"):
            model(**{**row, "attention_mask": torch.zeros(1, 1, 27, 27)})
        assert generated(model, row, 1)


def test_pruning_inside_the_decoder_at_the_same_time_is_refused():
    case, model = CASES["llava"], CASES["llava"].model()
    before, schedule = fingerprint(model), schedule_for(model, "40%", PruningOptions(starts=(1, 2, 4)))
    with (
        Attached(case, "compact"),
        pytest.raises(ModelError, match="pruned already"),
        prune(model, schedule=schedule, rho=0.5),
    ):
        pass
    with prune(model, schedule=schedule, rho=0.5), pytest.raises(ModelError, match="pruned already"):
        Attached(case, "compact").parts[1].__enter__()
    assert fingerprint(model) == before


def test_videos_are_refused():
    film = CASES["qwen2_5_vl video"].rows((1,))[0]
    with Attached(CASES["qwen2_5_vl"], "keep"), pytest.raises(ModelError, match="was given a video"):
        CASES["qwen2_5_vl"].model()(**film)
