"""The published mathematics of the methods, slow and obvious: loops over tokens, in float64, on numpy arrays."""

import math
from fractions import Fraction

import numpy as np


def cosine(a, b):
    length = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / length if length else 0.0


def ranked(values):
    """Indices from the largest value to the smallest; equal ones in order."""
    return sorted(range(len(values)), key=lambda i: (-values[i], i))


def most_attended(attention_HP, count):
    means = [sum(head[p] for head in attention_HP) / len(attention_HP) for p in range(len(attention_HP[0]))]
    return sorted(ranked(means)[:count])


def looked_at(attention_HP, grid, cut, count):
    sums = [sum(head[p] for head in attention_HP) for p in range(len(attention_HP[0]))]
    votes = [0] * (cut[0] * cut[1])
    for patch in ranked(sums)[:count]:
        row, column = divmod(patch, grid[1])
        votes[(row * cut[0] // grid[0]) * cut[1] + column * cut[1] // grid[1]] += 1
    return votes


def contextual(states, keys, count):
    targets = list(range(0, len(states), max(len(states) // count, 1)))[:count]
    followers = {target: [] for target in targets}
    for other in range(len(states)):
        if other not in targets:
            best = max(cosine(keys[other], keys[t]) for t in targets)
            followers[next(t for t in targets if cosine(keys[other], keys[t]) == best)].append(other)
    merged = [states[t] + (np.mean([states[o] for o in followers[t]], axis=0) if followers[t] else 0) for t in targets]
    return targets, np.array(merged)


def max_min_diverse(features, count):
    size = len(features)
    distance = [[1 - cosine(features[i], features[j]) for j in range(size)] for i in range(size)]
    chosen = [ranked([sorted(distance[i])[1] for i in range(size)])[0]]
    while len(chosen) < count:
        rest = [i for i in range(size) if i not in chosen]
        nearest = {i: min(distance[i][j] for j in chosen) for i in rest}
        chosen.append(max(rest, key=lambda i: (nearest[i], -i)))
    return sorted(chosen)


def important_and_diverse(attention, states, count, important, step):
    order = ranked(attention)
    chosen, rest = order[:important], order[important:]
    while len(rest) > count - important and count > important:
        first, second = rest[0::2], rest[1::2]
        alike = [max(cosine(states[i], states[j]) for j in second) for i in first]
        gone = min(step, len(rest) - (count - important), len(first))
        rest = [first[k] for k in ranked(alike)[gone:]] + second
    return sorted(chosen + rest[: count - important])


def conditional_kernel(features, similarity):
    negated = [-s for s in similarity]
    span = max(negated) - min(negated)
    relevance = [(s - min(negated) + 1e-6) / span if span else 1.0 for s in negated]
    size = len(features)
    return np.array([[relevance[i] * cosine(features[i], features[j]) * relevance[j] for j in range(size)]
                     for i in range(size)])  # fmt: skip


def conditional_variances(kernel, chosen):
    """Of every item the variance that is left when the chosen ones are known."""
    left = []
    for i in range(len(kernel)):
        known = kernel[np.ix_(chosen, chosen)]
        explained = kernel[i, chosen] @ np.linalg.pinv(known) @ kernel[chosen, i] if chosen else 0.0
        left.append(-math.inf if i in chosen else kernel[i, i] - explained)
    return left


def strip_score(features, attention, alpha):
    size = len(features)
    if size == 1:
        return attention[0]
    unit = [f / (np.linalg.norm(f) + 1e-6) for f in features]
    table = [[0.0 if i == j else float(unit[i] @ unit[j]) for j in range(size)] for i in range(size)]
    means = [sum(row) / (size - 1) for row in table]
    variances = [sum((x - mean) ** 2 for x in row) / (size - 1) for row, mean in zip(table, means, strict=True)]
    scaled = [1e3 * a for a in attention]
    scale = np.mean(np.abs(scaled)) / (np.mean(np.abs(variances)) + 1e-6)
    return float(np.mean([s + alpha * v * scale for s, v in zip(scaled, variances, strict=True)]))


def holistic(features, attention, count, strips, alpha):
    size, begin, cut = len(features), 0, []
    for strip in range(strips):
        width = size // strips + (1 if strip < size % strips else 0)
        if width:
            cut.append(list(range(begin, begin + width)))
        begin += width
    scores = [strip_score([features[i] for i in strip], [attention[i] for i in strip], alpha) for strip in cut]
    weights = [score / (sum(scores) + 1e-6) for score in scores]
    shares = [math.floor(weight * count) for weight in weights]
    for strip in ranked(weights)[: count - sum(shares)]:
        shares[strip] += 1
    over = sum(max(share - len(strip), 0) for share, strip in zip(shares, cut, strict=True))
    for strip in ranked(weights):
        while over and shares[strip] < len(cut[strip]):
            shares[strip] += 1
            over -= 1
    return [strip[k] for strip, share in zip(cut, shares, strict=True)
            for k in ranked([attention[i] for i in strip])[:share]]  # fmt: skip


def outliers(attention, iqr):
    low, high = np.percentile(attention, 25), np.percentile(attention, 75)
    return sum(1 for a in attention if a > high + iqr * (high - low))


def spread(attention, top):
    chosen = ranked(attention)[:top]
    step = max(int(int(1 / (top / len(attention)) + 1e-9) / 3), 1)
    return [i for i in range(0, len(attention) - 1, step) if i not in chosen]


def merged(states, keys, attention, chosen):
    made = []
    for i in chosen:
        others = [j for j in range(len(states)) if j != i]
        near = sorted(others, key=lambda j: (-cosine(keys[i], keys[j]), j))[:32]
        made.append(states[i] + sum(attention[j] * states[j] for j in near))
    rest = [j for j in range(len(states)) if j not in chosen]
    made.append(sum((attention[j] * states[j] for j in rest), np.zeros(len(states[0]))))
    return np.array(made)


def merge_pairs(states, sizes, places, keys, count):
    """ToMe's step on one image, the class token first."""
    first, second = list(range(0, len(states), 2)), list(range(1, len(states), 2))
    best = {}
    for i in first[1:]:
        likeness = [cosine(keys[i], keys[j]) for j in second]
        best[i] = (max(likeness), second[likeness.index(max(likeness))])
    gone = sorted(best, key=lambda i: (-best[i][0], i))[:count]
    tokens = {i: (sizes[i] * states[i], sizes[i]) for i in range(len(states))}
    for i in gone:
        into = best[i][1]
        tokens[into] = (tokens[into][0] + tokens[i][0], tokens[into][1] + tokens[i][1])
    left = [i for i in first if i not in gone] + second
    return (
        np.array([tokens[i][0] / tokens[i][1] for i in left]),
        [tokens[i][1] for i in left],
        [places[i] for i in left],
    )


def ficoco_scores(logits, places, side, beta):
    patches = range(1, len(logits))
    seen = np.array([logits[0][j] for j in patches])
    looks = np.array([np.mean([logits[i][j] for j in patches]) for i in patches])
    scores = beta * seen / np.linalg.norm(seen) - (1 - beta) * looks / np.linalg.norm(looks)
    result = list(scores)
    for top in range(0, side, 2):
        for left in range(0, side, 2):
            inside = [k for k, place in enumerate(places)
                      if top <= place // side < top + 2 and left <= place % side < left + 2]  # fmt: skip
            if inside:
                least = min(inside, key=lambda k: (scores[k], k))
                result[least] = scores[least] / 2 if scores[least] > 0 else scores[least] * 2
    return result


def ficoco_merge(states, logits, places, count, side, beta):
    scores = ficoco_scores(logits, places, side, beta)
    gone = sorted(1 + k for k in sorted(range(len(scores)), key=lambda k: (scores[k], k))[:count])
    left = [i for i in range(len(states)) if i not in gone]
    above = [sum(1 for x in logits[i] if x > np.quantile(logits[i], 0.998)) for i in gone]
    many = max([*above, 1])
    sums, weights = {i: states[i].copy() for i in left}, dict.fromkeys(left, 1.0)
    for i in gone:
        chances = np.exp(logits[i] - np.max(logits[i]))
        targets = sorted(left, key=lambda j: (-chances[j], j))[:many]
        for j in targets:
            share = chances[j] / sum(chances[k] for k in targets)
            sums[j] += share * states[i]
            weights[j] += share
    return np.array([sums[i] / weights[i] for i in left]), left


def to_power(gain, base, power):
    return Fraction(gain) * Fraction(base) ** power


def salient_cover(states, saliency, count, power=1):
    size = len(states)
    likeness = [[cosine(a, b) for b in states] for a in states]
    chosen, covered = [], [0.0] * size
    while len(chosen) < count:
        gains = []
        for j in range(size):
            more = sum(max(likeness[i][j] - covered[i], 0.0) for i in range(size))
            gains.append(-math.inf if j in chosen else to_power(more, saliency[j], power))
        best = gains.index(max(gains))
        chosen.append(best)
        covered = [max(covered[i], likeness[i][best]) for i in range(size)]
    return sorted(chosen)


def hierarchical(middle, last, columns, count, share):
    size, anchors = len(middle), ranked(middle)[: round(count * share / 5)]
    while True:
        kept = {min(max(a + step, 0), size - 1) for a in anchors for step in (0, -1, 1, -columns, columns)}
        if len(kept) <= count:
            break
        anchors = anchors[:-1]
    for patch in ranked(last):
        if len(kept) < count:
            kept.add(patch)
    return sorted(kept)


def scanned(local, whole, columns, count, window):
    windows = {}
    for patch in range(len(local)):
        windows.setdefault((patch // columns // window, patch % columns // window), []).append(patch)
    each, chosen = int(count * 0.5) // len(windows), []
    for own in windows.values():
        chosen += [own[k] for k in ranked([local[i] for i in own])[:each]]
    for patch in ranked(whole):
        if len(chosen) < count and patch not in chosen:
            chosen.append(patch)
    return sorted(chosen)


def merged_into_nearest(features, chosen):
    groups = {i: [features[i]] for i in chosen}
    for other in range(len(features)):
        if other not in chosen:
            likeness = [cosine(features[other], features[i]) for i in chosen]
            groups[chosen[likeness.index(max(likeness))]].append(features[other])
    return np.array([np.mean(groups[i], axis=0) for i in chosen])


def essential(states, attention, count, heads):
    """PruneSID: groups by principal components, without near-duplicates first, in the released proportions."""
    size = len(states)
    seen = 1 / (1 + np.exp(-np.asarray(states).T))
    loading = np.abs(np.linalg.svd(seen - seen.mean(0))[2].T)[:, : min(max(count // 4, 1), count - heads)]
    group = [ranked(row)[0] for row in loading]
    likeness = [[cosine(a, b) for b in states] for a in states]
    if attention is None:
        scores = [round(loading[i][group[i]], 9) for i in range(size)]
        every = [likeness[i][j] if i <= j else 0.0 for i in range(size) for j in range(size)]
        threshold = max(count / (size / 18), 1) * np.mean(every)
    else:
        scores, pairs = attention, [likeness[i][j] for i in range(size) for j in range(i + 1, size)]
        threshold = count / 32 * np.mean(pairs)
    orders, distinct = [], []
    for g in range(loading.shape[1]):
        left = [i for i in range(size) if group[i] == g]
        rest, first = [left[k] for k in ranked([scores[i] for i in left])], []
        waiting = list(rest)
        while waiting:
            best = waiting.pop(0)
            first.append(best)
            waiting = [i for i in waiting if not likeness[best][i] > threshold]
        orders.append(first + [i for i in rest if i not in first])
        distinct.append(len(first))
    least = [min(len(of), 1) for of in orders]
    most = [min(5 * math.ceil(count / 64), len(of), own) for of, own in zip(orders, distinct, strict=True)]
    while sum(most) < count:
        most = [min(bound + 1, len(of)) for bound, of in zip(most, orders, strict=True)]
    others, until, shares = count - heads - sum(least), 0, []
    for g in range(len(orders)):
        now = round(Fraction(sum(distinct[: g + 1]), sum(distinct)) * others)
        shares.append(min(now - until + least[g], most[g]))
        until = now
    for g in ranked(distinct):
        while sum(shares) < count - heads and shares[g] < most[g]:
            shares[g] += 1
    return [i for of, share in zip(orders, shares, strict=True) for i in of[:share]]


def head_weighted(queries, keys, weights):
    """HAWK, query heads in groups of those that share a key head: ``queries`` [H][W], ``keys`` [G][N]."""
    share, scores = len(queries) // len(keys), [0.0] * len(keys[0])
    for head, weight in enumerate(weights):
        products = [np.mean([float(q @ k) for q in queries[head]]) for k in keys[head // share]]
        length = math.sqrt(sum(x * x for x in products)) or 1.0
        scores = [s + weight * x / length for s, x in zip(scores, products, strict=True)]
    return scores
