"""A checkpoint that is not whole is refused by the name of what is wrong, and nothing else than it is loaded."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_llava, tiny_llava_directory

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.loading import load_model


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tiny_llava_directory(tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def with_weights(folder, change):
    path = folder / "model.safetensors"
    weights = change(load_file(path))
    save_file(weights, path, metadata={"format": "pt"})


def sharded(folder):
    tiny_llava().save_pretrained(folder, max_shard_size="40KB")
    (folder / "model.safetensors").unlink()
    return sorted(folder.glob("model-*.safetensors"))


def test_a_whole_checkpoint_is_loaded_in_silence(folder, caplog, capfd):
    model, _ = load_model(str(folder))
    assert torch.equal(model.lm_head.weight, tiny_llava().lm_head.weight)
    assert not model.training
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_parts_of_a_checkpoint_are_loaded(folder):
    assert len(sharded(folder)) > 2
    assert torch.equal(load_model(str(folder))[0].lm_head.weight, tiny_llava().lm_head.weight)


def test_a_missing_projector_is_named(folder, caplog):
    with_weights(folder, lambda weights: {k: v for k, v in weights.items() if "projector" not in k})
    with pytest.raises(ModelError, match=r"multi_modal_projector\.linear_1\.bias.* and 1 more") as told:
        load_model(str(folder))
    assert "random" in str(told.value)
    assert not caplog.records


def test_tied_weights_are_not_missing(folder):
    model = tiny_llava()
    settings = json.loads((folder / "config.json").read_text())
    settings["tie_word_embeddings"] = settings["text_config"]["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(settings))
    with_weights(folder, lambda weights: {k: v for k, v in weights.items() if "lm_head" not in k})
    loaded, _ = load_model(str(folder))
    assert torch.equal(loaded.lm_head.weight, model.get_input_embeddings().weight)


def test_other_shapes_are_named_with_both(folder):
    def widen(weights):
        name = next(name for name in weights if name.endswith("layers.2.mlp.up_proj.weight"))
        return {**weights, name: torch.zeros(7, 32)}

    with_weights(folder, widen)
    with pytest.raises(ModelError, match=r"layers\.2\.mlp\.up_proj\.weight is \(7, 32\) and should be \(64, 32\)"):
        load_model(str(folder))


@pytest.mark.parametrize(("part", "layers"), [("text_config", 7), ("text_config", 3), ("vision_config", 3)])
def test_layers_that_the_configuration_does_not_count(folder, part, layers):
    settings = json.loads((folder / "config.json").read_text())
    settings[part]["num_hidden_layers"] = layers
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=rf"more layers than its config\.json says.*layers\.{layers}\."):
        load_model(str(folder))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.float8_e4m3fn])
def test_codes_of_a_quantisation_are_no_weights(folder, dtype):
    def coded(weights):
        name = next(name for name in weights if name.endswith("layers.1.mlp.up_proj.weight"))
        return {**weights, name: weights[name].mul(100).to(dtype)}

    with_weights(folder, coded)
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj\.weight \([IUF]\d+.*quantization_config"):
        load_model(str(folder))


def test_what_is_not_used_is_said_and_not_refused(folder, capsys):
    extra = {f"value_head.{number}.weight": torch.zeros(2) for number in range(5)}
    with_weights(folder, lambda weights: {**weights, **extra})
    load_model(str(folder))
    told = capsys.readouterr().err
    assert "value_head.0.weight, value_head.1.weight, value_head.2.weight and 2 more" in told


@pytest.mark.parametrize(
    ("rename", "who", "remedy"),
    [
        (lambda name: f"module.{name}", "DataParallel", "model.module"),
        (lambda name: f"_orig_mod.{name}", "torch.compile", "_orig_mod"),
        (lambda name: name.replace("layers.1.", "layers._orig_mod.1."), "torch.compile", "_orig_mod"),
        (lambda name: name.replace("q_proj.", "q_proj.base_layer."), "PEFT", "merge_and_unload"),
        (lambda name: f"base_model.model.{name}", "PEFT", "merge_and_unload"),
    ],
)
def test_names_of_wrappers_are_recognised(folder, rename, who, remedy):
    with_weights(folder, lambda weights: {rename(name): value for name, value in weights.items()})
    with pytest.raises(ModelError, match=f"as {who} names them") as told:
        load_model(str(folder))
    assert remedy in str(told.value)


def test_an_adapter_beside_whole_weights_is_not_left_out(folder):
    with_weights(folder, lambda w: {**w, "language_model.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(2, 32)})
    with pytest.raises(ModelError, match=r"q_proj\.lora_A\.weight.*merge_and_unload"):
        load_model(str(folder))


def test_an_adapter_file_without_peft(folder):
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"adapter_config\.json.*peft is not installed"):
        load_model(str(folder))


@pytest.mark.parametrize("place", ["lm_head.weight", "vision_tower.embeddings.class_embedding"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_named(folder, place, value):
    def spoil(weights):
        name = next(name for name in weights if name.endswith(place))
        weights[name].view(-1)[3] = value
        return weights

    with_weights(folder, spoil)
    with pytest.raises(ModelError, match=f"not finite numbers in float32: .*{place.split('.')[-2]}"):
        load_model(str(folder))


def test_weights_that_overflow_in_float16(folder):
    with_weights(folder, lambda weights: {k: v * 1e6 if "norm" in k else v for k, v in weights.items()})
    load_model(str(folder))
    load_model(str(folder), dtype="bfloat16")
    with pytest.raises(ModelError, match=r"norm.*--dtype bfloat16"):
        load_model(str(folder), dtype="float16")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "processor_config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [b'{"eos_token_id": 2, "pad', b"", b"[1]", b"\xff\xfe{}", b"[" * 100_000])
def test_half_written_settings_are_named(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", {"text_config": 3}),
        ("config.json", {"vision_config": {"hidden_size": "wide"}}),
        ("config.json", {"quantization_config": {"quant_method": "gptq", "bits": 4}}),
        ("config.json", {"quantization_config": {"quant_method": "awq", "bits": 4}}),
        ("config.json", {"model_type": "qwen2_vl"}),
        ("config.json", {"model_type": "bert"}),
        ("config.json", {"vision_feature_layer": [1, 2]}),
        ("config.json", {"vision_feature_layer": 7}),
        ("config.json", {"vision_feature_layer": -9}),
        ("generation_config.json", {"bos_token_id": {"a": 1}, "cache_implementation": "no such"}),
        ("processor_config.json", {"processor_class": "NoSuchProcessor"}),
        ("processor_config.json", {"image_processor": 3}),
        ("tokenizer_config.json", {"tokenizer_class": 7}),
        ("tokenizer.json", {"model": None}),
    ],
)
def test_odd_settings_never_end_in_another_error(folder, name, change):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError):
        load_model(str(folder))


def test_a_pickle_of_more_than_tensors_is_not_advised_to_be_run(folder):
    torch.save({"weight": torch.zeros(1), "more": folder}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="a pickle that holds more than tensors") as told:
        load_model(str(folder))
    assert "weights_only" not in str(told.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_of_a_model_is_no_model(folder, name):
    with pytest.raises(ModelError, match="is a file; give the directory"):
        load_model(str(folder / name))


def test_a_quantised_checkpoint_names_the_package(folder):
    settings = json.loads((folder / "config.json").read_text())
    settings["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"(?i)gptq|optimum"):
        load_model(str(folder))


@pytest.mark.parametrize("keep", [0, 5, 300, -1])
def test_weights_that_are_cut_off(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged or cut off"):
        load_model(str(folder))


def test_parts_of_a_checkpoint_that_are_lost(folder):
    parts = sharded(folder)
    parts[1].write_bytes(parts[1].read_bytes()[:-9])
    with pytest.raises(ModelError, match=rf"{parts[1].name} is damaged"):
        load_model(str(folder))
    parts[1].unlink()
    with pytest.raises(ModelError, match=rf"{parts[1].name} is missing"):
        load_model(str(folder))
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": [1]}')
    with pytest.raises(ModelError, match="no weight_map"):
        load_model(str(folder))
    index.unlink()
    with pytest.raises(ModelError, match=r"without model\.safetensors\.index\.json"):
        load_model(str(folder))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_pointers_of_git_lfs(folder, name):
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ModelError, match=rf"{name} is a Git LFS pointer.*git lfs pull"):
        load_model(str(folder))


def test_a_folder_without_a_processor(folder):
    for name in ("processor_config.json", "preprocessor_config.json"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(ModelError, match="processor"):
        load_model(str(folder))


@pytest.mark.parametrize("name", ["my-lava", "./models/my-lava", "/nowhere/my-llava"])
def test_a_name_that_cannot_be_on_the_hub_is_refused_at_once(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", None)  # Nothing is looked up.
    for place in (tmp_path, tmp_path / "models"):
        (place / "my-llava").mkdir(parents=True)
        (place / "my-llava" / "config.json").touch()
        (place / "my-lovely-pictures").mkdir()
    near = "" if name.startswith("/") else rf"; did you mean {Path(name).parent / 'my-llava'}\?"
    with pytest.raises(ModelError, match=rf"no such directory, and ids of the Hub have the form org/name{near}; give"):
        load_model(name)


def test_it_is_said_that_the_hub_is_asked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "my-llava").mkdir(parents=True)
    (tmp_path / "models" / "my-llava" / "config.json").touch()

    def refuse(name, **_):
        raise OSError(f"{name} is not there")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", refuse)
    with pytest.raises(ModelError, match="models/my-lava is not there"):
        load_model("models/my-lava")
    said = capsys.readouterr().err
    assert "so the Hugging Face Hub is asked for a model of that name; did you mean models/my-llava?" in said
