"""What ``clasp-calib cache-features`` prints of a plan and of cached pixels."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from clasp_calib.commands.output import emit, say, show

if TYPE_CHECKING:
    from clasp_calib.cache.cache_report import CacheReport
    from clasp_calib.cache.plan import CachePlan

ADVICE = {
    "layers": "cache the layers: clasp-calib cache-features",
    "pixels": "cache pixels and run the tower again: clasp-calib cache-features --pixels",
    "recompute": "cache nothing: clasp-calib search --recompute",
}


def say_plan(plan: "CachePlan", as_json: bool) -> None:
    """Print a plan."""
    pays = plan.looks_to_pay if math.isfinite(plan.looks_to_pay) else None
    if as_json:
        emit(
            {
                **{name: value for name, value in vars(plan).items() if name not in ("disk", "encoder", "ways")},
                "missing_bytes": plan.missing,
                "disk": vars(plan.disk),
                "encoder": vars(plan.encoder),
                "ways": [{**vars(way), "total": plan.total(way), "fits": plan.fits(way)} for way in plan.ways],
                "break_even_bytes_a_second": plan.break_even,
                "looks_to_pay": pays,
                "recommended": plan.recommended,
            }
        )
        return
    encoder, disk = plan.encoder, plan.disk
    say(
        f"{plan.unique} different pictures of {plan.pictures} samples "
        f"({plan.duplicates} duplicates), {plan.cached} cached already"
        + (f"; {plan.unreadable} cannot be read" if plan.unreadable else "")
    )
    say(
        f"layers {', '.join(map(str, plan.layers))} of {encoder.tokens} tokens x {encoder.channels} channels "
        f"in {plan.precision}"
    )
    say(f"to write: {_size(plan.missing)}; free: {_size(plan.free)}")
    say(f"disk: writes {_size(disk.write)}/s, reads {_size(disk.read)}/s, from memory {_size(disk.memory)}/s")
    say(
        f"encoder: {1 / encoder.batched:.3g} pictures/s in batches, {1 / encoder.alone:.3g} one by one; "
        f"decoding {1 / encoder.decode:.3g} pictures/s a core"
    )
    show(
        f"for {plan.looks} looks at a picture ({plan.looks // plan.pictures} for each question)",
        ["way", "disk", "to make", "a look", "in all", "fits"],
        [
            [
                *(way.name, _size(way.bytes), _time(way.make), _time(way.look), _time(plan.total(way))),
                "yes" if plan.fits(way) else "no",
            ]
            for way in plan.ways
        ],
    )
    say(
        f"reading a picture's layers beats recomputing them from {_size(plan.break_even)}/s on; "
        + (f"their cache pays after {pays:.1f} looks at each picture" if pays is not None else "here it never pays")
    )
    say(f"recommended: {ADVICE[plan.recommended]}")


def say_pixels(report: "CacheReport", out: Path) -> None:
    """Print what a run of ``--pixels`` did."""
    say(
        f"pixels of {report.unique} different pictures of {report.pictures} samples: {report.encoded} decoded, "
        f"{report.skipped} were there; {_size(report.bytes)}; {report.seconds:.1f} s"
    )
    say(f"cached in {out}; search and evaluate run the vision tower on them")


def _size(size: float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _time(seconds: float) -> str:
    """A duration for people."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 3600 else f"{seconds / 3600:.3g} h"
