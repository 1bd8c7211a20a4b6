"""What several tests of the runtime share: the tiny model, its schedules, and how it looks untouched."""

from dataclasses import fields

import torch
from tiny_models import tiny_llava
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.pruner import prune
from clasp_calib.runtime.schedule import Schedule

TOKENS, LAYERS = 16, 8
SCHEDULE = Schedule(TOKENS, LAYERS, (1, 2, 4), (9, 6, 3))
LATER = Schedule(TOKENS, LAYERS, (2, 4, 6), (10, 5, 2))
FULL = Schedule(TOKENS, LAYERS, (1, 2, 4), (16, 16, 16))
_MODELS = {}


def model(seed=0, **settings):
    """A tiny LLaVA; made once for a setting, since nothing may change it."""
    key = (seed, *sorted(settings.items()))
    if key not in _MODELS:
        _MODELS[key] = tiny_llava(seed, **settings)
    return _MODELS[key]


def pruned_under(model, **settings):
    """`prune`, the words of its options among the settings, as the reference takes them."""
    words = {field.name: settings.pop(field.name) for field in fields(PruningOptions) if field.name in settings}
    return prune(model, options=PruningOptions(**words), **settings)


def fingerprint(model):
    """Everything on a model that pruning could leave behind."""
    hooks = (
        "_forward_hooks",
        "_forward_pre_hooks",
        "_forward_hooks_with_kwargs",
        "_forward_pre_hooks_with_kwargs",
    )
    modules = [
        (name, id(module), sorted(vars(module)), [len(getattr(module, hook)) for hook in hooks])
        for name, module in model.named_modules()
    ]
    layers = adapter_for(model).language_model(model).layers
    configs = [id(layer.self_attn.config) for layer in layers if hasattr(layer, "self_attn")]
    return modules, configs, sorted(ALL_ATTENTION_FUNCTIONS)


def generated(model, batch, tokens=6, **settings):
    """Ids that follow the prompt."""
    settings = {"max_new_tokens": tokens, **settings}
    return model.generate(**batch, **settings)[:, batch["input_ids"].shape[1] :].tolist()


def with_answers(batch, answers):
    """The batch with its answers after the prompts, positions as ``generate`` numbers them."""
    answers = torch.tensor(answers)
    mask = torch.cat([batch["attention_mask"], torch.ones_like(answers)], 1)
    return {
        **{key: value for key, value in batch.items() if key == "pixel_values"},
        "input_ids": torch.cat([batch["input_ids"], answers], 1),
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
    }
