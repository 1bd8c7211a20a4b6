"""``clasp-calib rules``."""

from typing import Annotated

import typer

from clasp_calib.commands.options import JsonOption, RulesOption, TaxonomyOption
from clasp_calib.commands.output import emit, say, show
from clasp_calib.commands.used_by import CheckedTyper

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
        [r.id, r.intent, "yes" if r.overrides else "no", "; ".join(phrases) or "(regular expression)"]
        for r, phrases in zip(found.matching, found.phrases, strict=True)
    ]
    show("rules that match; the first decides", ["rule", "intent", "corrects a model", "by"], rows)


@app.command()
def lint(
    rules: RulesOption = None,
    taxonomy: TaxonomyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find rules and phrases that can never decide, and unused word lists. Ends with 1 if a rule can never decide.

    Example: clasp-calib rules lint
    """
    from clasp_calib.router_labeling.lint import shadowed, unused_word_lists
    from clasp_calib.router_labeling.rules import load_rules
    from clasp_calib.router_labeling.taxonomy import load_taxonomy

    known = load_rules(rules, load_taxonomy(taxonomy))
    found, unused = shadowed(known), unused_word_lists(known)
    dead = sorted({entry.rule for entry in found if entry.whole_rule})
    if as_json:
        emit({"rules": len(known.rules), "dead": dead, "shadowed": [vars(e) for e in found], "unused_words": unused})
    else:
        if found:
            rows = [[e.rule, e.phrase, ", ".join(e.by)] for e in found]
            show("phrases that can never decide", ["rule", "phrase", "earlier rules that match"], rows)
        for name in dead:
            say(f"rule {name!r} can never decide: move it up, or remove it")
        for name in unused:
            say(f"no phrase uses the word list {name!r}: remove it")
        say(f"{len(known.rules)} rules: {len(dead)} dead, {len(found)} phrases shadowed, {len(unused)} lists unused")
    if dead:
        raise typer.Exit(1)
