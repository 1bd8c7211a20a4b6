"""Candidates that share all that can be shared score as each would alone, in every architecture that can be cached."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from clasp_calib.cache.encode import cache_features
from clasp_calib.cache.store import FeatureStore
from clasp_calib.calib.candidate import Candidate
from clasp_calib.calib.evaluator import Evaluator, Pruning
from clasp_calib.calib.features import CachedFeatures
from clasp_calib.calib.prompted import Picture, Prefixes, Prompted
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.pruner import prune, schedule_for

sys.path += [str(Path(__file__).parents[1] / room) for room in ("runtime", "cache")]
from architectures import BOS, CASES
from case_processor import CaseProcessor, write_file

LONGEST = 4
BEFORE, AFTER = [BOS, 9, 11, 40], [13, 8, 21, 50, 17]
RHOS = (0.0, 0.4, 0.7, 1.0)


@dataclass(frozen=True)
class CasePrompter:
    """Prompts for a tiny model without words; answers are ids, to be given as text."""

    case: Any
    number: int

    def prompt(self, question, tokens, modality):
        _, ids = self.case.picture(self.case.model(), torch.Generator().manual_seed(self.number), self.number)
        visual = adapter_for(self.case.model()).visual_token_ids[modality]
        assert ids.count(visual) == tokens
        return [*BEFORE, *ids, *AFTER]

    def answer(self, question, reference):
        return [int(word) for word in reference.split()]


def own_and_mixed(adapter):
    """Three mixtures of four ratios each."""
    own = [float(layer == adapter.own_layer) for layer in range(adapter.vision_layers + 1)]
    generator = torch.Generator().manual_seed(2)
    mixed = torch.rand(2, len(own), generator=generator, dtype=torch.float64).mul(4).softmax(-1).tolist()
    return [Candidate(str(number), tuple(alpha), rho) for number, alpha in enumerate([own, *mixed]) for rho in RHOS]


@dataclass
class Alone:
    """One candidate at a time: whole prompts, no cache, no fan, and transformers' own positions."""

    model: Any
    prompt: list[int]
    origin: Any
    fused_1TC: torch.Tensor
    rho: float
    schedule: Any

    def arguments(self, answer=()):
        adapter = adapter_for(self.model)
        ids = torch.tensor([[*self.prompt, *answer]])
        made = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **self.origin.forward_arguments()}
        if hasattr(self.model.config, "vision_start_token_id"):
            kinds = [ids == token for token in adapter.visual_token_ids.values()]
            made["mm_token_type_ids"] = sum((number + 1) * kind.int() for number, kind in enumerate(kinds))
        (visual,) = self.origin.project(adapter, self.model, self.fused_1TC)
        return {**made, "mm_encoder_outputs": adapter.encoder_outputs(visual, self.origin.modality)}

    def pruned(self):
        return prune(self.model, schedule=self.schedule, rho=self.rho, prompt_lengths=len(self.prompt))

    def logits(self, answer):
        with self.pruned():
            return self.model(**self.arguments(answer[:-1]), use_cache=False, logits_to_keep=len(answer)).logits[0]

    def said(self):
        with self.pruned():
            return self.model.generate(**self.arguments(), max_new_tokens=LONGEST)[0, len(self.prompt) :].tolist()


@pytest.mark.parametrize("case", [case for case in CASES.values() if case.fusion], ids=lambda case: case.name)
@torch.inference_mode()
def test_candidates_together_are_candidates_alone(case, tmp_path):
    model, adapter = case.model(), adapter_for(case.model())
    candidates, schedule = own_and_mixed(adapter), schedule_for(model, "40%", (1, 2, 4))
    for number in range(2):
        sample = Sample(str(number), "?", write_file(tmp_path, case, number))
        cache_features(model, CaseProcessor(case), [sample], range(adapter.vision_layers + 1), tmp_path / "cache")
        with FeatureStore.open(tmp_path / "cache") as store:
            features = CachedFeatures(store, store.layers)
            alphas = torch.tensor([candidate.alpha for candidate in candidates])
            fused_BTC, origin = features.fused(sample, alphas), features.origin(sample)
            visual = origin.project(adapter, model, fused_BTC[:: len(RHOS)])
            picture = Picture(visual, origin.modality, origin.forward_arguments())
            prompter = CasePrompter(case, number)
            prompt = prompter.prompt("?", picture.tokens, picture.modality)
            alone = [
                Alone(model, prompt, origin, fused_1TC[None], candidate.rho, schedule)
                for candidate, fused_1TC in zip(candidates, fused_BTC, strict=True)
            ]
            said = [one.said() for one in alone]
            whole = [said[-1], said[0][:1] + said[-1][1:]]
            answers = [*whole, said[0][1:3], said[0][:1]]

            fan = [row for row in range(len(visual)) for _ in RHOS]
            rho = [candidate.rho for candidate in candidates]
            prompted = Prompted(model, adapter, prompt, picture, Prefixes(model, adapter))
            with prune(model, schedule=schedule, rho=rho, fan=fan, prompt_lengths=len(prompt)):
                together = [prompted.logits(answer) for answer in answers]
                assert prompted.generated(LONGEST).tolist() == said
            expected = [torch.stack([one.logits(answer) for one in alone]) for answer in answers]
            for expected_BTV, logits_BTV in zip(expected, together, strict=True):
                assert (logits_BTV - expected_BTV).abs().max() < 1e-4

            asked = Sample(sample.id, "?", sample.image, tuple(" ".join(map(str, answer)) for answer in whole))
            evaluator = Evaluator(model, prompter, features, LONGEST)
            scores = evaluator.scores(asked, candidates, Pruning(schedule))
            assert scores.score == tuple(float(words in whole) for words in said)
            assert scores.score == evaluator.generated_scores(asked, candidates, Pruning(schedule)).score
            logs = [logits_BTV.log_softmax(-1) for logits_BTV in expected[: len(whole)]]
            for row, nll in enumerate(scores.nll):
                each = [
                    -sum(log[row, t, token] for t, token in enumerate(w)) for log, w in zip(logs, whole, strict=True)
                ]
                assert nll == pytest.approx(float(min(each)), abs=1e-3)
        assert len({tuple(words) for words in said}) > 1, "all candidates say the same"
