"""What models of several seeds are compared by: settings and differences that do not depend on their scores."""

from collections.abc import Sequence

from clasp_calib.search.space import OWN
from tools.reference.measuring.evidence import Paired
from tools.reference.measuring.results import Results
from tools.reference.measuring.settings import (
    ABLATED_BUDGET,
    BUDGETS,
    MIXTURE_BUDGET,
    MIXTURE_RHO,
    RANDOM,
    SHALLOW,
    SHUFFLED,
    STAGES,
    UNPRUNED,
    Plan,
    ablated,
    at_rho,
    mixed,
    unpruned,
)

RHO = MIXTURE_RHO
"""The ratio wherever the report has one that was chosen."""
MIXTURE = "hybrid"
"""Half the own layer, half the lowest: the search's own prototype."""
FINE_CLASSES = ("attribute", "text")
"""Those that ask for what the own layer was trained not to keep: patterns, letters and digits."""
END_BUDGETS = (128, 64)
"""Where choosing by coverage alone (rho 0) is compared with choosing by relevance alone (rho 1)."""


def seed_plan(classes: Sequence[str]) -> Plan:
    """The same for all classes; the report measures most of it too, under the same names."""
    settings = [UNPRUNED, SHUFFLED, unpruned(MIXTURE), mixed(OWN), mixed(SHALLOW), *RANDOM.values()]
    settings += [at_rho(budget, RHO) for budget in BUDGETS]
    settings += [at_rho(budget, rho) for budget in END_BUDGETS for rho in (0.0, 1.0)]
    settings += [ablated(stage, RHO) for stage in STAGES]
    return dict.fromkeys(classes, tuple(dict.fromkeys(settings)))


def macro_differences(test: Results) -> dict[str, Paired]:
    """What is lost and gained in the mean over classes, and by the mixture in `FINE_CLASSES`.

    Raises:
        InputError: something was not measured.
    """
    found = {"unpruned - shuffled": test.macro(UNPRUNED, SHUFFLED)}
    for budget in BUDGETS:
        found[f"unpruned - random at {budget}"] = test.macro(UNPRUNED, RANDOM[budget])
    for budget in BUDGETS:
        found[f"unpruned - rho {RHO:g} at {budget}"] = test.macro(UNPRUNED, at_rho(budget, RHO))
    found[f"own layer - {SHALLOW} alone, at {MIXTURE_BUDGET}"] = test.macro(mixed(OWN), mixed(SHALLOW))
    gain = f"{MIXTURE} - own layer, unpruned"
    for label in FINE_CLASSES:
        if label in test.classes:
            found[f"{gain}: {label}"] = test.difference(label, unpruned(MIXTURE), UNPRUNED)
    found[f"{gain}: macro"] = test.macro(unpruned(MIXTURE), UNPRUNED)
    for stage in STAGES:
        name = f"rho {RHO:g} - random at stage {stage}, at {ABLATED_BUDGET}"
        found[name] = test.macro(at_rho(ABLATED_BUDGET, RHO), ablated(stage, RHO))
    return found


def rho_differences(test: Results) -> dict[str, Paired]:
    """Rho 0 minus rho 1 by budget and class; p values are corrected over the classes of a budget.

    Raises:
        InputError: something was not measured.
    """
    return {
        f"{budget}, {label}": one
        for budget in END_BUDGETS
        for label, one in test.differences(at_rho(budget, 0.0), at_rho(budget, 1.0)).items()
    }
