"""The artifact in memory: the manifest and its two arrays, and what can be asked of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from clasp_calib.artifacts.consistency import check_content, router_entry
from clasp_calib.artifacts.files import MANIFEST, check_place, read_content, write_artifact
from clasp_calib.artifacts.hub import Published, locate_artifact, publish
from clasp_calib.artifacts.manifest import SETTINGS, BudgetEntry, Manifest
from clasp_calib.common.errors import ArtifactError
from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.common.selector_choice import SelectorChoice
from clasp_calib.router_labeling.router import Router


@dataclass(frozen=True)
class Artifact:
    """Mixtures ``alpha [budgets, classes, L_v + 1]`` and ratios ``rho [budgets, classes]``, float32."""

    manifest: Manifest
    """Everything but the numbers, as ``artifact.json`` holds it."""
    alphas: NDArray[np.float32]
    """Mixtures over ``hidden_states``, [budgets, classes, L_v + 1]."""
    rhos: NDArray[np.float32]
    """Share of each stage's tokens that goes to pivots, [budgets, classes]."""
    study: Mapping[str, bytes] = field(default_factory=dict)
    """Files under ``study/`` by name, as they are on the disk; see `clasp_calib.artifacts.evidence`."""
    router: Router | None = None
    """Finds the class of a question; ``None`` if the artifact brings none."""

    def __repr__(self) -> str:
        of = self.manifest
        return f"<artifact {of.name} {of.version} of {of.model}, calibrated for {', '.join(self.budgets)}>"

    def __post_init__(self) -> None:
        check_content(self.manifest, self.alphas, self.rhos, self.router)

    @property
    def budgets(self) -> tuple[str, ...]:
        """Names of the calibrated budgets."""
        return tuple(entry.name for entry in self.manifest.budgets)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class slugs, in the order of the arrays."""
        return self.manifest.classes

    @property
    def pruning(self) -> PruningOptions:
        """The options that it was calibrated under.

        Raises:
            ModelError: this version of the package does not know one of them.
        """
        of = self.manifest
        return PruningOptions(
            profile=of.profile,
            relevance=of.relevance,
            raters=of.raters,
            positions=of.positions,
            features=of.features,
            iterations=of.iterations,
            starts=of.starts,
            seeding=of.seeding,
        )

    def entry(self, budget: str | int) -> BudgetEntry:
        """What is recorded about a budget, such as ``192`` or ``33%``.

        Raises:
            ArtifactError: the artifact was not calibrated for it.
        """
        return self.manifest.budgets[self._budget(budget)]

    def counts(self, budget: str | int) -> tuple[int, ...] | None:
        """Visual tokens kept at each stage; ``None`` where pictures differ in their number, and each has its own.

        Raises:
            ArtifactError: the artifact was not calibrated for this budget.
        """
        return self.entry(budget).counts

    def alpha(self, budget: str | int, label: str) -> tuple[float, ...]:
        """Mixture over ``hidden_states`` 0..L_v.

        Raises:
            ArtifactError: unknown budget or class.
        """
        return tuple(float(a) for a in self.alphas[self._budget(budget), self._class(label)])

    def rho(self, budget: str | int, label: str) -> float:
        """Share of each stage's tokens that goes to relevance pivots.

        Raises:
            ArtifactError: unknown budget or class.
        """
        # float32 would turn 0.7 into 0.69999998, and floor(rho K + 0.5) into one token fewer.
        return round(float(self.rhos[self._budget(budget), self._class(label)]), 6)

    def seeding(self, budget: str | int, label: str) -> str:
        """What k-means starts from, see `clasp_calib.common.pruning_options.PruningOptions`.

        Raises:
            ArtifactError: unknown budget or class.
        """
        return self.entry(budget).choices[self.classes[self._class(label)]].seeding or self.manifest.seeding

    def relevance(self, budget: str | int, label: str) -> str | None:
        """What rates the tokens in the profile ``input``; ``None`` in the other.

        Raises:
            ArtifactError: unknown budget or class.
        """
        return self.entry(budget).choices[self.classes[self._class(label)]].relevance or self.manifest.relevance

    def downsample(self, budget: str | int, label: str) -> float | None:
        """With which share of their tokens, at most, pictures are shown; ``None``: as they are.

        See `clasp_calib.baselines.downsampling.DownSampling`, which makes them smaller.

        Raises:
            ArtifactError: unknown budget or class.
        """
        return self.entry(budget).choices[self.classes[self._class(label)]].downsample

    def selector(self, budget: str | int, label: str) -> SelectorChoice | None:
        """What chooses tokens in the place of the dual-stage selection; ``None``: nothing does.

        Raises:
            ArtifactError: unknown budget or class.
        """
        entry = self.entry(budget).choices[self.classes[self._class(label)]].selector
        return None if entry is None else entry.choice

    @staticmethod
    def load(place: str | Path) -> "Artifact":
        """Read and verify an artifact.

        Args:
            place: a directory, or ``org/name@v1.2.0`` on the Hugging Face Hub, which is pulled.

        Raises:
            ArtifactError: it is missing, of an unknown format, or damaged.
            InputError: the Hub does not give it.
        """
        return read_artifact(locate_artifact(place))

    def save(self, directory: str | Path) -> "Artifact":
        """Write the artifact to a directory; see `clasp_calib.artifacts.files.write_artifact`.

        Returns:
            The artifact with its file hashes and id.

        Raises:
            InputError: the place cannot be written to, or holds something that is not an artifact.
        """
        return write_artifact(self, directory)

    def push_to_hub(
        self, repo: str, tag: str | None = None, *, private: bool = False, dry_run: bool = False
    ) -> Published:
        """Upload the artifact to the Hugging Face Hub as a version; see `clasp_calib.artifacts.hub.publish`.

        Args:
            repo: ``org/name``; created if it is not there.
            tag: name of the version; ``v`` and the artifact's own version if ``None``.
            private: a new repository is private; one that is there and public is refused.
            dry_run: say what would be uploaded, without touching the network.

        Raises:
            InputError: the Hub refuses or cannot be reached; or a name that it cannot have.
            ArtifactError: the version exists with other content.
        """
        with TemporaryDirectory() as directory:
            self.save(directory)
            return publish(directory, repo, tag, private=private, dry_run=dry_run)

    def with_manifest(self, manifest: Manifest) -> "Artifact":
        """The same numbers under another manifest."""
        return replace(self, manifest=manifest)

    def with_study(self, name: str, content: bytes) -> "Artifact":
        """The artifact with a file of its study added or replaced."""
        return replace(self, study={**self.study, name: content})

    def with_router(self, router: Router | None) -> "Artifact":
        """The artifact with this router, or with none.

        Raises:
            ArtifactError: it was trained for other classes or another taxonomy.
        """
        manifest = self.manifest.model_copy(update={"router": None if router is None else router_entry(router)})
        return replace(self, manifest=manifest, router=router)

    def only(self, budgets: Sequence[str]) -> "Artifact":
        """The artifact of some of its budgets, without its study.

        Raises:
            ArtifactError: one of them is not in it.
        """
        places = [self._budget(name) for name in budgets]
        manifest = self.manifest.model_copy(
            update={
                "budgets": tuple(self.manifest.budgets[i] for i in places),
                "provenance": {name: self.manifest.provenance[name] for name in budgets},
            }
        )
        return Artifact(manifest, self.alphas[places], self.rhos[places], router=self.router)

    def joined(self, earlier: "Artifact | None") -> "Artifact":
        """This artifact's budgets and study together with the other budgets of an earlier one.

        The router is this artifact's, or else the earlier one's.

        Raises:
            ArtifactError: the two were made under other settings, so that one artifact cannot hold both.
        """
        if earlier is None:
            return self
        alike = {*SETTINGS, "shape"} - {"fingerprint"}
        mine, theirs = (m.model_dump(include=alike) for m in (self.manifest, earlier.manifest))
        differing = [name for name in mine if mine[name] != theirs[name]]
        if differing:
            was = (
                "; it was made before artifacts recorded checkpoints"
                if mine["checkpoint"] and not theirs["checkpoint"]
                else ""
            )
            raise ArtifactError(
                f"the artifact that is there was made with other settings ({', '.join(differing)}){was}; "
                "give another place with --out or --run"
            )
        kept = [i for i, name in enumerate(earlier.budgets) if name not in self.budgets]
        manifest = self.manifest.model_copy(
            update={
                "budgets": (*(earlier.manifest.budgets[i] for i in kept), *self.manifest.budgets),
                "provenance": {**earlier.manifest.provenance, **self.manifest.provenance},
            }
        )
        alphas = np.concatenate([earlier.alphas[kept], self.alphas])
        rhos = np.concatenate([earlier.rhos[kept], self.rhos])
        router = self.router or earlier.router
        manifest = manifest.model_copy(update={"router": None if router is None else router_entry(router)})
        return replace(self, manifest=manifest, alphas=alphas, rhos=rhos, router=router)

    def _budget(self, budget: str | int) -> int:
        name = str(budget)
        if name not in self.budgets:
            raise ArtifactError(
                f"this artifact holds no budget {name!r} (it holds {', '.join(self.budgets)}); "
                f"choose one of these, or calibrate it with `clasp-calib search --budget {name}`"
            )
        return self.budgets.index(name)

    def _class(self, label: str) -> int:
        if label not in self.classes:
            raise ArtifactError(f"this artifact knows no class {label!r}; expected one of {', '.join(self.classes)}")
        return self.classes.index(label)


def artifact_at(place: Path | None) -> Artifact | None:
    """The artifact that lies where a result will go, if there is one.

    Raises:
        ArtifactError: see `read_artifact`.
        InputError: the place cannot be written to, or holds something that is not an artifact.
    """
    if place is None:
        return None
    check_place(place)
    return read_artifact(place) if (place / MANIFEST).exists() else None


def read_artifact(directory: str | Path) -> Artifact:
    """Read and verify what a server needs of an artifact, its router too, and its study; not its model card.

    Raises:
        ArtifactError: it is missing, of an unknown format, damaged, or was edited by hand.
    """
    return Artifact(*read_content(directory))
