"""Who scores for a study, and where scores are kept until it ends."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clasp_calib.api.studied import Studied
from clasp_calib.common.places import Places

if TYPE_CHECKING:
    from clasp_calib.calib.scoring.evaluator import Evaluator
    from clasp_calib.calib.scoring.score_tasks import EvaluatorRecipe
    from clasp_calib.calib.studies.scorer import ScoreLedger, Scorer
    from clasp_calib.common.samples import Sample
    from clasp_calib.crew.crew import Crew


@dataclass(frozen=True)
class Scoring:
    """What a study scores with."""

    evaluator: "Evaluator"
    """Of this process."""
    ledger: "ScoreLedger"
    """What is scored."""
    crew: "Crew"
    recipe: "Callable[[], EvaluatorRecipe]"
    """Of the same evaluator elsewhere."""

    @contextmanager
    def scorer(self) -> "Iterator[Scorer]":
        """A scorer whose workers end with the block.

        Raises:
            InputError: Ray is not installed, or there is no cluster at the address.
        """
        from clasp_calib.calib.studies.scorer import Scorer
        from clasp_calib.crew.crew import crew_for

        with closing(crew_for(self.crew, self.evaluator, self.recipe)) as workers:
            yield Scorer(workers, self.ledger)


@contextmanager
def scores_kept(
    model: Any, processor: Any, of: Studied, shown: "Sequence[Sample]", places: Places, crew: "Crew", **asked: str
) -> "Iterator[Scoring]":
    """What to score a study's artifact with; ``asked`` tells one study's scores from another's.

    ``shown`` are its samples in all their sizes, see `clasp_calib.calib.studies.evaluation.shown_by`. Scores are kept
    until the block, which writes what comes of them, has ended well.

    Raises:
        CacheError: a picture or a layer is not cached.
        StudyError: the scores that there are cannot be used, or another process is writing to them.
    """
    from clasp_calib.calib.scoring.feature_sources import open_source
    from clasp_calib.calib.scoring.score_tasks import EvaluatorRecipe, ModelRecipe
    from clasp_calib.calib.scoring.scores import SCORING
    from clasp_calib.calib.studies.evaluation import evaluator_for, layers_used
    from clasp_calib.calib.studies.scorer import ScoreLedger
    from clasp_calib.common.progress import note

    manifest = of.artifact.manifest
    source = open_source(places.features, model, processor)
    evaluator = evaluator_for(model, processor, of.artifact, shown, source)
    identity = {
        **of.identity(model, processor, crew.threads),
        **asked,
        "scoring": SCORING,
        "encoder": source.encoder,
        "precision": source.precision,
    }

    def recipe() -> EvaluatorRecipe:
        return EvaluatorRecipe(
            model=ModelRecipe.of(model, processor, crew.threads),
            prompt=manifest.prompt,
            cache=places.features,
            layers=layers_used(model, of.artifact),
            max_new_tokens=manifest.decoding.max_new_tokens,
        )

    with ScoreLedger(places.evaluation, identity) as ledger:
        if known := len(ledger):
            note(f"going on with the scores of {known} tasks in {ledger.path}")
        yield Scoring(evaluator, ledger, crew, recipe)
        ledger.discard()
