"""Random pruning as a setting: one draw a sample, whatever was scored before."""

from dataclasses import replace

from speaking_models import WORDS

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.features import CachedFeatures
from clasp_calib.calib.studies.evaluation import random_for
from clasp_calib.runtime.schedule import Schedule

OWN = Candidate("own", (0.0, 0.0, 0.0, 1.0, 0.0), 1.0)


def test_a_sample_draws_the_same_tokens_again_and_others_draw_others(bench):
    decoder = bench.model.config.text_config.num_hidden_layers
    drawn = []

    def listening(sample):
        selector = random_for(0)(sample)

        class Listening:
            needs_gram = False

            def __call__(self, *arguments):
                selection = selector(*arguments)
                drawn.append((sample.id, selection.keep_BN.tolist()))
                return selection

        return Listening()

    evaluator = Evaluator(bench.model, bench.prompter, CachedFeatures(bench.store, (0, 1, 2, 3, 4)))
    pruning = Pruning(Schedule(16, decoder, (1, 2, 3), (8, 8, 8)), selector_for=listening)
    first, second = (replace(sample, answers=WORDS[:3]) for sample in bench.samples[:2])
    for sample in (first, second, first):
        evaluator.scores(sample, [OWN], pruning)
    of_first = [kept for name, kept in drawn if name == first.id]
    of_second = [kept for name, kept in drawn if name == second.id]
    assert len(of_first) == 2 * len(of_second) == 2
    assert of_first[0] == of_first[1]
    assert of_second[0] != of_first[0]
