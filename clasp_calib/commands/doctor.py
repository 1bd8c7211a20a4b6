"""``clasp-calib doctor``."""

import typer

from clasp_calib.commands.options import DEFAULT_RUN, JsonOption, RunOption
from clasp_calib.commands.output import emit, say, show


def doctor(run: RunOption = DEFAULT_RUN, as_json: JsonOption = False) -> None:
    """Show what is installed, which devices and how much disk space there are, and what is missing.

    Exits with 1 if something that every calibration needs is missing.

    Example: clasp-calib doctor
    """
    from clasp_calib.api.installation import installation

    found = installation(run)
    if as_json:
        emit(found)
    else:
        rows = [["python", found["python"]], *([name, known or "missing"] for name, known in found["versions"].items())]
        show("installed", ["package", "version"], rows)
        say(f"devices: {', '.join(found['devices']) or 'none'}")
        safe = "" if found["local_filesystem"] else ", where a feature cache is portable and slower"
        say(f"free disk under {run}: {found['free_disk_bytes'] / 2**30:.1f} GiB ({found['filesystem']}{safe})")
        say(f"embedded model: {'there' if found['embedded_model'] else 'missing'}")
        for name, use in found["missing_optional"].items():
            say(f"not installed: {name} - {use}")
        say("ready" if found["ready"] else f"missing: {', '.join(found['lacking'])}; pip install clasp-calib")
    if not found["ready"]:
        raise typer.Exit(1)
