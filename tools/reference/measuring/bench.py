"""A model under measurement, its mixtures and its splits of the benchmark."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clasp_calib.cache.encode import cache_features
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.calib.dataset import check_classes
from clasp_calib.calib.scoring.evaluator import Evaluator
from clasp_calib.calib.scoring.feature_sources import open_source
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.common.errors import InputError
from clasp_calib.common.hashing import sha256_file, sha256_json
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.common.samples import CLASSES, Sample
from clasp_calib.reference.benchmark import FIRST_SEED, VERSION, write_benchmark
from clasp_calib.reference.families import HELD_OUT
from clasp_calib.reference.model import MODEL
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.loading import load_model
from tools.reference.idle_blocks import leave_out_idle_blocks
from tools.reference.measuring.settings import Alpha, mixtures_of
from tools.reference.measuring.unpruned import SharedPicture


@dataclass(frozen=True)
class Bench:
    """A model, and the place where what is measured of it is kept."""

    root: Path
    model: Any
    processor: Any
    mixtures: Mapping[str, Alpha]

    @classmethod
    def open(cls, work: Path, directory: Path = MODEL) -> "Bench":
        """Load a model; what is kept of other models or benchmarks lies elsewhere under ``work``.

        Args:
            work: directory of all measurements.
            directory: of the model.

        Raises:
            ModelError: there is no model.
            InputError: the place cannot be written to.
        """
        model, processor = load_model(str(directory), "cpu", "float32")
        files = [[path.name, sha256_file(path)] for path in sorted(directory.iterdir()) if path.is_file()]
        root = work / sha256_json([VERSION, HELD_OUT, files])[:16]
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {work} ({error}); give another place with --work") from error
        adapter = adapter_for(model)
        return cls(root, model, processor, mixtures_of(adapter.vision_layers, adapter.own_layer))

    def samples(self, split: str, pictures: int) -> list[Sample]:
        """The split's questions with gold classes as labels, picture by picture; drawn and cached if need be.

        Raises:
            InputError: the benchmark has no such split.
        """
        if split not in FIRST_SEED:
            raise InputError(f"the benchmark has no split {split!r}; expected one of {', '.join(FIRST_SEED)}")
        place = self.root / split / str(pictures)
        with _locked(self.root / f"{split}.lock"):
            table = place / "samples.parquet"
            if not table.is_file():
                write_benchmark(place, {split: pictures})
            given = load_samples(table, columns={"class": "gold_class", "intent": "gold_intent"})
            samples = list(given.with_table(given.table.drop_columns(["split"])))
            check_classes(samples, CLASSES)
            adapter = adapter_for(self.model)
            layers = range(1, adapter.own_layer + 1)
            cache_features(
                self.model,
                self.processor,
                samples,
                self.root / split / "cache",
                FeatureOptions(layers=layers, workers=0),
            )
        return samples

    def lean(self) -> Any:
        """The model without the blocks that add nothing: what scores cost less with, to the bit the same."""
        model = deepcopy(self.model)
        leave_out_idle_blocks(model)
        return model

    def evaluators(self, split: str, samples: Sequence[Sample], model: Any = None) -> tuple[Evaluator, SharedPicture]:
        """What scores the split: pruned, and unpruned.

        Args:
            split: of the benchmark.
            samples: of the split.
            model: a lean one; the model itself if ``None``.
        """
        model = self.model if model is None else model
        adapter = adapter_for(model)
        source = open_source(self.root / split / "cache", self.model, self.processor)
        features = source.at(tuple(range(1, adapter.own_layer + 1)))
        features.check(list(samples))
        prompter = Prompter(self.processor, model)
        return Evaluator(model, prompter, features), SharedPicture(model, prompter, features)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the others wait."""
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
