"""``clasp-calib rules``."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated

import typer

from clasp_calib.commands.options import JsonOption, RulesOption, TaxonomyOption
from clasp_calib.commands.output import emit, say, show
from clasp_calib.commands.used_by import CheckedTyper, UsedBy
from clasp_calib.common.errors import InputError

if TYPE_CHECKING:
    from clasp_calib.router_labeling.judged_rules import JudgedRule
    from clasp_calib.router_labeling.labelers import Scheme

app = CheckedTyper(help="Look at keyword rules: what they decide and why, and which can never decide.")


@app.command("test")
def check(
    question: Annotated[str, typer.Argument(help="The question.")],
    rules: RulesOption = None,
    taxonomy: TaxonomyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which rule decides a question, by which phrase, and which others would have matched.

    Example: clasp-calib rules test "What number is on the jersey?"
    """
    from clasp_calib.router_labeling.lint import explain
    from clasp_calib.router_labeling.rules import load_rules
    from clasp_calib.router_labeling.taxonomy import load_taxonomy

    known = load_taxonomy(taxonomy)
    found = explain(load_rules(rules, known), question)
    intent = found.decides.intent if found.decides else known.default_intent
    matching = [
        {"rule": r.id, "intent": r.intent, "overrides": r.overrides, "phrases": list(phrases), "regex": r.pattern.regex}
        for r, phrases in zip(found.matching, found.phrases, strict=True)
    ]
    if as_json:
        emit({"seen_as": found.bare, "intent": intent, "class": known.class_of(intent), "matching": matching})
        return
    say(f"seen as: {found.bare}")
    say(f"intent {intent}, class {known.class_of(intent)}")
    if not found.decides:
        say("no rule matches")
        return
    rows = [
        [r.id, r.intent, "yes" if r.overrides else "no", shorten("; ".join(phrases), 60) or "(regular expression)"]
        for r, phrases in zip(found.matching, found.phrases, strict=True)
    ]
    show("rules that match; the first decides", ["rule", "intent", "corrects a model", "by"], rows)


@app.command()
def lint(
    rules: RulesOption = None,
    taxonomy: TaxonomyOption = None,
    against: Annotated[
        Path | None,
        typer.Option(help="Questions with classes by hand, as 'label' writes them: find rules that do harm."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the rules here without those that lose."), UsedBy("against")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find rules and phrases that can never decide, and unused word lists.

    With --against, also find rules that are wrong more often than what they stand in for: a labeler's answer (column
    'raw') for rules that override, the other rules elsewhere. Classes by hand are in the column 'gold_class', or in
    rows of source 'gold'. A rule is said to lose if an exact sign test supports it (one-sided, 5 %). Ends with 1 if a
    rule can never decide, or loses.

    Example: clasp-calib rules lint
    """
    from clasp_calib.router_labeling.labelers import load_scheme
    from clasp_calib.router_labeling.lint import shadowed, unused_word_lists

    scheme = load_scheme(taxonomy, rules)
    known = scheme.rules
    found, unused = shadowed(known), unused_word_lists(known)
    dead = sorted({entry.rule for entry in found if entry.whole_rule})
    judged = [] if against is None else _judged(against, scheme)
    lost = [one for one in judged if one.loses]
    kept = out is not None and _write_without(lost, rules, out)
    if as_json:
        told = {"rules": len(known.rules), "dead": dead, "shadowed": [vars(e) for e in found], "unused_words": unused}
        if against is not None:
            told |= {"judged": [{**vars(one), "chance": one.chance, "loses": one.loses} for one in judged]}
        emit(told if out is None else {**told, "out": out, "comments_kept": kept})
    else:
        if found:
            rows = [[e.rule, e.phrase, ", ".join(e.by)] for e in found]
            show("phrases that can never decide", ["rule", "phrase", "earlier rules that match"], rows)
        for name in dead:
            say(f"rule {name!r} can never decide: move it up, or remove it")
        for name in unused:
            say(f"no phrase uses the word list {name!r}: remove it")
        if judged:
            _show_judged(judged)
        counted = f"{len(dead)} dead, {len(found)} phrases shadowed, {len(unused)} lists unused"
        say(f"{len(known.rules)} rules: {counted}" + ("" if against is None else f", {len(lost)} losing"))
        if out:
            say(
                f"written to {out}"
                + ("" if kept else " anew, without comments: its rules stood in no lines of their own")
            )
    if dead or lost:
        raise typer.Exit(1)


def _judged(against: Path, scheme: "Scheme") -> "list[JudgedRule]":
    from clasp_calib.common.sample_sources import load_samples
    from clasp_calib.router_labeling.judged_rules import judged_rules

    return judged_rules(load_samples(against), scheme)


def _write_without(lost: "Sequence[JudgedRule]", rules: Path | None, out: Path) -> bool:
    """Write the rule file without those; whether the rest of it is as it was."""
    from clasp_calib.common.replacing import replaced
    from clasp_calib.router_labeling.judged_rules import OVERRIDING
    from clasp_calib.router_labeling.rule_file_edits import edited_rules

    harmful = {one.rule for one in lost if one.role != OVERRIDING}
    text, kept = edited_rules(rules, harmful, {one.rule for one in lost} - harmful)
    try:
        with replaced(out) as partial:
            partial.write_bytes(text.encode())
    except OSError as error:
        raise InputError(f"cannot write the rules to {out} ({error}); give another place") from error
    return kept


def _show_judged(judged: "Sequence[JudgedRule]") -> None:
    from clasp_calib.router_labeling.judged_rules import OVERRIDING

    show(
        "rules on questions with classes by hand, each as if all others stayed",
        ["rule", "in place of", "decides", "right", "right without it", "won", "lost", "by chance"],
        [
            [
                one.rule,
                "the labeler" if one.role == OVERRIDING else "other rules",
                *map(str, (one.questions, one.right, one.right_without, one.won, one.lost)),
                f"{one.chance:.3f}" if one.lost > one.won else "-",
            ]
            for one in judged
        ],
    )
    for one in judged:
        if one.loses:
            mend = "take its 'overrides' off" if one.role == OVERRIDING else "mend or remove it"
            say(f"rule {one.rule!r} loses {one.lost} questions and wins {one.won}: {mend}")
