import pytest
import torch
from architectures import CASES, together
from runtime_cases import model
from tiny_models import tiny_batch
from transformers import LlamaConfig, LlavaConfig, SiglipVisionConfig

from clasp_calib.artifacts.model_shape import model_shape
from clasp_calib.common.errors import ModelError
from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.pruner import prune


def sizes_of(adapter, case, inputs):
    return {name: inputs[name] for name in adapter.size_names[case.modality] if name in inputs}


def test_reads_the_configuration():
    adapter = adapter_for(model().config)
    assert (adapter.vision_layers, adapter.own_layer, adapter.decoder_layers) == (4, 3, 8)
    assert (adapter.tokens_per_image, adapter.visual_token_ids) == (16, {"image": 4})
    assert adapter_for(model(vision_feature_layer=-1)).own_layer == 4


def test_capture_is_what_the_projector_receives():
    batch, adapter = tiny_batch(model()), adapter_for(model())
    received = []
    hook = model().model.multi_modal_projector.register_forward_pre_hook(lambda _, args: received.append(args[0]))
    with torch.no_grad():
        layers_BLTC = adapter.capture(model(), batch["pixel_values"])
        model()(**batch)
    hook.remove()
    assert layers_BLTC.shape == (3, 5, 16, 16)
    assert torch.equal(layers_BLTC[:, adapter.own_layer], received[0])


def test_precomputed_features_are_bit_exact():
    batch, adapter = tiny_batch(model()), adapter_for(model())
    tower = model().model.vision_tower
    with torch.no_grad():
        expected = model()(**batch).logits
        own_BTC = adapter.capture(model(), batch.pop("pixel_values"))[:, adapter.own_layer]
        features = adapter.project(model(), own_BTC)
        got = model()(**batch, mm_encoder_outputs=adapter.encoder_outputs(features)).logits
    assert [tuple(f.shape) for f in features] == [(16, 32)] * 3
    assert (got - expected).abs().max() == 0.0
    assert model().model.vision_tower is tower


def test_half_precision_features_are_cast_to_the_model():
    adapter = adapter_for(model())
    with torch.no_grad():
        assert adapter.project(model(), torch.randn(2, 16, 16).half())[0].dtype == torch.float32


def test_pictures_of_different_sizes_are_captured_apart():
    case = CASES["qwen2_vl"]
    inputs = together(case.rows((1, 1)))
    with pytest.raises(ModelError, match=r"different sizes \(\[96, 48\] rows\)"):
        adapter_for(case.model()).capture(case.model(), inputs["pixel_values"], image_grid_thw=inputs["image_grid_thw"])


def test_several_pictures_of_one_size_are_captured_together():
    case, adapter = CASES["llava_next"], adapter_for(CASES["llava_next"].model())
    rows = [case.row(seed, 1, 1, 1) for seed in (0, 4)]
    with torch.no_grad():
        apart = [adapter.capture(case.model(), row["pixel_values"], image_sizes=row["image_sizes"]) for row in rows]
        both = together(rows)
        captured = adapter.capture(case.model(), both["pixel_values"], image_sizes=both["image_sizes"])
        features = adapter.project(case.model(), captured[:, 3], image_sizes=both["image_sizes"])
    torch.testing.assert_close(captured, torch.cat(apart))
    assert captured.shape == (2, 5, 5 * 16, 16)
    assert [len(feature) for feature in features] == [int((row["input_ids"] == 3).sum()) for row in rows]


def test_a_norm_after_the_tower_belongs_to_the_projection():
    """InternVL towers without mean pooling end with a norm, which a mixture passes too."""
    case = CASES["internvl"]
    model = case.model()
    inputs, adapter, tower = case.rows((1,))[0], adapter_for(model), model.model.vision_tower
    plain, tower.layernorm = tower.layernorm, torch.nn.LayerNorm(16)
    torch.nn.init.normal_(tower.layernorm.weight)
    try:
        with torch.no_grad():
            expected = model.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output
            captured = adapter.capture(model, inputs["pixel_values"])
            assert torch.equal(adapter.project(model, captured[:, -1])[0], expected[0])
            alpha_BL = torch.tensor([[0.0, 0, 0, 0, 1]])
            schedule = schedule_for(model, "100%", PruningOptions(starts=(1, 2, 4)))
            with prune(model, schedule=schedule, rho=1.0, alpha_BL=alpha_BL):
                live = model.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output
            assert torch.equal(live, expected)
    finally:
        tower.layernorm = plain


