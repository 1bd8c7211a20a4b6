"""Who scores for a study, and where scores are kept until it ends."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from clasp_calib.api.studied import Studied
from clasp_calib.common.places import Places

if TYPE_CHECKING:
    from clasp_calib.calib.scoring.evaluator import Evaluator
    from clasp_calib.calib.studies.scorer import Scorer
    from clasp_calib.crew.crew import Crew


@contextmanager
def scoring(
    model: Any, processor: Any, of: Studied, places: Places, crew: "Crew"
) -> "Iterator[tuple[Scorer, Evaluator]]":
    """A scorer of a study's artifact on its samples, and the evaluator of this process.

    What was scored is kept where the block fails.

    Raises:
        CacheError: a picture or a layer is not cached.
        InputError: Ray is not installed, or there is no cluster at the address.
        StudyError: the scores that there are cannot be used, or another process is writing to them.
    """
    from clasp_calib.calib.scoring.feature_sources import open_source
    from clasp_calib.calib.scoring.score_tasks import EvaluatorRecipe, ModelRecipe
    from clasp_calib.calib.scoring.scores import SCORING
    from clasp_calib.calib.studies.evaluation import evaluator_for, layers_used
    from clasp_calib.calib.studies.scorer import ScoreLedger, Scorer
    from clasp_calib.common.progress import note
    from clasp_calib.crew.crew import crew_for

    manifest = of.artifact.manifest
    source = open_source(places.features, model, processor)
    evaluator = evaluator_for(model, processor, of.artifact, of.questions, source)
    identity = {
        **of.identity(model, crew.threads),
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
        with closing(crew_for(crew, evaluator, recipe)) as workers:
            yield Scorer(workers, ledger), evaluator
        ledger.discard()
