"""``clasp-calib train-labeler``."""

from pathlib import Path
from typing import Annotated

import typer

from clasp_calib.commands.options import JsonOption, RulesOption, SeedOption, TaxonomyOption
from clasp_calib.commands.output import emit, say
from clasp_calib.commands.used_by import UsedBy


def train_labeler(
    labels: Annotated[Path, typer.Argument(help="Questions with an intent each: Parquet, JSONL or CSV.")],
    out: Annotated[Path, typer.Option(help="The head, for `label --backend embedding --head`.")],
    embedder: Annotated[
        str | None, typer.Option(help="Encoder, a directory or Hub id; default: all-MiniLM-L6-v2, English.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of that Hub id."), UsedBy("embedder")] = None,
    taxonomy: TaxonomyOption = None,
    rules: RulesOption = None,
    rules_weight: Annotated[
        float | None,
        typer.Option(min=0, max=0.99, help="Share of the rules' vote; default: what fits held-out questions best."),
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a labeler that needs no language model: a linear head on a sentence embedding.

    The packaged labeler knows the packaged intents in English. Train one for a taxonomy of your own or another
    language. It is judged by cross-validation over five folds, near-duplicates in one.

    Example: clasp-calib train-labeler my-questions.jsonl --out my-head.safetensors
    """
    from dataclasses import asdict

    from clasp_calib.api.labeler_training import train_labeler as train

    head = train(
        labels,
        out,
        embedder=embedder,
        revision=revision,
        taxonomy=taxonomy,
        rules=rules,
        rules_weight=rules_weight,
        seed=seed,
    )
    quality = head.quality
    if as_json:
        told = {"temperature": head.temperature, "rules_weight": head.rules_weight, "held_out": asdict(quality)}
        emit({"head": out, "bytes": out.stat().st_size, "questions": head.questions, **told})
        return
    say(f"{head.questions} questions, {len(head.intents)} intents")
    say(
        f"held out, it gives {quality.accuracy:.1%} of {quality.questions} questions the class of their intent (mean "
        f"over classes {quality.macro:.1%}); calibration error {quality.calibration_error:.1%}"
    )
    say(f"the rules' vote has {head.rules_weight:.2f} of the probability")
    told = {"embedder": embedder, "embedder-revision": revision, "taxonomy": taxonomy, "rules": rules}
    given = "".join(f" --{name} {value}" for name, value in told.items() if value)
    say(f"head in {out}; next: clasp-calib label SAMPLES --backend embedding --head {out}{given}")
