"""How far a count of successes can be trusted."""

from __future__ import annotations

from scipy.stats import binomtest


def wilson_interval(successes: int, images: int) -> tuple[float, float]:
    """The 95 % interval of a rate, Wilson's, which holds up near 0 and 1.

    Args:
        successes: from 0 to ``images``.
        images: how many were tried, at least 1.

    Returns:
        Its ends, in [0, 1].
    """
    interval = binomtest(successes, images).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
