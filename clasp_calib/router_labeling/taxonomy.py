"""Which intents a question can have, and which class each intent is merged into (appendix A of the paper)."""

from collections import Counter
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from clasp_calib.common.errors import InputError
from clasp_calib.common.fields import ClassName, Name, describe
from clasp_calib.common.hashing import sha256_json
from clasp_calib.common.yaml_files import read_yaml

Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Intent(BaseModel):
    """One fine-grained intent: what it means, questions that have it, and the class it is merged into."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    class_: ClassName = Field(alias="class")
    definition: Words
    # Our choice: at least three examples. An LLM labeler shows them, and fewer say little about a boundary.
    examples: tuple[Words, ...] = Field(min_length=3)


class Taxonomy(BaseModel):
    """Intents, classes in their order, and the intent of a question that fits nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1]
    classes: tuple[ClassName, ...] = Field(min_length=1)
    """Names of the classes; the position of a class is its row in ``W`` and ``rho``."""
    default_intent: Name
    """The intent of a question that no labeler can place."""
    intents: Mapping[Name, Intent]

    @property
    def default_class(self) -> str:
        """The class of `default_intent`: where a router goes when it abstains."""
        return self.class_of(self.default_intent)

    @property
    def digest(self) -> str:
        """Hex sha256 of the content: of the entries and their order, not of comments and layout."""
        return sha256_json(
            {
                "version": self.version,
                "classes": self.classes,
                "default_intent": self.default_intent,
                "intents": [[slug, i.class_, i.definition, i.examples] for slug, i in self.intents.items()],
            }
        )

    def class_of(self, intent: str) -> str:
        """The class that ``intent`` is merged into.

        Raises:
            InputError: the taxonomy has no such intent.
        """
        try:
            return self.intents[intent].class_
        except KeyError:
            raise InputError(f"unknown intent {intent!r}; expected one of {', '.join(self.intents)}") from None

    @model_validator(mode="after")
    def _consistent(self) -> "Taxonomy":
        for slug, times in Counter(self.classes).items():
            if times > 1:
                raise ValueError(f"class {slug!r} is listed {times} times; list each class once")
        for slug, intent in self.intents.items():
            if intent.class_ not in self.classes:
                raise ValueError(
                    f"intent {slug!r} has the class {intent.class_!r}; expected one of {', '.join(self.classes)}"
                )
        if self.default_intent not in self.intents:
            raise ValueError(f"default_intent is {self.default_intent!r}, which is not among the intents")
        idle = [slug for slug in self.classes if slug not in {i.class_ for i in self.intents.values()}]
        if idle:
            raise ValueError(f"no intent has the class {idle[0]!r}; give it one, or remove the class")
        owners: dict[str, str] = {}
        for slug, intent in self.intents.items():
            for example in intent.examples:
                if example in owners:
                    raise ValueError(
                        f"the example {example!r} stands under {owners[example]!r} and {slug!r}; "
                        "an example belongs to one intent, once"
                    )
                owners[example] = slug
        return self


def load_taxonomy(given: Taxonomy | str | Path | None = None) -> Taxonomy:
    """Read a taxonomy, unless it is one already.

    Args:
        given: a taxonomy, or a YAML file in the form of the packaged ``taxonomy.yaml``; ``None`` reads that one.

    Raises:
        InputError: the file is missing, is not YAML, or is not a consistent taxonomy.
    """
    if isinstance(given, Taxonomy):
        return given
    source = packaged("taxonomy.yaml") if given is None else Path(given)
    content = read_yaml(source, "taxonomy")
    try:
        return Taxonomy.model_validate(content)
    except ValidationError as error:
        raise InputError(f"taxonomy {source}: {describe(error)}; mend the file") from error


def packaged(name: str) -> Traversable:
    """A data file that is installed with this room."""
    return files("clasp_calib.router_labeling").joinpath(name)
