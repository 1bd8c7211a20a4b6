"""What a server did, for Prometheus: vLLM's own ``/metrics`` shows it."""

from functools import cache
from typing import Any

from clasp_calib.serving.served import Entry


@cache
def _counters() -> dict[str, Any]:
    from prometheus_client import Counter

    labels = ("clasp_class", "budget")
    return {
        "pictures": Counter("clasp_pictures", "Pictures that were pruned.", (*labels, "routed")),
    }


def count(entry: Entry, pictures: int, routed: bool) -> None:
    """Count the pictures of a request."""
    _counters()["pictures"].labels(entry.label, entry.budget, str(routed).lower()).inc(pictures)
