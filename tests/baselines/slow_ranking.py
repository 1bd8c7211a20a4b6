"""Slow, obvious pieces of the references of the peers, in plain Python floats."""

import math


def order(scores, descending=True):
    """Positions by score; of equal scores the lower position first."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i] if descending else scores[i], i))


def cosine(a, b):
    a, b = [float(x) for x in a], [float(x) for x in b]
    lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


def distance(a, b):
    return math.sqrt(sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)))
