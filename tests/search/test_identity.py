"""Other weights have another digest."""

import torch
from tiny_models import tiny_llava

from clasp_calib.artifacts.checkpoint_digest import weights_digest
from clasp_calib.search.identity import text_settings


def test_the_digest_is_of_the_weights():
    model = tiny_llava()
    digest = weights_digest(model)
    assert weights_digest(tiny_llava()) == digest
    assert weights_digest(tiny_llava(seed=1)) != digest
    assert weights_digest(tiny_llava().bfloat16()) != digest
    for layer in (0, 7):
        tuned = tiny_llava()
        with torch.no_grad():
            # A low-rank update of one matrix.
            projection = tuned.model.language_model.layers[layer].self_attn.q_proj.weight
            projection += 1e-3 * torch.randn(32, 2) @ torch.randn(2, 32)
        assert weights_digest(tuned) != digest
    changed = tiny_llava()
    changed.generation_config.max_new_tokens = 3
    assert weights_digest(changed) == digest


def test_settings_that_weights_do_not_show_are_told_apart():
    model = tiny_llava(seed=0)
    before = text_settings(model.config)
    model.config._name_or_path = "elsewhere"
    model.config.text_config._name_or_path = "elsewhere"
    assert text_settings(model.config) == before
    model.config.text_config.rms_norm_eps = 0.5
    assert text_settings(model.config) != before
