"""What a server's answers under a load come to, in the figures that operators use."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clasp_calib.serving.chat_load import Load


@dataclass(frozen=True)
class LoadFigures:
    """Throughput, latency and tokens of one server at one concurrency. Times are in seconds.

    Attributes:
        requests: that were answered.
        seconds: from the first request to the end of the last answer.
        requests_per_second: the one over the other.
        ttft_median: time to first token: from sending a request to the first token of its answer.
        ttft_p95: its 95th percentile.
        tpot_median: time per output token: from the first token of an answer to the last, over all but the first;
            ``None`` if no answer has two.
        prompt_tokens: of a request, mean; text and visual tokens, as the server counts them.
        cached_tokens: of these, mean: those whose keys and values were in the prefix cache.
        kv_tokens: of a request, mean: its prompt and its answer but for the last token, which is all that it holds keys
            and values of at its end. A prefix that requests share counts for each of them.
    """

    requests: int
    seconds: float
    requests_per_second: float
    ttft_median: float
    ttft_p95: float
    tpot_median: float | None
    prompt_tokens: float
    cached_tokens: float
    kv_tokens: float

    @classmethod
    def of(cls, load: Load) -> "LoadFigures":
        """The figures of some answers, at least one."""
        answers = load.answers
        first = [answer.first for answer in answers]
        paces = [
            (answer.last - answer.first) / (answer.answer_tokens - 1) for answer in answers if answer.answer_tokens > 1
        ]
        return cls(
            requests=len(answers),
            seconds=load.seconds,
            requests_per_second=len(answers) / load.seconds,
            ttft_median=_quantile(first, 0.5),
            ttft_p95=_quantile(first, 0.95),
            tpot_median=_quantile(paces, 0.5) if paces else None,
            prompt_tokens=float(np.mean([answer.prompt_tokens for answer in answers])),
            cached_tokens=float(np.mean([answer.cached_tokens for answer in answers])),
            kv_tokens=float(np.mean([answer.prompt_tokens + answer.answer_tokens - 1 for answer in answers])),
        )


def _quantile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share))
