"""PruneSID: patches in groups of what they have in common, and of every group those that are no near-duplicates.

Fang et al., Prune Redundancy, Preserve Essence: Vision Token Compression in VLMs via Synergistic Importance-Diversity,
arXiv 2603.09480; released in https://github.com/ZhengyaoFang/PruneSID (commit 390d760,
``prunesid/prunesid_llava/clip_encoder.py`` and ``prunesid/prunesid_qwen/modeling_qwen2_vl.py``).

P patches, G groups, C width of a state.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from clasp_calib.baselines.choosing import first_largest
from clasp_calib.baselines.input_method import InputMethod
from clasp_calib.runtime.encoding import Encoded, Kept


def loadings(states_PC: Tensor, components: int) -> Tensor:
    """How much each patch weighs in the principal components of the states' sigmoids, [P, components], absolute.

    Patches are the variables and channels the observations. Our choice: exact, where the authors' code takes a
    randomized decomposition, whose result depends on the state of the random generator.

    Args:
        states_PC: float64, for patches with nearly the same loadings fall into one group or the other.
        components: at most P.
    """
    seen_CP = torch.sigmoid(states_PC).mT
    seen_CP = seen_CP - seen_CP.mean(0)
    _, vectors_PP = torch.linalg.eigh(seen_CP.mT @ seen_CP)
    loading_PG: Tensor = vectors_PP.flip(1)[:, :components].abs()
    return loading_PG


def distinct(cosine_PP: Tensor, score_P: Tensor, threshold: float) -> Tensor:
    """Patches by score, without those that are more similar than a threshold to a better one that stays; long.

    Args:
        cosine_PP: similarities.
        score_P: floating; of equal ones the first goes first.
        threshold: from which on a patch is left out.
    """
    alike, gone, stay = (cosine_PP > threshold).tolist(), set[int](), []
    for patch in first_largest(score_P, len(score_P)).tolist():
        if patch not in gone:
            stay.append(patch)
            gone.update(other for other, same in enumerate(alike[patch]) if same)
    return torch.tensor(stay, dtype=torch.long, device=score_P.device)


def shares(sizes: Sequence[int], left: Sequence[int], count: int, heads: int = 0) -> list[int]:
    """How many patches of every group are kept: one of each, and the others in proportion to what is distinct.

    No group gives more than five for every 64 tokens begun, nor more than it has that is distinct, unless all groups
    together would give too few; all bounds are raised by one then, until they do not.

    Args:
        sizes: patches of every group; it may be empty.
        left: those of them that are distinct.
        count: tokens to keep, at least as many as there are groups; there are as many patches.
        heads: class tokens among ``count``.

    Returns:
        ``count - heads`` in all.
    """
    least = [min(size, 1) for size in sizes]
    most = [min(5 * ceil(count / 64), size, own) for size, own in zip(sizes, left, strict=True)]
    while sum(most) < count:
        most = [min(bound + 1, size) for bound, size in zip(most, sizes, strict=True)]
    wanted = count - heads
    others, given, found = wanted - sum(least), 0, list[int]()
    for group in range(len(sizes)):
        until = round(Fraction(others * sum(left[: group + 1]), sum(left)))
        found.append(min(until - given + least[group], most[group]))
        given = until
    for group in sorted(range(len(sizes)), key=lambda g: (-left[g], g)):
        found[group] += min(most[group] - found[group], wanted - sum(found))
    return found


def essential(states_PC: Tensor, attention_P: Tensor | None, count: int, heads: int = 0) -> Tensor:
    """Patches group by group, in each the distinct ones by score and then the others by score; long.

    Args:
        states_PC: floating.
        attention_P: the score, attention from the class token; without one, the loading in the patch's component.
        count: tokens to keep; a quarter of them are groups.
        heads: class tokens among ``count``, fewer than that.

    Returns:
        ``count - heads`` indices.
    """
    weight_PG = loadings(states_PC.double(), min(max(count // 4, 1), count - heads))
    group_P = weight_PG.argmax(1)
    unit_PC = functional.normalize(states_PC.double(), dim=-1)
    cosine_PP, patches = unit_PC @ unit_PC.mT, len(states_PC)
    if attention_P is None:
        # Our choice: near ties go by position.
        score_P = torch.round(weight_PG.amax(1), decimals=9)
        # The mean over all entries, half of which are not counted, as released.
        threshold = max(18 * count / patches, 1) * float(cosine_PP.triu().mean())
    else:
        score_P = attention_P
        threshold = count / 32 * float(cosine_PP.triu(1).sum()) / (patches * (patches - 1) / 2)
    members = [(group_P == group).nonzero().flatten() for group in range(weight_PG.shape[1])]
    stay = [own[distinct(cosine_PP[own][:, own], score_P[own], threshold)] for own in members]
    found = []
    taken = shares(list(map(len, members)), list(map(len, stay)), count, heads)
    for own, first, share in zip(members, stay, taken, strict=True):
        rest = own[~torch.isin(own, first)]
        found.append(torch.cat([first, rest[first_largest(score_P[rest], len(rest))]])[:share])
    return torch.cat(found)


@dataclass(frozen=True)
class PruneSID(InputMethod):
    """By the states before the projector: the class token, then patches in the order of `essential`, renumbered.

    The class token is left out on a picture with tiles. Where the tower has none, states are taken after the merger,
    patches count by their loadings, as the authors' code for Qwen2-VL has it. Where positions are kept, so is the
    order.

    Our choice: no least number of tokens, where the code for Qwen2-VL keeps 16 of every picture; and the number does
    not depend on the picture, as in the released code but not in all tables of the paper.
    """

    name: ClassVar[str] = "prunesid"
    paper: ClassVar[str] = "arXiv 2603.09480"
    in_order: ClassVar[bool] = False
    attends: ClassVar[bool] = True
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {str(n): {"keep": str(n)} for n in (192, 128, 64)}

    keep: str = "64"

    def kept(self, image: Encoded, token_P: Tensor, count: int) -> Kept:
        """See `InputMethod`."""
        (attention,) = image.attention.values()
        cell_P = image.cells(token_P)
        states_PC = image.states_UC[cell_P].float()
        attention_P = attention.received().mean(0)[cell_P] if attention.class_tokens else None
        head_C = image.class_RC if image.layout.tiles == 1 else None
        if head_C is None:
            return Kept(token_P[essential(states_PC, attention_P, count)])
        chosen = essential(states_PC, attention_P, count, 1) if count > 1 else cell_P[:0]
        rest_P = torch.ones(len(token_P), dtype=torch.bool, device=token_P.device).index_fill(0, chosen, False)
        place_T = token_P[torch.cat([rest_P.nonzero()[0], chosen])]
        return Kept(place_T, states_TC=torch.cat([head_C[:1].float(), states_PC[chosen]]))
