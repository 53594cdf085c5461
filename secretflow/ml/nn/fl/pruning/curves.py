"""How the density falls over the epochs of pruning: curves of a schedule, as pure functions."""

from __future__ import annotations

EPOCHS_OF_CUBIC = 2
"""How long a cubic takes where nobody says; long enough for the average to tell weights apart."""

_EPOCHS_OF_FAST_PART = 1
_SLOW_PART = 1 / 2


def cubic(progress: float, end: float) -> float:
    """A cubic that falls from 1, fast at first, and stays at its end.

    Source: Zhu and Gupta, "To prune, or not to prune", 2017, section 3.

    Args:
        progress: part of the way that is behind, at least 0; 1 and more is the end.
        end: density in the end, in (0, 1].
    """
    return end + (1 - end) * (1 - min(1.0, progress)) ** 3


def cubic_geometric(passed: float, last: float, end: float) -> float:
    """A cubic to half of the way within an epoch, counted in factors, and equal factors for the rest.

    Args:
        passed: epochs of pruning that are behind, at least 0.
        last: epochs of pruning in all, above 0.
        end: density in the end, in (0, 1].
    """
    lowest: float = end ** (1 - (1 - min(1.0, passed / last)) * _SLOW_PART)
    return cubic(passed / min(_EPOCHS_OF_FAST_PART, last), lowest)
