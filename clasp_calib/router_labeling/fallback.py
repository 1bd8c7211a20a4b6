"""What names the class of a question where there is no router: the packaged keyword rules."""

from collections.abc import Collection
from functools import cache

from clasp_calib.router_labeling.labelers import Scheme, load_scheme


@cache
def packaged_scheme() -> Scheme:
    """Read once: compiling the rules takes longer than routing thousands of questions."""
    return load_scheme()


def rules_apply(classes: Collection[str]) -> bool:
    """Whether the packaged rules lead to classes that there are."""
    return {*packaged_scheme().taxonomy.classes} <= {*classes}


def by_rules(question: str) -> str:
    """The class that the packaged rules give a question: the default one where none of them matches."""
    scheme = packaged_scheme()
    rule = scheme.rules.match(question)
    return scheme.taxonomy.class_of(rule.intent) if rule else scheme.taxonomy.default_class
