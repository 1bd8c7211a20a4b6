"""CDPruner: the patches that are likeliest under a determinantal point process of likeness and relevance.

Zhang et al., Beyond Attention or Similarity: Maximizing Conditional Diversity for Token Pruning in MLLMs,
arXiv 2506.10967.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from clasp_calib.baselines.choosing import first_largest
from clasp_calib.baselines.input_method import InputMethod
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.encoding import Encoded, Kept

SMALL = 1e-6


def conditional_kernel(features_PD: Tensor, similarity_P: Tensor) -> Tensor:
    """Cosines between patches, weighted on both sides by relevance [P, P].

    Relevance is the *negated* similarity with the question, brought to [0, 1]; alike in all patches it counts as 1.

    Args:
        features_PD: projected tokens, floating.
        similarity_P: similarity of every patch with the question.
    """
    low, high = (-similarity_P).min(), (-similarity_P).max()
    spread = (high - low).clamp_min(SMALL)
    relevance_P = torch.where(high - low > 0, (-similarity_P - low + SMALL) / spread, 1.0)
    unit_PD = functional.normalize(features_PD, dim=-1)
    return relevance_P[:, None] * (unit_PD @ unit_PD.mT) * relevance_P


def likeliest_subset(kernel_PP: Tensor, count: int) -> Tensor:
    """Greedy maximum of the determinant (Chen et al., arXiv 1709.05135), ``count`` indices, rising; long.

    Each choice is the largest conditional variance. Our choice: of those within a millionth of the largest variance of
    all the first, so that rounding does not choose; and where a subset spans everything, as few directions soon do, so
    that variances are rounding errors, the rest goes by relevance, which is the diagonal, and then by index.

    Args:
        kernel_PP: positive semi-definite.
        count: how many are chosen.
    """
    relevance_P, rows = kernel_PP.diagonal(), kernel_PP.new_zeros(count, len(kernel_PP))
    variance_P, least = relevance_P.clone(), SMALL * relevance_P.max()
    chosen: list[int] = []
    while len(chosen) < count and (largest := variance_P.max()) > least:
        i, best = len(chosen), int((variance_P >= largest - least).byte().argmax())
        row_P = kernel_PP[best] - rows[:i, best] @ rows[:i]
        rows[i] = row_P / variance_P[best].sqrt()
        variance_P = variance_P - rows[i].square()
        chosen.append(best)
        variance_P[chosen] = -torch.inf
    left_P = torch.round(relevance_P / relevance_P.max(), decimals=6)
    left_P[chosen] = -torch.inf
    chosen += first_largest(left_P, count - len(chosen)).tolist()
    return torch.tensor(sorted(chosen), device=kernel_PP.device)


@dataclass(frozen=True)
class CDPruner(InputMethod):
    """On the projected tokens of a tile; kept tokens stay in order and are renumbered.

    The relevance of patches for the question comes from the CLIP text tower that belongs to the vision tower, which a
    LLaVA checkpoint does not bring: give ``similarity``, a function of the encoded image to a similarity for
    every cell [U], such as `clip_similarity`. It is for one question, so enter the context anew for each.
    """

    name: ClassVar[str] = "cdpruner"
    paper: ClassVar[str] = "arXiv 2506.10967"
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {str(n): {"keep": str(n)} for n in (192, 128, 64, 32)}

    keep: str = "64"
    similarity: Callable[[Encoded], Tensor] | None = field(default=None, repr=False)

    def lacks(self, model: nn.Module, adapter: Adapter) -> str | None:
        """See `Method`."""
        if self.similarity is not None:
            return None
        return "it needs the text tower that its vision tower was trained with (similarity=clip_similarity(...))"

    def kept(self, image: Encoded, token_P: Tensor, count: int) -> Kept:
        """See `InputMethod`."""
        assert self.similarity is not None
        similarity_P = self.similarity(image)[image.cells(token_P)].double()
        # Single precision leaves more of a spanned variance than counts as nothing.
        kernel_PP = conditional_kernel(image.features_ND[token_P].double(), similarity_P)
        return Kept(token_P[likeliest_subset(kernel_PP, count)])


def clip_similarity(clip: Any, input_ids: Tensor) -> Callable[[Encoded], Tensor]:
    """Cosine of every patch with a question, both projected by CLIP; the mean over the question's parts.

    Args:
        clip: a transformers ``CLIPModel`` whose vision tower is the model's own, with the text tower beside it.
        input_ids: the question as CLIP's tokenizer gives it, [M, W]; one longer than its 77 tokens in M parts.
    """

    def similarity(image: Encoded) -> Tensor:
        states_UC = image.states_UC.to(clip.visual_projection.weight.dtype)
        text_MC = clip.text_projection(clip.text_model(input_ids=input_ids).pooler_output)
        patch_UC = clip.visual_projection(clip.vision_model.post_layernorm(states_UC))
        cosine_UM = functional.normalize(patch_UC, dim=-1) @ functional.normalize(text_MC, dim=-1).mT
        return cosine_UM.mean(1)

    return similarity


def embedded_similarity(embedding_WD: Tensor) -> Callable[[Encoded], Tensor]:
    """In the place of `clip_similarity` where there is no text tower: projected tokens against the question's words.

    It is the mean cosine of a token with the decoder's embeddings of the question, negated: what is like the question
    is relevant here, while CLIP's patches are relevant where their similarity is small.

    Args:
        embedding_WD: the decoder's embeddings of the question's tokens, at least one.
    """
    question_D = functional.normalize(embedding_WD.float(), dim=-1).mean(0)

    def similarity(image: Encoded) -> Tensor:
        cosine_N = functional.normalize(image.features_ND.float(), dim=-1) @ question_D
        cell_N = image.layout.cell_N.to(cosine_N.device)
        similarity_U = cosine_N.new_zeros(image.layout.cells)
        similarity_U[cell_N[cell_N >= 0]] = -cosine_N[cell_N >= 0]
        return similarity_U

    return similarity
