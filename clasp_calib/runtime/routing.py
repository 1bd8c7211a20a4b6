"""Which class a question belongs to, where nobody says it."""

from collections.abc import Sequence
from functools import cache

from clasp_calib.router_labeling.router import Router
from clasp_calib.router_labeling.rules import RuleSet, load_rules
from clasp_calib.router_labeling.taxonomy import Taxonomy, load_taxonomy

AUTO = "auto"


def classes_of(questions: Sequence[str], router: Router | None = None) -> list[str]:
    """The class of every question.

    Args:
        questions: without picture and template.
        router: an artifact's. Without one the packaged keyword rules answer; where none of them applies, it is the
            taxonomy's default class.
    """
    if router is not None:
        return [router.route(question).label for question in questions]
    taxonomy, rules = _packaged()
    found = [rules.match(question) for question in questions]
    return [taxonomy.class_of(rule.intent) if rule else taxonomy.default_class for rule in found]


@cache
def _packaged() -> tuple[Taxonomy, RuleSet]:
    """Read once: compiling the rules takes longer than routing thousands of questions."""
    taxonomy = load_taxonomy()
    return taxonomy, load_rules(None, taxonomy)
