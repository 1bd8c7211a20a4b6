"""The settings that the reference model is measured under, by name, and which of them each split needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clasp_calib.common.errors import InputError
from clasp_calib.search.space import OWN, default_space
from tools.reference.measuring.choosing import Choices

BUDGETS = (192, 128, 64)
RHOS = (0.0, 0.25, 0.5, 0.75, 1.0)
STAGES = (2, 6, 15)
"""First decoder layers of the pruning stages."""
MIXTURE_BUDGET, MIXTURE_RHO = 192, 0.5
"""What mixtures are compared at."""
ABLATED_BUDGET = 128
"""Where the selection of one stage is replaced by a random one."""

Alpha = tuple[float, ...]
Plan = Mapping[str, tuple["Setting", ...]]
"""Class -> what its questions are scored under."""


@dataclass(frozen=True)
class Setting:
    """One way to answer. ``budget`` of ``None`` keeps all tokens."""

    budget: int | None = None
    mixture: str = OWN
    rho: float = 1.0
    random: tuple[int, ...] = ()
    """Start layers of the stages that keep as many tokens at random."""
    shuffled: bool = False
    """The question is asked about another scene's picture; only unpruned."""

    @property
    def name(self) -> str:
        """Unique; what scores are recorded under."""
        if self.budget is None:
            unpruned = "unpruned" if self.mixture == OWN else f"unpruned/{self.mixture}"
            return "shuffled" if self.shuffled else unpruned
        if self.random == STAGES:
            return f"{self.budget}/random"
        ablated = f"/random at {','.join(map(str, self.random))}" if self.random else ""
        return f"{self.budget}/{self.mixture}/rho={self.rho:g}{ablated}"


UNPRUNED, SHUFFLED = Setting(), Setting(shuffled=True)
RANDOM = {budget: Setting(budget, random=STAGES) for budget in BUDGETS}


def at_rho(budget: int, rho: float) -> Setting:
    """The model's own layer at a ratio."""
    return Setting(budget, rho=rho)


def mixed(mixture: str) -> Setting:
    """A mixture where mixtures are compared; `OWN` is what they are compared with."""
    return Setting(MIXTURE_BUDGET, mixture, MIXTURE_RHO)


def unpruned(mixture: str) -> Setting:
    """All tokens of a mixture: what a pruned mixture is compared with to see what pruning alone does."""
    return Setting(mixture=mixture)


def ablated(stage: int, rho: float) -> Setting:
    """Random selection at one stage, where stages are ablated; compared with `at_rho` of the same budget and ratio."""
    return Setting(ABLATED_BUDGET, rho=rho, random=(stage,))


def mixtures_of(vision_layers: int, own_layer: int) -> dict[str, Alpha]:
    """Mixtures over ``hidden_states`` 0..L_v by name: the own layer, the search's prototypes, every shallower layer.

    Args:
        vision_layers: L_v.
        own_layer: the layer that the model's projector was trained on.

    Raises:
        InputError: the own layer is the embeddings.
    """
    if own_layer < 1:
        raise InputError(f"the model's own vision layer is {own_layer}; expected one behind the embeddings")
    layers = range(1, own_layer + 1)
    found = {p.name: p.weights for p in default_space(layers, own_layer).prototypes}
    found |= {layer_name(layer): {layer: 1.0} for layer in layers if layer < own_layer}
    return {name: tuple(weights.get(i, 0.0) for i in range(vision_layers + 1)) for name, weights in found.items()}


def layer_name(layer: int) -> str:
    """What the mixture of one layer alone is called."""
    return f"layer {layer}"


SHALLOW = layer_name(1)
"""The lowest cached layer alone."""


def selection_plan(mixtures: Sequence[str], classes: Sequence[str]) -> Plan:
    """Everything, for all classes."""
    everything = (
        UNPRUNED,
        *(at_rho(budget, rho) for budget in BUDGETS for rho in RHOS),
        *RANDOM.values(),
        *(of(name) for name in mixtures if name != OWN for of in (mixed, unpruned)),
    )
    return dict.fromkeys(classes, everything)


def comparison_plan(choices: Choices, classes: Sequence[str]) -> Plan:
    """What the requirements compare, given what was chosen on the selection split."""
    plan = {}
    for label in classes:
        of = [UNPRUNED, SHUFFLED, *RANDOM.values(), mixed(OWN), mixed(SHALLOW), mixed(choices.mixture[label])]
        for budget in BUDGETS:
            of.append(at_rho(budget, choices.best[budget][label]))
        for budget in choices.rho_budgets:
            of.append(at_rho(budget, choices.worst[budget][label]))
            if label in (pair := choices.pairs[budget]):
                of += [at_rho(budget, choices.best[budget][other]) for other in pair]
        of += [ablated(stage, choices.best[ABLATED_BUDGET][label]) for stage in STAGES]
        plan[label] = tuple(dict.fromkeys(of))
    return plan


def control_plan(classes: Sequence[str]) -> Plan:
    """No pruning, with the right picture and with a wrong one."""
    return dict.fromkeys(classes, (UNPRUNED, SHUFFLED))
