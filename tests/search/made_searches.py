"""Searches on made-up scores: no model, real journal, real study."""

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Pruning
from clasp_calib.calib.scoring.scores import Scores
from clasp_calib.common.samples import Sample
from clasp_calib.crew.local_workers import InProcess
from clasp_calib.search.identity import Identity
from clasp_calib.search.measuring import Desk, Measuring
from clasp_calib.search.score_journal import ScoreJournal
from clasp_calib.search.session import Session
from clasp_calib.search.shown import Trials
from clasp_calib.search.strategies.grid import Grid
from clasp_calib.search.watchers import Watcher

PRUNING = Pruning(None)


def samples(label, count):
    """Samples ``label 0`` ..., each of a picture of its own."""
    return tuple(Sample(f"{label} {i}", "?", f"{label}-{i}", ("yes",), split="calibration") for i in range(count))


def candidates(count):
    """The default ``own/rho=1`` and ``p1`` to ``pN``, each a mixture of its own."""
    return [Candidate("own", (1.0, 0.0), 1.0), *(Candidate(f"p{i}", (1.0, i / 1000), 0.5) for i in range(1, count))]


class Fake:
    """Scores by ``worth(class, candidate's number, sample's number)``; ends the process' life after ``life`` calls."""

    def __init__(self, worth, life=10**9, nll=False):
        self.worth, self.life, self.nll, self.asked = worth, life, nll, []

    def scores(self, sample, live, pruning):
        assert pruning == PRUNING
        if self.life == 0:
            raise KeyboardInterrupt
        self.life -= 1
        numbers = [0 if c.prototype == "own" else int(c.prototype[1:]) for c in live]
        self.asked += [(number, sample.id) for number in numbers]
        label, sample_number = sample.id.split()
        score = tuple(float(self.worth(label, number, int(sample_number))) for number in numbers)
        return Scores(score, tuple(2 - value for value in score) if self.nll else None)


def noise(label, number, sample):
    """A right answer in a third of all cases, in no order."""
    return hash((sum(map(ord, label)), number, sample)) % 3 == 0


def desk(root, classes=(("object", 12),), count=6, budget="8", objective="metric"):
    """What does not change while classes of so many samples are searched; scores are in a directory, or in memory."""
    pools = {label: samples(label, size) for label, size in classes}
    contents = {sample.id: f"content of {sample.id}" for pool in pools.values() for sample in pool}
    parts = {label: f"{len(pool)}" for label, pool in pools.items()}
    identity = Identity({"prompt": "p", "budget": budget}, contents, parts, "space", objective)
    return Desk(budget, PRUNING, candidates(count), pools, identity, ScoreJournal(root))


def measuring(root, fake, **more):
    """Everything that a strategy asks, in a directory."""
    at = desk(root, **more)
    shown = dict.fromkeys(at.pools, Trials())
    return Measuring(at, InProcess(fake), Watcher(), shown, lambda samples: samples * len(at.candidates))


def session(root, strategy=Grid(), watcher=None, cautious=None, refine=False, **more):  # noqa: B008
    """A session, whose desk has an open journal."""
    return Session(desk(root, **more), strategy, 0, cautious, refine, lambda name: Trials(), watcher or Watcher())


def searched(root, fake, strategy=Grid(), fed=(), **more):  # noqa: B008
    """What a search finds; the journal is closed whatever happens."""
    one = session(root, strategy, **more)
    try:
        return one.search(InProcess(fake), fed)
    finally:
        one.desk.journal.close()
