"""The learning rate over a training stage."""


def rate_at(step: int, steps: int, rate: float, warm: int = 60, flat: float = 0.5) -> float:
    """A short warm-up, flat for the first half, then linear to one hundredth."""
    progress = step / steps
    decay = 1.0 if progress < flat else max((1 - progress) / (1 - flat), 0.01)
    return rate * min(1.0, (step + 1) / warm) * decay