def test_siglip_has_no_class_token():
    vision = SiglipVisionConfig(hidden_size=16, image_size=56, patch_size=14, num_hidden_layers=3)
    text = LlamaConfig(hidden_size=32, num_hidden_layers=5)
    config = LlavaConfig(
        vision_config=vision, text_config=text, vision_feature_select_strategy="full", vision_feature_layer=-1
    )
    adapter = adapter_for(config)
    assert (adapter.tokens_per_image, adapter.own_layer, adapter.vision_layers) == (16, 3, 3)


def test_what_cannot_be_served_is_refused():
    with pytest.raises(ModelError, match=r"'llama'; use a model of a known one \(gemma3, .*docs/guide/adapters\.md"):
        adapter_for(LlamaConfig())
    with pytest.raises(ModelError, match="concatenated layers"):
        adapter_for(LlavaConfig(vision_feature_layer=[1, 3]))
    with pytest.raises(ModelError, match="'pixtral' tower"):
        adapter_for(LlavaConfig(vision_config={"model_type": "pixtral"}))


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_an_artifacts_shape_agrees_with_the_adapter(case):
    adapter, shape = adapter_for(case.model()), model_shape(case.model().config)
    assert (shape.vision_layers, shape.vision_feature_layer) == (adapter.vision_layers, adapter.own_layer)
    assert shape.text_layers == adapter.decoder_layers
    assert shape.tokens_per_image == (None if adapter.ragged else adapter.tokens_per_image)


def test_tokens_that_are_a_grid_say_which():
    assert adapter_for(model()).grid(tiny_batch(model(), [(3, 7)])) == (4, 4)
    assert adapter_for(CASES["qwen2_vl"].model()).grid(CASES["qwen2_vl"].row(0, 1, 1, 1)) == (4, 6)
    for name, pictures in (("llava_next", 1), ("internvl", 2), ("qwen2_vl", 2)):
        case = CASES[name]
        with pytest.raises(ModelError, match="one"):
            adapter_for(case.model()).grid(case.row(0, 1, pictures, 1))


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_tokens_are_counted_without_pixels(case):
    """From the number of patch tokens that a cache holds of a picture, as from its pixels."""
    model, adapter = case.model(), adapter_for(case.model())
    for number in range(3):
        inputs, ids = case.picture(model, torch.Generator().manual_seed(number), number)
        pixels, sizes = inputs[adapter.pixel_names[case.modality]], sizes_of(adapter, case, inputs)
        with torch.no_grad():
            states_B1TC = adapter.capture(model, pixels, case.modality, [adapter.own_layer], **sizes)
        patches = states_B1TC[..., 0].numel()
        counted = adapter.tokens_of(model, len(states_B1TC), patches, case.modality, **sizes)
        assert sum(counted) == sum(token in adapter.visual_token_ids.values() for token in ids)


def test_a_tile_that_is_padded_is_refused():
    case = CASES["idefics3"]
    row, adapter = case.rows((1,))[0], adapter_for(case.model())
    tiles = len(adapter.rows(row))
    row["pixel_values"] = torch.nn.functional.pad(row["pixel_values"], (0, 0, 0, 0, 0, 0, 0, 2))
    row["pixel_attention_mask"] = torch.nn.functional.pad(row["pixel_attention_mask"], (0, 0, 0, 0, 0, 2))
    assert adapter.rows(row) == [1] * tiles, "tiles of zeros are none"
    row["pixel_attention_mask"][0, 0, 40:] = 0
    schedule = schedule_for(case.model(), "40%", PruningOptions(profile="input"))
    with (
        torch.no_grad(),
        prune(case.model(), schedule=schedule, rho=0.5, options=PruningOptions(profile="input")),
        pytest.raises(ModelError, match="a part of a tile"),
    ):
        case.model()(**row)
