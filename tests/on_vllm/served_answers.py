"""Answers of vLLM's offline engine, and of transformers to the same questions."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clasp_calib import clasp
from clasp_calib.serving.served import ServedArtifact

TOP = 20


def engine_of(place: Path, artifact: Path | None = None, budget: str | None = None, **options: Any) -> Any:
    """An engine in this process, with an artifact or without."""
    from vllm import LLM

    with pytest.MonkeyPatch.context() as patch:
        if artifact is not None:
            patch.setenv("CLASP_ARTIFACT", str(artifact))
            patch.setenv("CLASP_BUDGET", str(budget))
        fixed = {"dtype": "float32", "max_num_seqs": 16, "block_size": 32, "enforce_eager": True, "seed": 0}
        return LLM(str(place), **fixed, **options)


def answered(engine: Any, prompts: list[Any], image_token: int) -> list[Any]:
    """Of every prompt the ids of its answer, log-probabilities of the likeliest, and the number of visual tokens."""
    from vllm import SamplingParams

    how = SamplingParams(temperature=0, max_tokens=8, logprobs=TOP)
    return [
        SimpleNamespace(
            ids=list(out.outputs[0].token_ids),
            steps=[{token: of.logprob for token, of in step.items()} for step in out.outputs[0].logprobs],
            visual=out.prompt_token_ids.count(image_token),
            cached=out.num_cached_tokens,
        )
        for out in engine.generate(prompts, how, use_tqdm=False)
    ]


@torch.inference_mode()
def on_transformers(model: Any, processor: Any, artifact: Path, question: Any) -> Any:
    """The same, and which tokens stay; ``question`` has prompt, picture, label and budget."""
    inputs = processor(images=question.picture, text=question.prompt, return_tensors="pt")
    with clasp(model, artifact, budget=question.budget, classes=[question.label]) as pruner:
        out = model.generate(
            **inputs, do_sample=False, max_new_tokens=8, output_logits=True, return_dict_in_generate=True
        )
        places = tuple(sorted(pruner.stats.stages[0].kept(0)))
    ids = out.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    steps = [logits[0].float().log_softmax(-1) for logits in out.logits]
    return SimpleNamespace(ids=ids, steps=steps, places=places)


def gap(found: Any, expected: Any) -> float:
    """The largest difference of a log-probability."""
    pairs = zip(expected.steps, found.steps, strict=True)
    return max(abs(float(log_V[token]) - value) for log_V, likeliest in pairs for token, value in likeliest.items())


def close(one: Any, other: Any) -> bool:
    """Whether two answers of vLLM are alike."""
    pairs = zip(one.steps, other.steps, strict=True)
    return max(abs(a[token] - b[token]) for a, b in pairs for token in a if token in b) < 1e-4


@contextmanager
def noted_choices() -> Iterator[list[tuple[int, tuple[int, ...]]]]:
    """What vLLM keeps of pictures, as it is decided: (entry, places), rising."""
    found, plain = list[tuple[int, tuple[int, ...]]](), ServedArtifact.chosen

    def chosen(self: ServedArtifact, image: Any, adapter: Any, number: int, *more: Any) -> Any:
        of = plain(self, image, adapter, number, *more)
        found.append((number, tuple(sorted(of.place_T.tolist()))))
        return of

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ServedArtifact, "chosen", chosen)
        yield found
