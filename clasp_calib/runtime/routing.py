"""Which class a question belongs to, where nobody says it."""

from collections.abc import Sequence

from clasp_calib.router_labeling.rules import load_rules
from clasp_calib.router_labeling.taxonomy import load_taxonomy

AUTO = "auto"


def classes_of(questions: Sequence[str]) -> list[str]:
    """The packaged keyword rules' class of every question; the taxonomy's default class where none applies."""
    taxonomy = load_taxonomy(None)
    rules = load_rules(None, taxonomy)
    found = [rules.match(question) for question in questions]
    return [taxonomy.class_of(rule.intent) if rule else taxonomy.default_class for rule in found]
