"""What a server did, in numbers that its ``/metrics`` shows beside vLLM's own."""

from functools import cache
from typing import Any

from clasp_calib.serving.served import ServedEntry

CONFIDENCES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Upper ends of what a router's confidence is counted in."""


@cache
def _counters() -> tuple[Any, Any, Any, Any]:
    from prometheus_client import Counter, Histogram

    of = ("clasp_class", "budget")
    return (
        Counter(
            "clasp_pictures", "Pictures of requests, by their class and whether the question decided it", [*of, "by"]
        ),
        Counter("clasp_visual_tokens_offered", "Visual tokens of pictures before pruning", of),
        Counter("clasp_visual_tokens_kept", "Visual tokens of pictures that entered the decoder", of),
        Histogram("clasp_router_confidence", "Probability of the likeliest class", buckets=CONFIDENCES),
    )


def count(entry: ServedEntry, by: str, confidence: float | None, offered: int, kept: list[int]) -> None:
    """Count a request.

    Args:
        entry: what it gets.
        by: who named its class: ``request``, ``server``, ``router``, ``packaged router`` or ``only class``.
        confidence: of the router.
        offered: visual tokens of its pictures before pruning.
        kept: of every picture behind it.
    """
    pictures, before, after, sure = _counters()
    pictures.labels(entry.label, entry.budget, by).inc(len(kept))
    before.labels(entry.label, entry.budget).inc(offered)
    after.labels(entry.label, entry.budget).inc(sum(kept))
    if confidence is not None:
        sure.observe(confidence)
