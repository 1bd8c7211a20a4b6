"""The digest of a checkpoint: the same however it is loaded or divided, another one for other weights."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_llava, tiny_llava_directory
from transformers import LlavaForConditionalGeneration

from clasp_calib.artifacts.checkpoint_digest import checkpoint_of, files_digest, revision_of, weights_digest
from clasp_calib.common.errors import ModelError


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tiny_llava_directory(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def copy(place, tmp_path):
    return Path(shutil.copytree(place, tmp_path / "copy"))


def loaded(place, **how):
    return LlavaForConditionalGeneration.from_pretrained(place, **how)


def rewritten(place, change):
    tensors = load_file(place / "model.safetensors")
    change(tensors)
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_model_has_the_digest_of_its_files_in_every_dtype(place, dtype):
    model = loaded(place, dtype=dtype)
    assert checkpoint_of(model) == files_digest(place)
    assert (checkpoint_of(model).kind, checkpoint_of(model).dtype) == ("files", None)
    assert revision_of(model) is None


def test_the_digest_does_not_depend_on_the_files(place, tmp_path):
    model = loaded(place)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="40KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    assert files_digest(tmp_path / "sharded") == files_digest(place)
    assert checkpoint_of(loaded(tmp_path / "sharded")) == checkpoint_of(model)


@pytest.mark.parametrize("shards", [1, 2])
def test_what_torch_saved_has_the_digest_of_the_same_tensors(place, copy, shards):
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    if shards == 1:
        torch.save(tensors, copy / "pytorch_model.bin")
    else:
        names = sorted(tensors)
        files = {name: f"pytorch_model-{n % 2}.bin" for n, name in enumerate(names)}
        for file in {*files.values()}:
            torch.save({name: tensors[name] for name in names if files[name] == file}, copy / file)
        (copy / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    assert files_digest(copy) == files_digest(place)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.update({n: 1.3 * v for n, v in t.items()}),
        lambda t: t[max(t)].mul_(1.001),
        lambda t: t.update({"more": torch.zeros(3)}),
        lambda t: t.update({sorted(t)[0] + "x": t.pop(sorted(t)[0])}),
        lambda t: t.update({n: v.bfloat16() for n, v in t.items()}),
        lambda t: t.update({n: v.reshape(-1) for n, v in t.items()}),
    ],
)
def test_other_tensors_have_another_digest(place, copy, change):
    rewritten(copy, change)
    assert files_digest(copy).digest != files_digest(place).digest
    assert files_digest(copy).comparable(files_digest(place))


def test_equally_shaped_tensors_that_change_places_are_noticed(place, copy):
    def swapped(tensors):
        one, two = [name for name in sorted(tensors) if name.endswith("self_attn.q_proj.weight")][-2:]
        tensors[one], tensors[two] = tensors[two].clone(), tensors[one].clone()

    rewritten(copy, swapped)
    assert files_digest(copy) != files_digest(place)


def test_a_model_that_was_changed_after_loading_is_not_that_of_its_files(place):
    model = loaded(place)
    before = checkpoint_of(model)
    with torch.no_grad():
        model.model.language_model.layers[3].self_attn.v_proj.weight += 1e-3 * torch.randn(16, 1) @ torch.randn(1, 32)
    changed = checkpoint_of(model)
    assert (changed.kind, changed.dtype, changed.digest) == ("memory", "float32", weights_digest(model))
    assert not changed.comparable(before)


def test_changes_that_torch_does_not_count_are_noticed(place):
    model = loaded(place)
    assert checkpoint_of(model).kind == "files"
    weight = model.model.language_model.layers[2].mlp.up_proj.weight
    weight.data += 1e-2  # as adapters are merged
    assert checkpoint_of(model).kind == "memory"
    weight.data -= 1e-2
    weight.data.copy_(loaded(place).model.language_model.layers[2].mlp.up_proj.weight)
    assert checkpoint_of(model).kind == "files"


def test_weights_beside_those_of_the_files_are_not_of_the_files(place):
    class Adapted(torch.nn.Module):
        """As PEFT wraps a layer."""

        def __init__(self, base):
            super().__init__()
            self.base_layer = base
            self.lora_A = torch.nn.Linear(base.in_features, 3, bias=False)
            self.lora_B = torch.nn.Linear(3, base.out_features, bias=False)

    model = loaded(place)
    mlp = model.model.language_model.layers[1].mlp
    mlp.down_proj = Adapted(mlp.down_proj)
    found = checkpoint_of(model)
    assert found.kind == "memory"
    mlp.down_proj.lora_B.weight.data.zero_()
    assert checkpoint_of(model) != found


def test_a_model_whose_parameters_were_replaced_is_looked_at_again(place):
    model = loaded(place)
    assert checkpoint_of(model).kind == "files"
    assert checkpoint_of(model.bfloat16()).kind == "files"
    model.model.multi_modal_projector.linear_1.weight = torch.nn.Parameter(torch.zeros(32, 16))
    assert checkpoint_of(model).kind == "memory"


def test_files_that_were_overwritten_after_loading_are_not_the_models(copy):
    model = loaded(copy)
    rewritten(copy, lambda t: t.update({n: v + 1 for n, v in t.items()}))
    assert checkpoint_of(model).kind == "memory"


def test_a_model_in_memory_has_a_digest_of_its_own_kind():
    digest = checkpoint_of(tiny_llava())
    assert (digest.kind, digest.dtype) == ("memory", "float32")
    assert checkpoint_of(tiny_llava()) == digest
    assert checkpoint_of(tiny_llava(seed=1)) != digest
    assert not checkpoint_of(tiny_llava().bfloat16()).comparable(digest)


def test_a_hub_id_is_found_in_the_cache_with_its_commit(place, copy, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    rewritten(copy, lambda t: t.update({n: v + 1 for n, v in t.items()}))
    for commit, source in (("a" * 40, copy), ("b" * 40, place)):
        shutil.copytree(source, tmp_path / "hub" / "models--org--tiny" / "snapshots" / commit)
    model = loaded(place)
    model.config._name_or_path = "org/tiny"
    assert (checkpoint_of(model), revision_of(model)) == (files_digest(place), "b" * 40)
    elsewhere = loaded(place)
    elsewhere.config._name_or_path = "org/other"
    assert (checkpoint_of(elsewhere).kind, revision_of(elsewhere)) == ("memory", None)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b""),
        ("model.safetensors", b"\xff" * 16),
        ("model.safetensors", b"\x02" + b"\0" * 7 + b"[]"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "gone.safetensors"}}'),
        ("model.safetensors.index.json", b"[" * 100_000),
        ("pytorch_model.bin", b"junk"),
        ("other.bin", b"junk"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=r"holds no checkpoint|cannot be read"):
        files_digest(tmp_path)


def test_little_of_a_large_tensor_is_read(tmp_path):
    """A sparse file of 4 GiB takes no longer than its name."""
    header = json.dumps({"w": {"dtype": "BF16", "shape": [1 << 31], "data_offsets": [0, 1 << 32]}}).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + (1 << 32))
    before = os.times()
    first = files_digest(tmp_path)
    assert os.times().user - before.user < 1
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\1")
    assert files_digest(tmp_path) != first
