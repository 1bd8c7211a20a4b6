"""Ordered keyword rules: the first rule that matches a question decides its intent.

A pattern is a list of phrases, of which one must occur, or a mapping of ``any`` (one of these phrases),
``all`` (each of these), ``not`` (none of these) and ``regex`` (this regular expression); all conditions must
hold. In a phrase, words match whole words; ``a|b`` is either word, ``word*`` any ending, ``*`` any one word,
``...`` up to eight words of the same sentence, ``<name>`` any entry of that word list of the file, ``^`` the
start of the question and ``$`` its end. Questions and phrases are compared in the form that `normalise` gives
them; regular expressions see questions in that form too.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from clasp_calib.common.errors import InputError
from clasp_calib.common.fields import Name, Slug, describe
from clasp_calib.common.hashing import sha256_json
from clasp_calib.common.yaml_files import read_yaml
from clasp_calib.router_labeling.phrase_index import PhraseIndex
from clasp_calib.router_labeling.taxonomy import Taxonomy, Words, packaged

RuleId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]

NORMALISATION = 1
"""Version of `normalise` and of the phrase form; part of the digest, since both decide what matches."""

_SEPARATOR = r"[^\w.?!]+"
# Our choice: eight words bound a gap, which keeps a match inside one clause and its cost linear.
_GAP = rf"(?:{_SEPARATOR}\w+){{0,8}}?"
_QUOTES = str.maketrans({"’": "'", "‘": "'", "`": "'", "´": "'", "“": '"', "”": '"'})
_CONTRACTED = re.compile(r"\b(what|who|where|how|when|why|that|there|here|it|he|she)'s\b|\b(what|who|where|how)s\b")


def normalise(text: str) -> str:
    """The form in which questions are matched: NFKC, case-folded, straight quotes, ``what's`` as ``what is``.

    Runs of white space become one space and blank lines go; line breaks stay, since the options of a choice
    stand on lines of their own.
    """
    text = unicodedata.normalize("NFKC", text.translate(_QUOTES))
    text = unicodedata.normalize("NFKC", text.casefold())
    text = _CONTRACTED.sub(lambda found: f"{found[1] or found[2]} is", text)
    return "\n".join(" ".join(words) for line in text.splitlines() if (words := line.split()))


def phrase_regex(phrase: str, words: Mapping[str, Sequence[str]]) -> str:
    """The regular expression that a phrase stands for.

    Args:
        phrase: in the form that the module's docstring describes.
        words: the word lists that ``<name>`` may refer to.

    Raises:
        ValueError: the phrase begins or ends with a gap or has no word; an alternative is empty or of several
            words; ``^`` or ``$`` is in the middle; or a word list is unknown.
    """
    start, tokens, end = _tokens(phrase)
    regex = r"\A\W*" if start else r"(?<!\w)"
    for position, token in enumerate(tokens):
        if token == "...":
            regex += _GAP
        else:
            spelled = "|".join(_spell(entry) for entry in _alternatives(token, phrase, words))
            regex += (_SEPARATOR if position else "") + f"(?:{spelled})"
    return regex + (r"\W*\Z" if end else r"(?!\w)")


def phrase_matches(phrase: str, words: Mapping[str, Sequence[str]], bare: str) -> bool:
    """Whether a phrase occurs in a question in the form that `RuleSet.bare` gives it."""
    return re.search(phrase_regex(phrase, words), bare) is not None


def phrase_options(phrase: str, words: Mapping[str, Sequence[str]]) -> tuple[bool, list[list[str]], bool]:
    """(is bound to the start, alternatives of each word or gap in order, is bound to the end) of a phrase."""
    start, tokens, end = _tokens(phrase)
    return start, [[t] if t == "..." else _alternatives(t, phrase, words) for t in tokens], end


def _tokens(phrase: str) -> tuple[bool, list[str], bool]:
    tokens = [token for raw in phrase.split() for token in _token(raw, phrase)]
    start, end = tokens[:1] == ["^"], tokens[-1:] == ["$"]
    tokens = tokens[start : len(tokens) - end]
    if not tokens or "..." in (tokens[0], tokens[-1]):
        raise ValueError(f"the phrase {phrase!r} must begin and end with a word (after ^ and before $)")
    if "^" in tokens or "$" in tokens:
        raise ValueError(f"in the phrase {phrase!r}, ^ may only stand first and $ only last")
    return start, tokens, end


def _token(raw: str, phrase: str) -> list[str]:
    spelled = normalise(raw).split()
    if len(spelled) > 1 and "|" in raw:
        raise ValueError(f"in the phrase {phrase!r}, write the contraction in {raw!r} as two words")
    return spelled


def _alternatives(token: str, phrase: str, words: Mapping[str, Sequence[str]]) -> list[str]:
    spelled: list[str] = []
    for option in token.split("|"):
        if option in ("", "^", "$", "..."):
            raise ValueError(f"in the phrase {phrase!r}, {option!r} cannot be an alternative in {token!r}")
        if option.startswith("<") and option.endswith(">"):
            if option[1:-1] not in words:
                raise ValueError(f"the phrase {phrase!r} uses {option}, but there is no such word list")
            spelled += words[option[1:-1]]
        else:
            spelled.append(option)
    return spelled


def _spell(entry: str) -> str:
    if entry == "*":
        return r"\w+"
    return _SEPARATOR.join(re.escape(word).replace(r"\*", r"\w*") for word in normalise(entry).split())


class Pattern(BaseModel):
    """The condition of a rule, as written; see the module's docstring for the form of a phrase."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    any_: tuple[Words, ...] = Field(default=(), alias="any")
    all_: tuple[Words, ...] = Field(default=(), alias="all")
    not_: tuple[Words, ...] = Field(default=(), alias="not")
    regex: Words | None = None

    @model_validator(mode="before")
    @classmethod
    def _list_means_any(cls, value: Any) -> Any:
        return {"any": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _asks_for_something(self) -> "Pattern":
        if not (self.any_ or self.all_ or self.regex):
            raise ValueError("the pattern asks for nothing; give phrases, 'any', 'all' or 'regex'")
        return self


class Rule(BaseModel):
    """One rule: questions that meet ``pattern`` have ``intent``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: RuleId
    intent: Name
    pattern: Pattern
    overrides: bool = False
    """Whether the rule is sure enough to correct any labeler. The others serve the keyword labeler only."""


class RuleSet(BaseModel):
    """Rules in their order, their word lists, and what is cut out of a question before they look at it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1]
    ignore: tuple[Words, ...] = ()
    """Regular expressions for parts of a prompt that are not the question: options, answer formats."""
    words: Mapping[Slug, tuple[Words, ...]] = Field(default_factory=dict)
    """Word lists by name; an entry may be of several words and may end in ``*``."""
    rules: tuple[Rule, ...]
    _ignored: tuple[re.Pattern[str], ...] = PrivateAttr()
    _conditions: tuple["_Condition", ...] = PrivateAttr()
    _index: PhraseIndex = PrivateAttr()

    @model_validator(mode="after")
    def _compile(self) -> "RuleSet":
        for slug, times in Counter(rule.id for rule in self.rules).items():
            if times > 1:
                raise ValueError(f"the rule id {slug!r} is used {times} times; ids must be unique")
        empty = [name for name, entries in self.words.items() if not entries]
        if empty:
            raise ValueError(f"the word list {empty[0]!r} is empty; give it words, or remove it")
        self._ignored = tuple(_regex(regex, "ignore") for regex in self.ignore)
        self._conditions = tuple(_condition(rule, self.words) for rule in self.rules)
        self._index = PhraseIndex([_tokens_of_any(rule, self.words) for rule in self.rules])
        return self

    @property
    def digest(self) -> str:
        """Hex sha256 of everything that decides a match; comments and layout of the file do not matter."""
        return sha256_json({"normalisation": NORMALISATION, **self.model_dump(mode="json", by_alias=True)})

    def bare(self, question: str) -> str:
        """The normalised question without the parts that ``ignore`` names."""
        text = normalise(question)
        for regex in self._ignored:
            text = regex.sub(" ", text)
        return normalise(text)

    def match(self, question: str) -> Rule | None:
        """The first rule that matches ``question``, or None."""
        return next(self.matching(question), None)

    def matching(self, question: str) -> Iterator[Rule]:
        """The rules that match ``question``, in their order; each is tried when it is asked for."""
        bare = self.bare(question)
        for place in self._index.candidates(bare):
            if self._conditions[place].holds(bare):
                yield self.rules[place]

    def holds(self, rule: Rule, bare: str) -> bool:
        """Whether one of these rules matches a question that `bare` has prepared, whatever comes before it."""
        return self._conditions[self.rules.index(rule)].holds(bare)


