"""Artifacts of the profile ``input`` made by hand, for any model."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from made_artifacts import CHOICE, PROVENANCE, made

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.artifacts.checkpoint_digest import checkpoint_of
from clasp_calib.artifacts.choices import SelectorEntry
from clasp_calib.artifacts.manifest import BudgetEntry, hashed
from clasp_calib.artifacts.model_shape import model_shape
from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.common.selector_choice import SelectorChoice
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.checks import settled
from clasp_calib.runtime.schedule import parse_budget
from clasp_calib.runtime.selectors import knobs_of, selector_of

Settings = Mapping[str, Mapping[str, Any]]
"""Class -> ``layers`` (state -> weight), ``rho``, ``relevance``, ``seeding``, ``selector`` (name and knobs)."""


def served_artifact(model: Any, budgets: Sequence[str], settings: Settings, prompt: str, **changes: Any) -> Artifact:
    """An artifact for a model; what settings leave out is the model's own layer, rho 1 and its default relevance.

    Args:
        model: a transformers model.
        budgets: as users write them.
        settings: of the classes; the last one is the default class.
        prompt: template with ``{question}``.
        changes: of the manifest.
    """
    adapter = adapter_for(model)
    options = settled(model, adapter, PruningOptions(profile="input"))
    shape, classes = model_shape(model.config), tuple(settings)
    alphas = np.zeros((len(budgets), len(classes), shape.vision_layers + 1), np.float32)
    rhos = np.ones(alphas.shape[:2], np.float32)
    entries = []
    for b, budget in enumerate(budgets):
        schedule, choices = schedule_for(model, budget, options), {}
        for y, (label, of) in enumerate(settings.items()):
            for layer, weight in of.get("layers", {adapter.own_layer: 1.0}).items():
                alphas[b, y, layer] = weight
            rhos[b, y] = of.get("rho", 1.0)
            selector = SelectorEntry.of(_solved(adapter, budget, *of["selector"]) if "selector" in of else None)
            own = {name: of.get(name) for name in ("relevance", "seeding", "downsample")}
            choices[label] = CHOICE.model_copy(update={**own, "selector": selector})
        counts = None if shape.tokens_per_image is None else (schedule.counts[0],)
        differ = None if counts else (8.0, 8.0)
        entries.append(BudgetEntry(name=budget, counts=counts, mean_tokens=8.0, token_range=differ, choices=choices))
    manifest = {
        **{"shape": shape, "fingerprint": shape.fingerprint, "checkpoint": checkpoint_of(model), "taxonomy": {}},
        **{"classes": classes, "default_class": classes[-1], "class_from": "class", "starts": (0,)},
        **{"profile": "input", "relevance": options.relevance, "positions": options.positions},
        **{"prompt": prompt, "prompt_hash": hashed(prompt), "budgets": tuple(entries), "iterations": 2},
        **{"provenance": dict.fromkeys(budgets, PROVENANCE), **changes},
    }
    return Artifact(made("8").manifest.model_copy(update=manifest), alphas, rhos)


def _solved(adapter: Adapter, budget: str, name: str, knobs: Mapping[str, Any]) -> SelectorChoice:
    """As a search records it, unless its size is given."""
    choice = SelectorChoice.of(name, knobs)
    return choice if "keep" in knobs else knobs_of(name, selector_of(choice).solved(adapter, parse_budget(budget)))
