"""Published methods with one part changed, to see which part loses the tokens that a question asks about."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional

from clasp_calib.baselines import dart, holov, mustdrop, pyramiddrop
from clasp_calib.baselines.choosing import first_largest, proportional
from clasp_calib.baselines.controls import RandomTokens
from clasp_calib.baselines.dart import Dart
from clasp_calib.baselines.fastervlm import FasterVLM
from clasp_calib.baselines.hiprune import HiPrune, hierarchical
from clasp_calib.baselines.holov import HoloV
from clasp_calib.baselines.mechanisms.row_stages import KeptTokens, Row, RowPlan
from clasp_calib.baselines.method import Method
from clasp_calib.baselines.mustdrop import MustDrop
from clasp_calib.baselines.prumerge import PruMergePlus
from clasp_calib.baselines.pyramiddrop import PyramidDrop
from clasp_calib.baselines.staged import count_of
from clasp_calib.runtime.encoding import Encoded, Kept


@dataclass(frozen=True)
class Varied:
    """A method, and what of it is changed; nothing if ``part`` is empty."""

    method: Method
    part: str = ""

    @property
    def name(self) -> str:
        """What its results are kept under."""
        return f"{self.method.name}, {self.part}" if self.part else self.method.name


def drawn(like: Tensor) -> Tensor:
    """Random numbers of the same shape, the same for the same values."""
    seed = int(sha256(like.detach().numpy().tobytes()).hexdigest()[:15], 16)
    return torch.rand(like.shape, generator=torch.Generator().manual_seed(seed))


class _DrawnPivots(Dart):
    """Keys do nothing but choose pivots."""

    def positions(self, row: Row) -> Tensor:
        return row.visual_N

    def choose(self, stage: int, row: Row) -> KeptTokens:
        key_GTd, at = row.key_GTd.clone(), self.positions(row) + row.key_GTd.shape[1] - len(row.hidden_SD)
        key_GTd[:, at] = drawn(key_GTd[:, at])
        return super().choose(stage, replace(row, key_GTd=key_GTd))


class _DrawnTextPivots(_DrawnPivots):
    def positions(self, row: Row) -> Tensor:
        return row.text_W


def unlike_all(
    keys_Nd: Tensor, text_keys_Wd: Tensor, hidden_ND: Tensor, text_hidden_WD: Tensor, keep: int, images: int, texts: int
) -> Tensor:
    """In the place of `dart.dart`: from its image pivots on, what is least like all that is kept."""
    unit_ND = functional.normalize(hidden_ND.float(), dim=1)
    kept = first_largest(keys_Nd.float().abs().sum(1), images).tolist()
    nearest_N = (unit_ND @ unit_ND[kept].mT).amax(1)
    while len(kept) < keep:
        nearest_N[kept] = torch.inf
        kept.append(int(nearest_N.argmin()))
        nearest_N = torch.maximum(nearest_N, unit_ND @ unit_ND[kept[-1]])
    return torch.tensor(kept).sort().values


class _UnlikeAll(Dart):
    def choose(self, stage: int, row: Row) -> KeptTokens:
        with patch.object(dart, "dart", unlike_all):
            return super().choose(stage, row)


class _OtherRegisters(HiPrune):
    def rated(self, image: Encoded) -> Tensor:
        """What registers are the largest of, in the place of the attention that a patch receives from all."""
        return image.attention[max(image.attention)].received().mean(0)

    def kept(self, image: Encoded, token_P: Tensor, count: int) -> Kept:
        cell_P, (_, columns) = image.cells(token_P), image.shown(token_P)
        middle_P = image.attention[min(image.attention)].received(from_all=True).mean(0)[cell_P]
        return Kept(token_P[hierarchical(middle_P, self.rated(image)[cell_P], columns, count, self.share)])


class _DrawnRegisters(_OtherRegisters):
    def rated(self, image: Encoded) -> Tensor:
        return drawn(super().rated(image))


class _OrderedHoloV(HoloV):
    in_order = True


class _EqualStrips(HoloV):
    def kept(self, image: Encoded, token_P: Tensor, count: int) -> Kept:
        with patch.object(holov, "strip_score", lambda *_: torch.tensor(1.0)):
            return super().kept(image, token_P, count)


class _SharedOverflow(HoloV):
    """What a strip cannot fill goes to all others by their scores."""

    def kept(self, image: Encoded, token_P: Tensor, count: int) -> Kept:
        (attention,) = image.attention.values()
        attention_P = attention.received().mean(0)[image.cells(token_P)]
        cut = torch.arange(len(token_P)).tensor_split(self.strips)
        features_PD = image.features_ND[token_P].float()
        scores = [float(holov.strip_score(features_PD[s], attention_P[s], self.alpha)) for s in cut]
        shares = proportional(scores, count, [len(s) for s in cut])
        return Kept(token_P[torch.cat([s[first_largest(attention_P[s], n)] for s, n in zip(cut, shares, strict=True)])])


class _SecondStageEarlier(PyramidDrop):
    """Layer 7 rates like the scoring blocks; layer 8 does not."""

    def at_share(self, layers: int, share: float) -> PyramidDrop:
        with patch.object(pyramiddrop, "SOLVED_STARTS", (2, 7, 16)):
            return super().at_share(layers, share)


class _DrawnStages(PyramidDrop):
    def choose(self, stage: int, row: Row) -> KeptTokens:
        rated_N = drawn(row.visual[:, 0])
        return KeptTokens(first_largest(rated_N, count_of(self.ratios[stage], row.came)).sort().values)


class _NoMerge(PruMergePlus):
    def kept(self, image: Encoded, token_P: Tensor, count: int) -> Kept:
        return Kept(super().kept(image, token_P, count).place_T)


class _OrderedWindows(MustDrop):
    """Merged windows stand where their patches were, not in front."""

    @contextmanager
    def attached(self, *arguments: Any) -> Iterator[Any]:
        merge = patch.object(mustdrop, "merged_windows", _in_place(mustdrop.merged_windows))
        with merge, super().attached(*arguments) as read:
            yield read


class _WholeCache(MustDrop):
    """No keys are dropped once the prefill is over, so that generated tokens see what the prefill saw."""

    @contextmanager
    def attached(self, *arguments: Any) -> Iterator[Any]:
        plan = patch.object(mustdrop, "RowPlan", lambda *of, **more: RowPlan(*of, **{**more, "thins_cache": False}))
        with plan, super().attached(*arguments) as read:
            yield read


def _in_place(merge: Any) -> Any:
    def merged(*arguments: Any) -> tuple[Tensor, Tensor]:
        tokens_MC, token_N = merge(*arguments)
        place_N, counts_M = torch.arange(len(token_N)), torch.bincount(token_N)
        middle_M = torch.zeros(len(counts_M)).index_add(0, token_N, place_N.float()) / counts_M
        order_M = middle_M.argsort(stable=True)
        return tokens_MC[order_M], order_M.argsort()[token_N]

    return merged


class Merging:
    """Notes into which token every patch went when MustDrop merged a picture the last time."""

    def __init__(self) -> None:
        self.token_N: Tensor | None = None

    def attached(self) -> AbstractContextManager[Any]:
        """Look on, within the context."""

        merge = mustdrop.merged_windows

        def noting(*arguments: Any) -> tuple[Tensor, Tensor]:
            merged = merge(*arguments)
            self.token_N = merged[1]
            return merged

        return patch.object(mustdrop, "merged_windows", noting)


VARIED = (
    Varied(RandomTokens()),
    Varied(FasterVLM()),
    Varied(Dart()),
    Varied(_DrawnPivots(), "image pivots drawn"),
    Varied(_DrawnTextPivots(), "text pivots drawn"),
    Varied(Dart(text_pivots=0), "image pivots only"),
    Varied(Dart(image_pivots=0), "text pivots only"),
    Varied(Dart(image_pivots=32, text_pivots=0), "32 image pivots, none of the text"),
    Varied(_UnlikeAll(), "least like all that is kept, not like one pivot"),
    Varied(HiPrune()),
    Varied(HiPrune(share=0.0), "registers only"),
    Varied(_DrawnRegisters(), "registers drawn"),
    Varied(_OtherRegisters(), "registers by the class token's attention"),
    Varied(HoloV()),
    Varied(_OrderedHoloV(), "in order"),
    Varied(HoloV(alpha=0.0), "strips without variety"),
    Varied(_SharedOverflow(), "overflow to all strips"),
    Varied(_EqualStrips(), "equal strips"),
    Varied(PyramidDrop()),
    Varied(_DrawnStages(), "tokens drawn"),
    Varied(_SecondStageEarlier(), "stages at 2, 7, 16"),
    Varied(PruMergePlus()),
    Varied(_NoMerge(), "nothing merged"),
    Varied(MustDrop()),
    Varied(MustDrop(alike=2.0), "nothing merged"),
    Varied(_OrderedWindows(), "merged windows in place"),
    Varied(_WholeCache(), "no keys dropped after the prefill"),
)
"""Methods in turn, each as released and then with one part changed."""
