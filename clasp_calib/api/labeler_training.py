"""Training a labeler: a head on a sentence embedding, from questions whose intents are known."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from clasp_calib.common.errors import InputError
from clasp_calib.common.progress import note, progress
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.router_labeling.embedders import MiniLM, TransformersEmbedder
from clasp_calib.router_labeling.head_training import Intended, train_head
from clasp_calib.router_labeling.intent_head import write_head
from clasp_calib.router_labeling.labelers import load_scheme
from clasp_calib.router_labeling.training import FOLDS, UNPLACED

if TYPE_CHECKING:
    from clasp_calib.router_labeling.intent_head import IntentHead
    from clasp_calib.router_labeling.rules import RuleSet
    from clasp_calib.router_labeling.taxonomy import Taxonomy

IDLE = (UNPLACED, "rule")
"""Sources of labels that teach nothing."""


def train_labeler(
    samples: Any,
    out: str | Path | None = None,
    *,
    embedder: str | None = None,
    revision: str | None = None,
    taxonomy: "Taxonomy | str | Path | None" = None,
    rules: "RuleSet | str | Path | None" = None,
    rules_weight: float | None = None,
    seed: int = 0,
) -> "IntentHead":
    """Train what `EmbeddingLabeler` labels by: for a taxonomy of your own, another language, or more questions.

    Args:
        samples: with intents, as `load_samples` takes them. A sample with a class alone has the intent of its class, if
            the class has one only. Others without an intent are passed over, which is said. So is what a labeler could
            not place, and what keyword rules labelled: these vote in any case.
        out: file to write.
        embedder: directory or Hub id of an encoder; by default all-MiniLM-L6-v2, which knows English.
        revision: commit or tag of that Hub id.
        taxonomy: the intents, a YAML file; by default the packaged ones.
        rules: keyword rules, which vote; by default the packaged ones.
        rules_weight: what their vote has of the probability, in [0, 1); by default what fits the samples best, which is
            too much if the rules were made on the same ones.
        seed: of the division into folds.

    Returns:
        The head; ``quality`` says how it does on questions that it was not trained on.

    Raises:
        InputError: scikit-learn is missing; there are too few questions with intents; or intents or classes are of
            another taxonomy or at odds.
        LabelerError: the embedder cannot be used.
    """
    if revision is not None and embedder is None:
        raise InputError(f"revision {revision!r} is given without an embedder; name the one that it is of")
    if rules_weight is not None and not (isinstance(rules_weight, int | float) and 0 <= rules_weight < 1):
        raise InputError(f"rules_weight is {rules_weight!r}; expected a share, from 0 to below 1")
    scheme = load_scheme(taxonomy, rules)
    table = load_samples(samples).table
    columns = ("question", "intent", "class", "source")
    rows = table.select([name for name in columns if name in table.column_names]).to_pylist()
    given = [(row, None if row.get("source") in IDLE else _intent(row, scheme.taxonomy)) for row in rows]
    named = [Intended(row["question"], intent) for row, intent in given if intent is not None]
    if len(named) < len(rows):
        ruled = sum(row.get("source") == "rule" for row in rows)
        note(
            f"{len(rows) - len(named)} of {len(rows)} rows are passed over: {ruled} that keyword rules labelled, and "
            "others that have no intent or that a labeler could not place"
        )
    vectors = MiniLM() if embedder is None else TransformersEmbedder(embedder, revision)
    with progress() as bar:
        task = bar.add_task("fitting", total=FOLDS + 2)
        head = train_head(named, scheme, vectors, rules_weight=rules_weight, seed=seed, step=lambda: bar.advance(task))
    if out is not None:
        write_head(head, Path(out))
    return head


def _intent(row: dict[str, Any], taxonomy: "Taxonomy") -> str | None:
    """What a row says, or the only intent of its class."""
    intent, class_ = row.get("intent"), row.get("class")
    if class_ is not None and class_ not in taxonomy.classes:
        raise InputError(f"{row['question']!r:.80} has the class {class_!r}; expected {', '.join(taxonomy.classes)}")
    if intent is not None:
        if class_ not in (None, taxonomy.class_of(intent)):
            raise InputError(
                f"{row['question']!r:.80} has the class {class_!r}, but its intent {intent!r} belongs to "
                f"{taxonomy.class_of(intent)!r}; mend it"
            )
        return str(intent)
    of = [name for name, about in taxonomy.intents.items() if about.class_ == class_]
    return of[0] if len(of) == 1 else None
