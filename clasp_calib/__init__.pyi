"""The public names and where each is at home: read by type checkers, and by ``__init__.py`` itself."""

from clasp_calib.api.ablating import AblationReport as AblationReport, ablate as ablate
from clasp_calib.api.bench_report import BenchReport as BenchReport
from clasp_calib.api.benching import BenchOptions as BenchOptions, bench_serve as bench_serve
from clasp_calib.api.caching import cache_features as cache_features, plan_features as plan_features
from clasp_calib.api.calibrating import (
    CalibrationPlan as CalibrationPlan,
    calibrate as calibrate,
    plan_calibration as plan_calibration,
)
from clasp_calib.api.comparing import (
    ComparisonOptions as ComparisonOptions,
    ComparisonReport as ComparisonReport,
    compare as compare,
)
from clasp_calib.api.evaluating import (
    EvaluationOptions as EvaluationOptions,
    EvaluationReport as EvaluationReport,
    evaluate as evaluate,
)
from clasp_calib.api.generating import (
    Generated as Generated,
    GenerationOptions as GenerationOptions,
    generate as generate,
)
from clasp_calib.api.labeler_training import train_labeler as train_labeler
from clasp_calib.api.labelling import (
    EmbeddingLabeler as EmbeddingLabeler,
    EscalatingLabeler as EscalatingLabeler,
    KeywordLabeler as KeywordLabeler,
    LabelReport as LabelReport,
    ServerLabeler as ServerLabeler,
    VLLMLabeler as VLLMLabeler,
    label as label,
    label_report as label_report,
)
from clasp_calib.api.model_loading import load_model as load_model
from clasp_calib.api.rechecking import recheck as recheck
from clasp_calib.api.reproducing import (
    ReproductionOptions as ReproductionOptions,
    ReproductionPlan as ReproductionPlan,
    ReproductionReport as ReproductionReport,
    paper_tables as paper_tables,
    plan_reproduction as plan_reproduction,
    rehearse as rehearse,
    reproduce as reproduce,
)
from clasp_calib.api.resizing import resized as resized
from clasp_calib.api.studied import StudyOptions as StudyOptions
from clasp_calib.artifacts.artifact import Artifact as Artifact
from clasp_calib.artifacts.one_part import one_part as one_part
from clasp_calib.cache.feature_options import FeatureOptions as FeatureOptions
from clasp_calib.common import errors as errors
from clasp_calib.common.places import Places as Places
from clasp_calib.common.pruning_options import PruningOptions as PruningOptions
from clasp_calib.common.sample_set import Samples as Samples
from clasp_calib.common.sample_sources import load_samples as load_samples
from clasp_calib.common.samples import Sample as Sample
from clasp_calib.crew.crew import Crew as Crew
from clasp_calib.runtime.budgeting import schedule_for as schedule_for
from clasp_calib.runtime.pictures import load_picture as load_picture
from clasp_calib.runtime.pruner import clasp as clasp, prune as prune
from clasp_calib.search.calibration_options import CalibrationOptions as CalibrationOptions
from clasp_calib.search.space import Prototype as Prototype, SearchSpace as SearchSpace
from clasp_calib.search.strategies.grid import Grid as Grid
from clasp_calib.search.strategies.halving import Halving as Halving
from clasp_calib.search.strategies.pooled import Pooled as Pooled
from clasp_calib.search.strategies.race import Race as Race
from clasp_calib.search.strategies.tpe import TPE as TPE
from clasp_calib.search.strategies.two_step import TwoStep as TwoStep

__all__: list[str]
__version__: str