@dataclass(frozen=True)
class _Condition:
    wanted: tuple[re.Pattern[str], ...]
    unwanted: re.Pattern[str] | None

    def holds(self, bare: str) -> bool:
        if not all(regex.search(bare) for regex in self.wanted):
            return False
        return self.unwanted is None or not self.unwanted.search(bare)


def _tokens_of_any(rule: Rule, words: Mapping[str, Sequence[str]]) -> list[list[list[str]]] | None:
    """Of each phrase in ``any`` the alternatives of each word, for the index; ``None`` if there are no such phrases."""
    phrases = [phrase_options(phrase, words)[1] for phrase in rule.pattern.any_]
    spelled = [[[normalise(entry) for entry in token] for token in tokens if token != ["..."]] for tokens in phrases]
    return spelled or None


def _condition(rule: Rule, words: Mapping[str, Sequence[str]]) -> _Condition:
    def either(phrases: Sequence[str]) -> re.Pattern[str]:
        try:
            return re.compile("|".join(phrase_regex(phrase, words) for phrase in phrases))
        except ValueError as error:
            raise ValueError(f"rule {rule.id!r}: {error}") from None

    pattern = rule.pattern
    wanted = [either([phrase]) for phrase in pattern.all_]
    if pattern.any_:
        wanted.append(either(pattern.any_))
    if pattern.regex:
        wanted.append(_regex(pattern.regex, f"rule {rule.id!r}"))
    return _Condition(tuple(wanted), either(pattern.not_) if pattern.not_ else None)


def _regex(regex: str, place: str) -> re.Pattern[str]:
    try:
        return re.compile(regex, re.IGNORECASE | re.MULTILINE)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{place}: {regex!r} is not a regular expression ({error})") from None


def load_rules(path: Path | None, taxonomy: Taxonomy) -> RuleSet:
    """Read a rule file.

    Args:
        path: a YAML file in the form of the packaged ``rules.yaml``; ``None`` reads that one.
        taxonomy: the intents that rules may name.

    Raises:
        InputError: the file is missing or is not YAML; an id occurs twice; a phrase, a word list or a regular
            expression is malformed; or a rule names an intent that the taxonomy lacks.
    """
    source = packaged("rules.yaml") if path is None else path
    content = read_yaml(source, "rule file")
    try:
        rules = RuleSet.model_validate(content)
    except ValidationError as error:
        raise InputError(f"rule file {source}: {describe(error)}; mend the file") from error
    for rule in rules.rules:
        if rule.intent not in taxonomy.intents:
            raise InputError(
                f"rule file {source}: rule {rule.id!r} has the intent {rule.intent!r}; "
                f"expected one of {', '.join(taxonomy.intents)}. "
                "Mend it, or give rules that are written for this taxonomy"
            )
    return rules
