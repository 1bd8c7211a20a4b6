"""One class's search on made-up scores: no model, real journal, real study."""

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Pruning
from clasp_calib.calib.scoring.scores import Scores
from clasp_calib.common.samples import Sample
from clasp_calib.search.identity import Identity
from clasp_calib.search.local_workers import InProcess
from clasp_calib.search.measuring import Desk, Measuring
from clasp_calib.search.optuna_study import FILE, Study, open_storage
from clasp_calib.search.parts import ClassSamples
from clasp_calib.search.score_journal import ScoreJournal
from clasp_calib.search.watchers import Watcher

PRUNING = Pruning(None)


def samples(split, count, pictures=None):
    """Samples ``split/0`` ...; each has a picture of its own, or they share some."""
    return tuple(Sample(f"{i}", "?", f"{split}-{i % (pictures or count)}", ("yes",), split=split) for i in range(count))


def candidates(count):
    """The default ``own/rho=1`` and ``p1`` to ``pN``, each a mixture of its own."""
    return [Candidate("own", (1.0, 0.0), 1.0), *(Candidate(f"p{i}", (1.0, i / 1000), 0.5) for i in range(1, count))]


class Fake:
    """Scores by ``worth(split, candidate's number, sample's number)``; ends the process' life after ``life`` calls."""

    def __init__(self, worth, life=10**9, nll=False):
        self.worth, self.life, self.nll, self.asked = worth, life, nll, []

    def scores(self, sample, live, pruning, generate):
        assert pruning == PRUNING
        assert generate == (sample.split == "selection")
        if self.life == 0:
            raise KeyboardInterrupt
        self.life -= 1
        numbers = [0 if c.prototype == "own" else int(c.prototype[1:]) for c in live]
        self.asked += [(number, f"{sample.split}/{sample.id}") for number in numbers]
        score = tuple(float(self.worth(sample.split, number, int(sample.id))) for number in numbers)
        return Scores(score, tuple(2 - value for value in score) if self.nll else None)


def desk(root, count=6, calibration=12, selection=12, watcher=None, budget="8", objective="metric"):
    """What all classes of a search share, of one class; scores are in a directory, or in memory for None."""
    selected = samples("selection", selection) if isinstance(selection, int) else selection
    part = ClassSamples(samples("calibration", calibration), selected)
    contents = {sample.id: f"content of {sample.id}" for sample in part.calibration + part.selection}
    identity = Identity({"prompt": "p", "weights": "w"}, contents, {"object": f"{calibration}"}, "space", objective)
    journal = ScoreJournal(root)
    return Desk(budget, PRUNING, candidates(count), {"object": part}, identity, journal, watcher or Watcher())


def measuring(root, fake, **more):
    """Everything that `search_class` needs, in a directory."""
    shown = Study(open_storage(f"{FILE}{root / 'journal.log'}"), "shown", (0, 1))
    return Measuring(desk(root, **more), "object", shown, InProcess(fake))
