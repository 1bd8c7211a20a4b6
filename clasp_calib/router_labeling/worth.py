"""Whether a router is worth having: beside the packaged one, and beside one class for everything.

Both answer where there is no other. All are judged on the same questions. The router was not trained on these; of
the packaged one it is not known, and where labels of the packaged embedding judge, it learnt from the same labeler.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clasp_calib.common.errors import InputError
from clasp_calib.router_labeling.fallback import packaged_router, packaged_scheme
from clasp_calib.router_labeling.labelers import by_keywords
from clasp_calib.router_labeling.router import Against, RouterQuality, Shares

RULE = "rule"
"""The source of a label that a keyword rule gave."""
_TIE = 1e-9


@dataclass(frozen=True)
class JudgedRouter:
    """How a router, or what answers in its place, does on questions that it was not trained on."""

    questions: int
    likeliest: float
    """Share whose class is the likeliest one, before abstaining."""
    accuracy: float
    """Share that gets its class, abstentions and all."""
    macro: float
    """Mean over the classes that occur of the share of their questions that get it."""
    abstained: float
    wrong: float
    """Share that gets a class other than its own and than the default one."""

    @property
    def shares(self) -> Shares:
        """What a router's file says of it."""
        return Shares(self.accuracy, self.macro)


@dataclass(frozen=True)
class Worth:
    """A router and what answers without one, on the same questions."""

    against: Against
    """``gold``: classes given by hand; ``labels``: those that it was distilled from."""
    router: JudgedRouter
    packaged: JudgedRouter | None
    """The packaged router; ``None``: it does not lead to these classes, or there is nothing to judge by."""
    own_labels: bool
    """Whether all labels that there are to judge by were given by the packaged rules, which say too little."""
    constant: JudgedRouter
    """The class of most of these questions, for all of them."""
    constant_class: str

    @property
    def quality(self) -> RouterQuality:
        """For the router's file."""
        without = None if self.packaged is None else self.packaged.shares
        return RouterQuality(self.against, self.router.questions, self.router.accuracy, self.router.macro, without)

    @property
    def objection(self) -> str | None:
        """Why the router should not be used; ``None``: nothing speaks against it."""
        if self.own_labels:
            return (
                "all labels are the keyword rules' own, which are less often right than the packaged router, and that "
                "answers where an artifact has none: at best this router repeats the rules. Only classes given by hand "
                "could show otherwise (--gold FILE, gold=, or a column 'gold_class')"
            )
        packaged, ours = self.packaged, self.router
        if packaged is not None and ours.macro < packaged.macro - _TIE:
            return self._worse(f"the packaged router, which answers where an artifact has none, {_told(packaged)}")
        # Among questions of one class alone, its name is always right, and that says nothing.
        if self.constant.accuracy < 1 and ours.macro <= self.constant.macro + _TIE:
            return self._worse(f"{self.constant_class!r} for every question {_told(self.constant)}")
        return None

    def _worse(self, than: str) -> str:
        by = "classes given by hand" if self.against == "gold" else "the labels, held out"
        ours = self.router
        return f"by {by}, the router gets {_told(ours)} of {ours.questions} questions right, and {than}"


def _told(judged: JudgedRouter) -> str:
    return f"{judged.accuracy:.1%} (mean over classes {judged.macro:.1%})"


def check_worth(worth: Worth) -> None:
    """Refuse a router that is worth nothing.

    Raises:
        InputError: the packaged router has a larger mean over classes, or one class for all questions has one as
            large; or the labels are the keyword rules' own, and there are no others.
    """
    if objection := worth.objection:
        raise InputError(
            f"{objection}. It is not written: take more questions, labelled by a better labeler than the rules "
            "(`clasp-calib label --backend embedding`, or server), or write it all the same (--force, force=True)"
        )


def judged(
    likeliest: NDArray[np.integer], given: NDArray[np.integer], truth: NDArray[np.integer], default: int
) -> JudgedRouter:
    """Count what was given.

    Args:
        likeliest: ``[questions]``, places of classes, before abstaining.
        given: ``[questions]``, after it.
        truth: ``[questions]``, at least one.
        default: place of the default class, or one that is none's.
    """
    right = given == truth
    return JudgedRouter(
        len(truth),
        float((likeliest == truth).mean()),
        float(right.mean()),
        float(np.mean([right[truth == place].mean() for place in np.unique(truth)])),
        float((given != likeliest).mean()),
        float((~right & (given != default)).mean()),
    )


def weighed(
    against: Against,
    router: JudgedRouter,
    questions: Sequence[str],
    truth: NDArray[np.integer],
    classes: Sequence[str],
    default: int,
    *,
    packaged: bool,
    own_labels: bool,
) -> Worth:
    """Judge what answers without a router on the questions on which one was judged.

    Args:
        against: what the truth is.
        router: how the router did.
        questions: on which.
        truth: ``[questions]``, places in the classes.
        classes: that there are.
        default: as `judged` takes it.
        packaged: whether the packaged router leads to these classes.
        own_labels: the truth is what the packaged rules said.
    """
    beside = None
    if packaged and not own_labels:
        said = np.array([classes.index(packaged_router().route(question).label) for question in questions])
        beside = judged(said, said, truth, default)
    most = Counter(truth.tolist()).most_common(1)[0][0]
    same = np.full(len(truth), most)
    constant = judged(same, same, truth, default)
    return Worth(against, router, beside, own_labels, constant, classes[most])


def is_rules_own(source: str | None, labeler: str | None) -> bool:
    """Whether a label says only what the packaged rules say, which are less often right than the packaged router.

    Those of another rule file may know more.

    Args:
        source: of the label.
        labeler: its fingerprint.
    """
    return source == RULE and by_keywords(labeler or "") in (None, packaged_scheme().rules.digest)
