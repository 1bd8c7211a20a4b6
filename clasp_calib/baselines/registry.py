"""The methods by name."""

from clasp_calib.baselines.btp import Btp
from clasp_calib.baselines.cdpruner import CDPruner
from clasp_calib.baselines.controls import AveragePooling, RandomTokens, UniformGrid
from clasp_calib.baselines.dart import Dart
from clasp_calib.baselines.divprune import DivPrune
from clasp_calib.baselines.downsampling import DownSampling
from clasp_calib.baselines.fastervlm import FasterVLM
from clasp_calib.baselines.fastv import FastV
from clasp_calib.baselines.ficoco_v import FiCoCoV
from clasp_calib.baselines.fitprune import FitPrune
from clasp_calib.baselines.hawk import Hawk
from clasp_calib.baselines.hiprune import HiPrune
from clasp_calib.baselines.hired import HiRED
from clasp_calib.baselines.holov import HoloV
from clasp_calib.baselines.method import Method
from clasp_calib.baselines.mustdrop import MustDrop
from clasp_calib.baselines.prumerge import PruMerge, PruMergePlus
from clasp_calib.baselines.prunesid import PruneSID
from clasp_calib.baselines.pyramiddrop import PyramidDrop
from clasp_calib.baselines.random_pruning import NAME as RANDOM
from clasp_calib.baselines.scope import Scope
from clasp_calib.baselines.sparsevlm import SparseVLM
from clasp_calib.baselines.sparsevlm_v2 import SparseVLM2
from clasp_calib.baselines.tome import ToMe
from clasp_calib.baselines.visionzip import VisionZip
from clasp_calib.baselines.vispruner import VisPruner
from clasp_calib.baselines.vscan import VScan
from clasp_calib.common.errors import InputError

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        RandomTokens,
        UniformGrid,
        AveragePooling,
        ToMe,
        FastV,
        PruMerge,
        PruMergePlus,
        PyramidDrop,
        HiRED,
        VisionZip,
        SparseVLM,
        SparseVLM2,
        Dart,
        MustDrop,
        FiCoCoV,
        FasterVLM,
        DivPrune,
        VisPruner,
        CDPruner,
        HoloV,
        Btp,
        VScan,
        HiPrune,
        Scope,
        PruneSID,
        Hawk,
        FitPrune,
    )
}

NAMES = (RANDOM, *METHODS, DownSampling.name)
"""All that `clasp_calib.compare` knows: the methods, which need a model alone, random pruning at the stages of an
artifact, and the control that prunes nothing."""


def method(name: str) -> Method:
    """The method of this name, with its paper's knobs.

    Raises:
        InputError: there is none.
    """
    if name in NAMES and name not in METHODS:
        raise InputError(f"{name} is a control of compare, and no method alone; choose from {', '.join(METHODS)}")
    if name not in METHODS:
        raise InputError(f"there is no method {name!r}; choose from {', '.join(NAMES)}")
    return METHODS[name]()
