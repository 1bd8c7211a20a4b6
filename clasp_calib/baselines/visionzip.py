"""VisionZip: the class token, the patches that it attends to most, and merged tokens for the rest.

Yang et al., VisionZip: Longer is Better but Not Necessary in Vision Language Models, arXiv 2412.04467.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from clasp_calib.baselines.fastervlm import most_attended
from clasp_calib.baselines.input_method import InputMethod
from clasp_calib.runtime.encoding import Encoded, Kept


def contextual(states_MC: Tensor, keys_Md: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Merged tokens that stand for patches: evenly spaced targets, to each of which the mean of its followers is added.

    Every other patch follows the target whose key is nearest in cosine (of equal ones the first).

    Args:
        states_MC: of the patches that are not dominant, in order, floating.
        keys_Md: their keys, mean over heads.
        count: targets, at most M.

    Returns:
        Indices of the targets, long, and the merged states [count, C].
    """
    target_T = torch.arange(0, len(states_MC), max(len(states_MC) // count, 1), device=states_MC.device)[:count]
    others_M = torch.ones(len(states_MC), dtype=torch.bool, device=states_MC.device)
    others_M[target_T] = False
    unit_Md = functional.normalize(keys_Md, dim=-1)
    nearest = (unit_Md[others_M] @ unit_Md[target_T].mT).argmax(1)
    follows_TO = functional.one_hot(nearest, len(target_T)).mT.to(states_MC.dtype)
    mean_TC = follows_TO @ states_MC[others_M] / follows_TO.sum(1, keepdim=True).clamp_min(1)
    return target_T, states_MC[target_T] + mean_TC


@dataclass(frozen=True)
class VisionZip(InputMethod):
    """Dominant tokens by class attention, contextual ones by merging; all before the projector, renumbered.

    Order: class token, dominant patches, contextual tokens, one tile after the other. The class token counts as
    dominant; on a picture with tiles and in a tower without one it is left out, and in the latter the mean attention of
    all patches stands in, with keys averaged over, and states taken after, the merger.

    Our choice: the published splits between dominant and contextual tokens (54 + 10, 108 + 20, 162 + 30) are one
    share, rounded half up, with at least one dominant token.
    """

    name: ClassVar[str] = "visionzip"
    paper: ClassVar[str] = "arXiv 2412.04467"
    in_order: ClassVar[bool] = False
    attends: ClassVar[bool] = True
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {str(n): {"keep": str(n)} for n in (192, 128, 64)}

    keep: str = "64"
    context: float = 10 / 64
    """Share of the kept tokens that are contextual."""

    def kept(self, image: Encoded, token_P: Tensor, count: int) -> Kept:
        """See `InputMethod`."""
        (attention,) = image.attention.values()
        cell_P = image.cells(token_P)
        states_PC = image.states_UC[cell_P].float()
        merged = min(int(count * self.context + 0.5), count - 1)
        head_C = image.class_RC if image.layout.tiles == 1 else None
        heads = 0 if head_C is None else 1
        dominant = most_attended(attention.received()[:, cell_P], count - merged - heads)
        rest_P = torch.ones(len(token_P), dtype=torch.bool, device=token_P.device)
        rest_P[dominant] = False
        rest = rest_P.nonzero().flatten()
        parts, places = [states_PC[dominant]], [dominant]
        if merged:
            target, merged_TC = contextual(states_PC[rest], attention.keys()[cell_P].mean(1)[rest], merged)
            parts, places = [*parts, merged_TC], [*places, rest[target]]
            rest = rest[~torch.isin(rest, rest[target])]
        if head_C is not None:
            parts, places = [head_C[:1].float(), *parts], [rest[:1], *places]
        return Kept(token_P[torch.cat(places)], states_TC=torch.cat(parts))
