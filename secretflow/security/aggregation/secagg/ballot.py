"""What a party says of each element when masks are agreed on, and what the sum of all parties' says.

A party adds 1 where it contributes and a large number where it leaves: where its numbers are in an earlier
sum and would not be in the next one. If nobody leaves, the sum is the number of contributors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_WIDTHS = {15: "u1", 255: "<u2", 2**16 - 1: "<u4"}  # so many parties can all leave without an overflow


def ballot(
    contributes: Sequence[np.ndarray | None], leaves: Sequence[np.ndarray | None], parties: int
) -> np.ndarray:
    """What one party says, of all arrays with a mask in one row.

    Args:
        contributes: for each array where it would add its numbers, boolean; None without a mask.
        leaves: likewise where it has added some before and would no more.
        parties: how many say something, at most 65,535.

    Returns:
        For each element one byte, or two of more than 15 parties, or four of more than 255.
    """
    dtype, large = _wide(parties)
    says = [np.empty(0, dtype)]
    for added, left in zip(contributes, leaves, strict=True):
        if added is not None:
            says.append(added.astype(dtype))
            says[-1][left] = large
    return np.concatenate(says)


def tally(total: np.ndarray, parties: int) -> np.ndarray:
    """How many contribute to each element that may travel.

    Args:
        total: the sum of all parties' ballots.
        parties: how many there are.

    Returns:
        uint8, or of more than 255 parties uint16; 0 where somebody leaves.
    """
    _, large = _wide(parties)
    return np.where(total < large, total, 0).astype(np.min_scalar_type(parties))


def _wide(parties: int) -> tuple[np.dtype, int]:
    most = next(most for most in _WIDTHS if parties <= most)
    return np.dtype(_WIDTHS[most]), most + 1
