"""Published pruning methods on the embedded model at equal cost, and whether one is under random pruning by design."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from clasp_calib.baselines.registry import METHODS, method
from clasp_calib.baselines.solving import ImageDependent
from clasp_calib.calib.dataset import by_class
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.studies.answers import AnswerJournal, SolvedKnobs
from clasp_calib.calib.studies.contest import Answerer, Entrant, Prompts, hold_contest
from clasp_calib.calib.studies.entrants import peer
from clasp_calib.common.errors import BudgetError, ModelError
from clasp_calib.common.progress import note
from clasp_calib.common.samples import CLASSES
from clasp_calib.crew.local_workers import InProcess
from tools.reference.measuring.bench import Bench
from tools.reference.measuring.evidence import RESAMPLES, Paired
from tools.reference.measuring.requirements import Requirement, Row
from tools.reference.measuring.results import Results
from tools.reference.measuring.tables import points

PICTURES = 60
"""Of the test split, in the committed report."""
BUDGET = "192"
RANDOM = "random-input"
CONTROL = "control"
"""What controls have in the place of a paper."""
SEEDS = (0, 1, 2)
"""Of methods with random parts: a sample's score is the mean over them."""
SOLVING = 24
"""Questions a class of the selection split on which knobs are solved whose tokens depend on the picture."""
LAYERS = 32
"""Of the decoder; methods look at the attention of any of them."""
LONGEST = 8
"""Tokens of an answer."""
REASONS: Mapping[str, str] = {
    "dart": "its four image pivots are neighbours, and what is least like one of them is alike among itself: it keeps "
    "whole regions of background",
    "pyramiddrop": "its second stage rates in layer 8, a block that was trained to leave the picture alone",
}
"""Method -> why it is under random pruning on this model; docs/design/embedded-model.md says how that was tried."""


@dataclass(frozen=True)
class Peers:
    """What methods answered to the same questions; `results` knows each by its name, random pruning too."""

    results: Results
    methods: tuple[str, ...]

    def gain(self, name: str) -> Paired:
        """Mean over classes of a method minus random pruning."""
        return self.results.macro(name, RANDOM)

    def requirement(self, reasons: Mapping[str, str] = REASONS) -> Requirement:
        """Whether a published method is under random pruning without a word.

        Args:
            reasons: why methods are, that are.
        """
        gains = {name: self.gain(name) for name in self.methods if METHODS[name].paper != CONTROL}
        under = [name for name, gain in gains.items() if gain.high < 0]
        rows = [Row(f"{name} - {RANDOM}", points(gain, test=False), gain.high >= 0) for name, gain in gains.items()]
        rows += [Row(f"{name} is under random, since {reasons[name]}", "") for name in under if name in reasons]
        unexplained = [name for name in under if name not in reasons]
        return Requirement(
            8,
            "Made for no method",
            f"no published method is under random pruning of the same cost by more than its interval at {BUDGET} "
            f"tokens, or this page says why ({len(self.results.samples)} questions about {self.results.pictures} "
            f"pictures of the test split, random with {len(SEEDS)} seeds)",
            f"{len(under)} of {len(gains)} are ({', '.join(under) or 'none'}); "
            f"without a reason: {', '.join(unexplained) or 'none'}",
            not unexplained,
            rows,
        )


def ask_peers(
    bench: Bench, pictures: int, methods: Sequence[str] = tuple(METHODS), resamples: int = RESAMPLES
) -> Peers:
    """Let methods answer questions of the test split; answers are kept, so that a killed run goes on.

    Args:
        bench: the model.
        pictures: of the test split, the first ones.
        methods: names; random pruning before the decoder is always among them.
        resamples: of the bootstrap.

    Raises:
        InputError: there is no such method.
        ComputationError: the model fails on a sample.
    """
    model, processor, samples = bench.lean(), bench.processor, bench.samples("test", pictures)
    prompter, place = Prompter(processor, model), bench.root / "peers"
    depends = any(isinstance(method(name), ImageDependent) for name in methods)
    solving = by_class(bench.samples("selection", 2 * SOLVING), CLASSES, SOLVING, 0) if depends else {}
    images = Prompts(model, processor, prompter, tuple(sample for of in solving.values() for sample in of))
    solved, entrants = SolvedKnobs(place, {"samples a class": SOLVING}), []
    for name in dict.fromkeys((RANDOM, *methods)):
        try:
            entrants.append(_with_few_seeds(peer(model, method(name), BUDGET, images, solved)))
        except (BudgetError, ModelError) as error:
            note(f"{name} takes no part: {error}")
    with AnswerJournal(place, {"longest": LONGEST}) as journal:
        workers = InProcess(Answerer(model, processor, prompter, LONGEST), torch.get_num_threads())
        contest = hold_contest(workers, entrants, samples, journal, seed=0)
    scores = contest.comparison(BUDGET).scores
    names = [entrant.method for entrant in entrants]
    by_sample = {s.id: dict(zip(names, map(float, of), strict=True)) for s, of in zip(samples, scores.T, strict=True)}
    return Peers(Results(samples, by_sample, resamples=resamples), tuple(name for name in names if name != RANDOM))


def _with_few_seeds(entrant: Entrant) -> Entrant:
    return replace(entrant, seeds=entrant.seeds[: len(SEEDS)])
