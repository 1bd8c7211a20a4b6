"""The artifacts that a comparison puts beside its first: read, and checked to answer the same questions."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clasp_calib.api.studied import Studied, StudyOptions, other_table
from clasp_calib.common.errors import InputError
from clasp_calib.common.settings import check_kind

if TYPE_CHECKING:
    from clasp_calib.artifacts.artifact import Artifact


def artifacts_beside(
    given: "Mapping[str, Artifact | Path | str] | None", of: Studied, model: Any, options: StudyOptions
) -> "dict[str, Artifact]":
    """Read them, and check that they belong beside the first.

    Args:
        given: name -> artifact, its directory, or ``org/name@version``.
        of: the first, and what it is measured on.
        model: the model.
        options: whether other weights are accepted.

    Raises:
        ArtifactError: one cannot be read, is of another model, or has other classes, another prompt or decoding.
        InputError: a name is none, or is that of a method or a setting.
    """
    from clasp_calib.artifacts.alike import check_alike
    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.artifacts.fits import check_fits
    from clasp_calib.calib.studies.beside_entrants import check_name, told_of
    from clasp_calib.common.progress import note

    check_kind("beside", given, Mapping, "names with their artifacts, such as {'last month': 'old-run/artifact'}")
    found: dict[str, Artifact] = {}
    for name, artifact in (given or {}).items():
        check_name(name)
        if not isinstance(artifact, Artifact | Path | str):
            raise InputError(
                f"beside[{name!r}] is {artifact!r:.100}; expected an artifact, its directory or org/name@v1"
            )
        with told_of(name):
            known = artifact if isinstance(artifact, Artifact) else Artifact.load(artifact)
        check_fits(known, model, strict=options.strict, checkpoint=options.checkpoint, called=f"the artifact {name!r}")
        check_alike(name, known, of.artifact)
        if other_table(known, of.budgets, of.digest):
            note(
                f"note: the artifact {name!r} was calibrated on another table and does not hold which pictures those "
                "were; if some are among these, the scores flatter it"
            )
        found[name] = known
    return found
