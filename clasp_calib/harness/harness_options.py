"""What a harness is told of a model: which one, how it is pruned, and where it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Self

from clasp_calib.common.errors import InputError
from clasp_calib.common.settings import check_count, check_kind

AUTO = "auto"


@dataclass(frozen=True)
class HarnessOptions:
    """A model and its pruning; neither an artifact nor a method is a model that is not pruned.

    Attributes:
        pretrained: a directory, a Hub id, or ``reference`` for the embedded model.
        artifact: a directory, or ``org/name@version``.
        budget: of an artifact one of its own, by default its largest; of a method it must be given.
        classes: class of all questions, or ``auto``: the artifact's router or the packaged one says it of each.
        method: a peer of `clasp_calib.baselines`, or ``default`` or ``random`` for the model's own layer at our stages.
        solve_on: table of samples, for methods whose knobs follow from pictures.
        seed: of methods with random parts.
        device: such as ``cpu`` or ``cuda:0``.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        batch_size: questions of one forward, at most.
        strict: refuse a model without the weights of the artifact's calibration, of which there is a warning otherwise.
        checkpoint: accept a model with other weights by their digest, as the warning names it.

    Raises:
        InputError: values that cannot be used, or not together.
    """

    pretrained: str
    artifact: str | None = None
    budget: str | None = None
    classes: str = AUTO
    method: str | None = None
    solve_on: str | None = None
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    batch_size: int = 1
    strict: bool = False
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        """Refuse what would be passed over."""
        for name in ("pretrained", "artifact", "classes", "method", "solve_on", "device", "dtype", "checkpoint"):
            check_kind(name, getattr(self, name), str, "a text")
        check_kind("strict", self.strict, bool, "True or False")
        check_count("seed", self.seed, 0)
        check_count("batch_size", self.batch_size, 1)
        if self.artifact is not None and self.method is not None:
            raise InputError(
                f"artifact={self.artifact} and method={self.method} both say how to prune; give one of them"
            )
        if self.artifact is None and self.method is None and self.budget is not None:
            raise InputError(
                f"budget={self.budget} is for an artifact or a method, and there is neither; give artifact=DIR or "
                "method=NAME, or leave the budget out, and nothing is pruned"
            )
        if self.method is not None and self.budget is None:
            raise InputError(f"method={self.method} needs a budget; give one, such as budget=192 or budget=33%")
        apart = {"classes": AUTO, "strict": False, "checkpoint": None}
        of = {name: ("artifact", self.artifact, value) for name, value in apart.items()}
        of |= {"solve_on": ("method", self.method, None), "seed": ("method", self.method, 0)}
        for name, (user, given, default) in of.items():
            if given is None and getattr(self, name) != default:
                raise InputError(
                    f"{name}={getattr(self, name)} is for a run with {user}=, and there is none; give {user}=, or "
                    f"leave {name} out"
                )

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Self:
        """Options by name, as a harness has read them from a command line.

        Raises:
            InputError: there is no such option, or the model is missing.
        """
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                near = get_close_matches(name, known, 1)
                meant = f" (did you mean {near[0]}?)" if near else ""
                raise InputError(f"there is no option {name!r}{meant}; the options of clasp are {', '.join(known)}")
        if "pretrained" not in given:
            raise InputError("the model is missing; give pretrained=DIR, a Hub id, or pretrained=reference")
        values = dict(given)
        for name in ("pretrained", "artifact", "budget", "checkpoint"):
            # A harness takes for a number what looks like one: a budget, or a directory that is called 2024.
            if isinstance(value := values.get(name), int | float) and not isinstance(value, bool):
                values[name] = str(value)
        return cls(**values)
