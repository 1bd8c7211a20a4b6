"""What ``clasp-calib cache-features`` prints of a plan and of a run."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from clasp_calib.commands.output import emit, say, show

if TYPE_CHECKING:
    from clasp_calib.cache.cache_report import CacheReport
    from clasp_calib.cache.plan import CachePlan

_NAMED = 5
"""Odd pictures that are printed; the others stand in the file."""
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
    if plan.taps:
        say(
            f"of these the decoder gets {', '.join(map(str, plan.taps))} beside any mixture (deepstack), so they are "
            f"always kept: {_size(plan.tapped)} of {_size(plan.way('layers').bytes)}"
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


def say_report(report: "CacheReport", target: Path, pixels: bool, following: str) -> None:
    """Print what a run did, and the command that goes on from it."""
    from clasp_calib.cache.odd import FILE

    what = "pixels" if pixels else f"layers {', '.join(map(str, report.layers))}"
    say(
        f"{report.unique} different pictures of {report.pictures} samples: {report.encoded} encoded, "
        f"{report.skipped} were there; {what}; {_size(report.bytes)}; {report.seconds:.1f} s"
    )
    times, workers = report.times, f"{report.workers} processes" if report.workers else "threads"
    if report.encoded:
        say(
            f"encoder: {times.encode:.1f} s at work, {times.wait_for_pictures:.1f} s waiting for pictures, "
            f"{times.wait_for_cache:.1f} s ({times.share_waited_for_cache:.1%}) for the cache; beside it {workers} "
            f"decoded {times.decode:.1f} s and preprocessed {times.preprocess:.1f} s, a writer took {times.write:.1f} s"
        )
    for odd in report.odd[:_NAMED]:
        say(f"{'left out' if odd.left_out else 'not seen whole'}: {odd.image}: {odd.reason}")
    if report.odd:
        left_out = len(report.left_out)
        say(f"{left_out} files left out, {len(report.odd) - left_out} not seen whole; all are named in {target / FILE}")
    say(f"cached in {target}; next: {following}")


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
