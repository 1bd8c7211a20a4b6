"""What stands beside the calibrated setting: random pruning, and no pruning, whatever is scored in the same forward."""

from dataclasses import replace

import pytest
import torch
from speaking_models import WORDS

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.features import CachedFeatures
from clasp_calib.calib.studies.comparison import Setting, compare
from clasp_calib.calib.studies.scorer import Scorer
from clasp_calib.crew.local_workers import InProcess
from clasp_calib.runtime.schedule import Schedule

OWN = Candidate("own", (0.0, 0.0, 0.0, 1.0, 0.0), 1.0)
MIXED = Candidate("mixed", (0.0, 0.5, 0.0, 0.5, 0.0), 0.5)
DRAWN = [replace(OWN, drawn=draw) for draw in range(3)]
PRUNED = Pruning(Schedule(16, 8, (1, 2, 4), (9, 6, 3)))


@pytest.fixture
def evaluator(bench):
    return Evaluator(bench.model, bench.prompter, CachedFeatures(bench.store, (0, 1, 2, 3, 4)))


def nll(evaluator, sample, candidates, pruning=PRUNED):
    return evaluator.scores(replace(sample, answers=WORDS[:3]), candidates, pruning).nll


def test_random_rows_beside_chosen_ones_score_as_alone(bench, evaluator):
    for sample in bench.samples[:3]:
        for together in ([DRAWN[0], OWN, DRAWN[1], MIXED, DRAWN[2]], DRAWN):
            alone = [nll(evaluator, sample, [candidate])[0] for candidate in together]
            assert len({round(value, 3) for value in alone}) == len(together)
            assert nll(evaluator, sample, together) == pytest.approx(alone, abs=1e-4)


def test_a_draw_depends_on_its_seed_and_the_sample_alone(bench, evaluator, monkeypatch):
    kept, selector = [], Pruning._selector

    def listening(pruning, sample, candidates):
        made = selector(pruning, sample, candidates)

        class Listening:
            needs_gram = made.needs_gram

            def __call__(self, *arguments):
                selection = made(*arguments)
                kept.append(selection.keep_BN.tolist())
                return selection

        return Listening()

    monkeypatch.setattr(Pruning, "_selector", listening)
    first, second = bench.samples[:2]
    for sample, candidates in ((first, DRAWN[:2]), (second, DRAWN[:1]), (first, [MIXED, DRAWN[0]])):
        nll(evaluator, sample, candidates)
    two, other, again = kept[::3]  # of three stages
    assert two[0] == again[1]
    assert two[0] != two[1]
    assert two[0] != other[0]


def test_the_unpruned_model_reads_a_picture_once_for_all_questions(bench, evaluator, monkeypatch):
    fresh = [
        nll(Evaluator(bench.model, bench.prompter, CachedFeatures(bench.store, (3,))), sample, [OWN], Pruning(None))
        for sample in bench.samples
    ]
    reads, forward = [], bench.model.forward

    def counted(*args, **kwargs):
        reads.append("mm_encoder_outputs" in kwargs)
        return forward(*args, **kwargs)

    monkeypatch.setattr(bench.model, "forward", counted)
    settings = [Setting("unpruned", Pruning(None), {"any": OWN})]
    shuffled = torch.randperm(len(bench.samples), generator=torch.Generator().manual_seed(0)).tolist()
    asked = [replace(bench.samples[place], answers=WORDS[:3]) for place in shuffled]
    compared = compare(Scorer(InProcess(evaluator)), settings, {"any": asked}, seed=0)
    assert sum(reads) == len({sample.picture for sample in asked})
    assert compared.samples == tuple(sample.id for sample in asked)
    for sample, expected in zip(bench.samples, fresh, strict=True):
        assert nll(evaluator, sample, [OWN], Pruning(None)) == pytest.approx(expected, abs=1e-4)
