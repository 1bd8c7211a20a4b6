"""What recorded scores depend on: the model, by digests that are cheap enough for every start, and the samples."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from clasp_calib.artifacts.checkpoint_digest import weights_digest
from clasp_calib.artifacts.model_shape import model_shape
from clasp_calib.calib.scoring.feature_sources import Source
from clasp_calib.calib.scoring.features import Features
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.scoring.scores import SCORING
from clasp_calib.common.containing import contained
from clasp_calib.common.hashing import sha256_json
from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.decoding import Greedy
from clasp_calib.search.parts import Pools
from clasp_calib.search.strategies.registry import describe
from clasp_calib.search.strategies.strategy import Strategy


@dataclass(frozen=True)
class Identity:
    """What the scores of a search depend on, and what searches are told apart by.

    Attributes:
        setting: name -> value of all that every score of a budget depends on: model, prompt, schedule ...
        samples: id -> digest of a sample's own content.
        parts: class -> digest of its samples, in order.
        space: digest of the candidates.
        objective: what strategies maximise.
    """

    setting: Mapping[str, Any]
    samples: Mapping[str, str]
    parts: Mapping[str, str]
    space: str
    objective: str

    @cached_property
    def _digest(self) -> str:
        return sha256_json(self.setting)[:16]

    def key(self, sample: Sample) -> str:
        """What a sample's scores are recorded under: which others there are, and who asks, is no part of it."""
        return f"{self._digest} {self.objective} {self.samples[sample.id]}"

    def setup(self, strategy: Strategy, seed: int, fed: Sequence[str]) -> str:
        """Digest of a whole search, with the other budgets whose scores are evidence too."""
        return sha256_json(
            {
                **self.setting,
                "space": self.space,
                "samples": self.parts,
                "objective": self.objective,
                "strategy": describe(strategy),
                "seed": seed,
                "fed": list(fed),
            }
        )


def common_setting(model: Any, source: Source, template: str, pruning: PruningOptions, threads: int) -> dict[str, Any]:
    """All that the scores of every budget depend on but for their samples and candidates, by name; JSON.

    Args:
        model: that is scored.
        source: of its features.
        template: of the prompts.
        pruning: settled for the model.
        threads: that each worker computes with.
    """
    return {
        "scoring": SCORING,
        "fingerprint": model_shape(model.config).fingerprint,
        "text": text_settings(model.config),
        "encoder": source.encoder,
        "precision": source.precision,
        "weights": weights_digest(model),
        # What computes on a GPU does not count on them.
        "threads": threads if model.device.type == "cpu" else None,
        "prompt": template,
        "generation": Greedy(model).settings,
        "pruning": pruning.scored_under,
    }


def contents_of(
    pools: Pools, prompter: Prompter, features: Features, prompt: Callable[[Sample], list[int]]
) -> tuple[dict[str, str], dict[str, str]]:
    """Digests of all of the samples that their scores depend on: by id, and by class.

    ``prompt`` gives the ids of a sample's prompt.
    """
    samples: dict[str, str] = {}
    whole: dict[str, str] = {}
    for label, pool in pools.items():
        rows = []
        for s in pool:
            with contained(f"preparing the sample {s.id!r}"):
                answers = [prompter.answer(s.question, answer) for answer in s.answers]
                content = [features.key(s), s.metric, list(s.answers), prompt(s), answers]
            samples[s.id] = sha256_json(content)[:32]
            rows.append([s.split, s.id, *content])
        whole[label] = sha256_json(rows)
    return samples, whole


def changes(old: Mapping[str, Any], new: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """Says of each entry that differs what it was and what it is."""
    for name in sorted({*old, *new}):
        was, now = old.get(name), new.get(name)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            yield from changes(was, now, f"{within}{name}.")
        elif was != now:
            yield f"{within}{name} was {_short(was)}, is now {_short(now)}"


def _short(value: Any) -> str:
    text = repr(value)
    is_digest = isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
    return value[:12] if is_digest else text if len(text) <= 200 else f"{text[:200]} ..."


def text_settings(config: Any) -> dict[str, Any]:
    """The language model's settings that its weights do not show, such as the base of its rotary positions."""
    passing = {"transformers_version", "dtype", "torch_dtype", "architectures"}
    settings = config.get_text_config().to_diff_dict()
    return {name: value for name, value in settings.items() if name not in passing and not name.startswith("_")}
