"""What a share of a finite sample says about the share behind it."""

import math


def clopper_pearson_upper(errors: int, n: int, *, confidence: float) -> float:
    """The exact upper bound of an error rate of which `errors` of `n` were seen.

    With probability `confidence` the true rate is not above it. Source: Clopper and Pearson, 1934.
    """
    if errors >= n:
        return 1.0
    low, high = errors / n, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if at_most(errors, n, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def clopper_pearson(errors: int, n: int, *, confidence: float) -> tuple[float, float]:
    """The exact two-sided interval, as much error on each side."""
    one_sided = (1 + confidence) / 2
    upper = clopper_pearson_upper(errors, n, confidence=one_sided)
    return 1 - clopper_pearson_upper(n - errors, n, confidence=one_sided), upper


def at_most(k: int, n: int, p: float) -> float:
    """The probability of at most `k` successes in `n` trials of probability `p`."""
    if p <= 0 or k >= n:
        return 1.0
    if p >= 1:
        return 0.0
    return min(1.0, math.fsum(math.exp(_log_probability(i, n, p)) for i in range(k + 1)))


def least_escalation(error: float, max_local_error: float, *, declined: float = 0.0) -> float:
    """The share of questions that must be escalated at least, however good the gate.

    Of a model that is wrong in a share `error` of all questions, so that of what it keeps at most
    `max_local_error` is wrong: an ideal gate drops nothing but wrong answers. `declined` is the
    share, counted as wrong, that the model itself leaves to others.
    """
    return max(declined, (error - max_local_error) / (1 - max_local_error))


def _log_probability(k: int, n: int, p: float) -> float:
    choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return choose + k * math.log(p) + (n - k) * math.log1p(-p)
