"""Features from the cache give the logits of the live tower, bit for bit in the stored dtype, in every architecture."""

import copy
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from case_processor import CaseProcessor, write_file
from image_processors import IMAGE_PROCESSORS
from PIL import Image

from clasp_calib.cache.encode import cache_features
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.cache.store import FeatureStore
from clasp_calib.calib.scoring.feature_sources import open_source
from clasp_calib.common.contents import image_key
from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.deepstack import with_deepstack
from clasp_calib.runtime.pruner import prune

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
from architectures import BOS, CASES

PICTURES = 3


@pytest.fixture(params=CASES.values(), ids=lambda case: case.name)
def case(request):
    return request.param


@pytest.fixture(params=["bfloat16", "float16"])
def precision(request):
    return request.param


def model_in(case, precision):
    key = f"cached {precision}"
    if key not in case.made:
        case.made[key] = copy.deepcopy(case.model()).to(getattr(torch, precision))
    return case.made[key]


def prompt(case, ids):
    """One row with the picture's tokens between some words, and what Qwen wants to know of them."""
    row = torch.tensor([[BOS, 9, 11, *ids, 13, 8, 21]])
    made = {"input_ids": row, "attention_mask": torch.ones_like(row)}
    if hasattr(case.model().model, "get_rope_index"):
        kinds = [row == token for token in adapter_for(case.model()).visual_token_ids.values()]
        made["mm_token_type_ids"] = sum((number + 1) * kind.int() for number, kind in enumerate(kinds))
    return {**made, **adapter_for(case.model()).prompt_inputs(row)}


def alphas(adapter):
    """The model's own layer, and a mixture of all."""
    own = torch.zeros(adapter.vision_layers + 1)
    own[adapter.own_layer] = 1
    mixed = torch.rand(adapter.vision_layers + 1, generator=torch.Generator().manual_seed(3)).mul(4).softmax(-1)
    return torch.stack([own, mixed])


@pytest.mark.thinned("case", "precision")
@torch.inference_mode()
def test_logits_equal_those_of_the_live_tower(case, precision, tmp_path):
    model, adapter, processor = model_in(case, precision), adapter_for(case.model()), CaseProcessor(case)
    files = [write_file(tmp_path, case, number) for number in range(PICTURES)]
    samples = [Sample(str(number), "?", path) for number, path in enumerate(files)]
    layers = range(adapter.vision_layers + 1)
    root = tmp_path / "cache"
    report = cache_features(
        model, processor, samples, root, FeatureOptions(layers=layers, batch_size=1, precision=precision)
    )
    assert (report.encoded, report.odd) == (PICTURES, ())
    schedule = schedule_for(model, "100%", PruningOptions(starts=(1, 2, 4)) if case.layered else None)
    alpha_ML, mix = alphas(adapter), {"schedule": schedule, "rho": 0.5}
    pixels = adapter.pixel_names[case.modality]
    with FeatureStore.open(root) as store:
        differ = len({store.tokens(image_key(file)) for file in files}) > 1
        alike = ("llava", "gemma3", "internvl", "internvl video")
        alike += ("video_llava", "video_llava video", "llava_onevision video")
        assert differ == (case.name not in alike)
        for file in files:
            key = image_key(file)
            fused_MTC = torch.from_numpy(store.fused(key, store.layers, alpha_ML.numpy())).to(model.dtype)
            origin = store.origin(key)
            # One by one: a matrix product of more rows may be rounded otherwise.
            visual = [origin.project(adapter, model, fused_TC[None])[0] for fused_TC in fused_MTC]
            deepstack = origin.deepstack(adapter, model, store.read(key, adapter.taps)) if adapter.taps else []
            seen = CaseProcessor(case)(**as_given(case, file), return_tensors="pt")
            words = prompt(case, seen["input_ids"][0].tolist())
            other = (pixels, "pixel_attention_mask", *words)
            sizes = {name: value for name, value in seen.items() if name not in other}
            assert all(torch.equal(origin.forward_arguments()[name], value) for name, value in sizes.items())
            for alpha_L, features in zip(alpha_ML, visual, strict=True):
                with prune(model, **mix, alpha_BL=alpha_L[None]):
                    live = model(**words, **{pixels: seen[pixels].to(model.dtype)}, **sizes).logits
                given = with_deepstack(adapter.encoder_outputs(features, case.modality), deepstack)
                cached = model(**words, **origin.forward_arguments(), mm_encoder_outputs=given).logits
                assert torch.equal(cached, live)
            with contiguous_states(adapter.vision_tower(model, case.modality)):
                unpruned = model(**words, **{pixels: seen[pixels].to(model.dtype)}, **sizes).logits
            given = with_deepstack(adapter.encoder_outputs(visual[0], case.modality), deepstack)
            assert torch.equal(model(**words, **sizes, mm_encoder_outputs=given).logits, unpruned)


