"""One after the other, as the paper did: the mixture at a fixed rho, then rho for the mixture that won."""

from dataclasses import dataclass

from clasp_calib.common.settings import check_number
from clasp_calib.search.strategies.class_by_class import ClassByClass, OneClass, Questions
from clasp_calib.search.strategies.strategy import DEFAULT, ranked


@dataclass(frozen=True)
class TwoStep(ClassByClass):
    """Takes as many evaluations as there are mixtures and ratios, not their product; blind to how they interact."""

    rho: float = 0.5
    """Mixtures are compared at the ratio of the space that is nearest to this. Our choice: the paper's is not given."""

    def __post_init__(self) -> None:
        """Refuse what is no ratio.

        Raises:
            InputError: it is none.
        """
        check_number("rho", self.rho, lambda rho: 0 <= rho <= 1, "a share from 0 to 1, such as 0.5")

    def course(self, one: OneClass) -> Questions:
        """All mixtures, then the ratios of the winning one."""
        candidates, samples = one.candidates, range(one.samples)
        nearest = min({c.rho for c in candidates}, key=lambda rho: (abs(rho - self.rho), rho))
        # The default is measured, but only mixtures at the same ratio are compared.
        first = [n for n, c in enumerate(candidates) if c.rho == nearest]
        asked = sorted({DEFAULT, *first})
        answer = yield samples, asked
        winner = ranked(first, answer.score[:, [asked.index(n) for n in first]])[0]
        second = [n for n, c in enumerate(candidates) if c.alpha == candidates[winner].alpha]
        one.reject([n for n in range(len(candidates)) if n not in {DEFAULT, *second}])
        yield samples, second
