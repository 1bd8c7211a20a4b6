"""``clasp-calib route``."""

from pathlib import Path
from typing import Annotated

import typer

from clasp_calib.commands.options import DEFAULT_RUN, JsonOption, RunOption
from clasp_calib.commands.output import emit, say, show
from clasp_calib.commands.used_by import UnusedWith
from clasp_calib.common.errors import InputError
from clasp_calib.common.run_directory import RunDirectory


def route(
    question: Annotated[str, typer.Argument(help="The question.")],
    run: RunOption = DEFAULT_RUN,
    router: Annotated[
        Path | None,
        typer.Option(help="A router file; default: router.safetensors of the run, or keyword rules if there is none."),
        UnusedWith("artifact"),
    ] = None,
    artifact: Annotated[
        Path | None, typer.Option(help="Use the router of this artifact: a directory or org/name@version.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say which class a question gets, how sure that is, and why: the n-grams that weighed most.

    Example: clasp-calib route "How many dogs are there?" --run my-run
    """
    from dataclasses import asdict

    from clasp_calib.router_labeling.lint import explain
    from clasp_calib.router_labeling.router_file import load_router
    from clasp_calib.router_labeling.rules import load_rules
    from clasp_calib.router_labeling.taxonomy import load_taxonomy

    known = None
    if artifact is not None:
        from clasp_calib.artifacts.artifact import Artifact

        known = Artifact.load(artifact).router
        if known is None:
            raise InputError(f"the artifact {artifact} has no router; give one with --router")
    elif router is not None or RunDirectory(run).router.is_file():
        known = load_router(router or RunDirectory(run).router)
    if known is None:
        taxonomy = load_taxonomy()
        found = explain(load_rules(None, taxonomy), question)
        intent = found.decides.intent if found.decides else taxonomy.default_intent
        label, phrases = taxonomy.class_of(intent), list(found.phrases[0]) if found.decides else []
        rule = found.decides.id if found.decides else None
        if as_json:
            emit({"class": label, "confidence": None, "by": "keyword rules", "rule": rule, "phrases": phrases})
            return
        why = f"keyword rule {rule!r} ({'; '.join(phrases) or 'regular expression'})" if rule else "no keyword rule"
        say(f"class {label}: {why}; there is no router in {run}, train one with `clasp-calib train-router`")
        return
    decision = known.route(question)
    reasons = known.reasons(question, decision.likeliest)
    if as_json:
        emit(
            {
                "class": decision.label,
                "confidence": decision.confidence,
                "by": "router",
                "abstained": decision.abstained,
                "likeliest": decision.likeliest,
                "probabilities": dict(zip(known.classes, known.probabilities(question).tolist(), strict=True)),
                "reasons": [asdict(reason) for reason in reasons],
            }
        )
        return
    if decision.abstained:
        say(
            f"class {decision.label}: the router abstains, since {decision.likeliest} has {decision.confidence:.1%}, "
            f"less than {known.threshold:.0%}"
        )
    else:
        say(f"class {decision.label}, confidence {decision.confidence:.1%}")
    rows = [[repr(reason.ngram), f"{reason.weight:+.3f}"] for reason in reasons]
    show(f"what spoke most for {decision.likeliest} (^ and $ are the ends of the question)", ["n-gram", "weight"], rows)