@contextmanager
def contiguous_states(tower):
    """SigLIP's states lie channel by channel in memory, and of such a matrix a product may be rounded otherwise."""

    def lay_out(_, __, output):
        if getattr(output, "hidden_states", None) is not None:
            output.hidden_states = tuple(state.contiguous() for state in output.hidden_states)
        return output

    hook = tower.register_forward_hook(lay_out)
    try:
        yield
    finally:
        hook.remove()


def as_given(case, file):
    if case.filmed:
        return {"videos": [str(file)], "text": "<video>"}
    return {"images": [Image.open(file)], "text": "<image>"}


@pytest.mark.parametrize("name", IMAGE_PROCESSORS)
@torch.inference_mode()
def test_transformers_own_processors_of_images(name, tmp_path):
    """Files of several sizes, tiles and all, in batches; the projector sees what it sees without a cache."""
    model, processor = model_in(CASES[name], "float16"), IMAGE_PROCESSORS[name]()
    adapter, generator = adapter_for(model), torch.Generator().manual_seed(5)
    files = []
    for number, (width, height) in enumerate([(130, 60), (60, 130), (130, 60), (90, 100), (300, 70)]):
        files.append(tmp_path / f"{number}.png")
        pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(files[-1])
    samples = [Sample(path.stem, "?", path) for path in files]
    layers = range(adapter.vision_layers + 1)
    report = cache_features(model, processor, samples, tmp_path / "cache", FeatureOptions(layers=layers, batch_size=2))
    assert (report.encoded, report.odd) == (len(files), ())
    with FeatureStore.open(tmp_path / "cache") as store:
        for file in files:
            made = processor(images=[Image.open(file)], text=processor.image_token, return_tensors="pt")
            kept = {name: value for name, value in made.items() if name in adapter.size_names["image"]}
            pixels = made[adapter.pixel_names["image"]].to(model.dtype)
            live = model.model.get_image_features(**{adapter.pixel_names["image"]: pixels}, **kept, return_dict=True)
            own_1TC = store.read(image_key(file), [adapter.own_layer])
            [features] = store.origin(image_key(file)).project(adapter, model, own_1TC)
            pooled = live.pooler_output
            assert [len(feature) for feature in features] == [len(one) for one in pooled]
            for got, expected in zip(features, pooled, strict=True):
                torch.testing.assert_close(got, expected, rtol=0.02, atol=0.02)


def test_a_deepstack_is_kept_beside_whatever_layers_are_asked_for(tmp_path):
    case = CASES["qwen3_vl"]
    model, processor, options = case.model(), CaseProcessor(case), FeatureOptions(layers=[0], batch_size=1)
    sample = Sample("1", "?", write_file(tmp_path, case, 1))
    report = cache_features(model, processor, [sample], tmp_path / "cache", options)
    assert report.layers == (0, 1, 2, 3)
    alpha_Ml = torch.ones(1, 1)
    cached, live = (open_source(place, model, processor).at((0,)) for place in (tmp_path / "cache", None))
    assert cached.layers == live.layers == (0,)
    assert torch.equal(cached.fused(sample, alpha_Ml), live.fused(sample, alpha_Ml))
    assert cached.tapped(sample).shape[0] == 3
    assert torch.equal(cached.tapped(sample), live.tapped(sample))
