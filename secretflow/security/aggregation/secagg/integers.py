"""Sums of a few integers that the server cannot change unseen: counts that decide what is uploaded."""

from __future__ import annotations

import numpy as np

from .errors import DisagreementError, wrong_sum
from .keyring import KeyRing
from .message import Message
from .opening import check_sum
from .rules import MOST_PARTIES
from .transcript import Transcript

LIMBS = 4
"""Ring elements for each integer."""

_LIMBS = np.arange(0, 64, 16, dtype="<u8")[:, None]
_LIMB = np.uint64(2**16 - 1)
_LARGEST_SUM = MOST_PARTIES * 2**16
"""Of limbs of all parties: what a server adds without being out of range is less than 2^26, see
:func:`~.checksum.checksum`."""


def upload_integers(keys: KeyRing, transcript: Transcript, call: int, numbers: np.ndarray) -> Message:
    """Pads integers and their checksum.

    Args:
        keys: of this party.
        transcript: what it was told.
        call: number of the call.
        numbers: int64.
    """
    limbs = ((numbers.reshape(1, -1).view("<u8") >> _LIMBS) & _LIMB).ravel()
    pads = keys.pads(call, transcript.digest)
    check = keys.checksum(limbs)
    pads.add_to(limbs)
    pads.add_to(check)
    encoding = f"integers session={keys.session}"
    return Message(call=call, layout=str(numbers.shape), encoding=encoding, body=[limbs, check])


def open_integers(
    keys: KeyRing, transcript: Transcript, call: int, shape: tuple[int, ...], total: Message
) -> np.ndarray:
    """Reads the sum of all parties' integers.

    Args:
        keys: of this party.
        transcript: of this party; the sum is taken down there.
        call: number of the call.
        shape: of the numbers.
        total: the sum.

    Returns:
        int64.

    Raises:
        AggregationError: it is the sum of another call.
        DisagreementError: the sum was changed on its way, or the parties were not told the same before.
    """
    opened = keys.unblinded(total)
    if (total["call"], total["layout"]) != (call, str(shape)):
        raise wrong_sum(call, total["call"])
    limbs, _ = opened["body"]
    if (limbs > _LARGEST_SUM).any():
        raise DisagreementError("the parties were not told the same, so their pads do not cancel")
    check_sum(opened, int(keys.checksum(limbs)[0]))
    transcript.add(total)
    summed: np.ndarray = (limbs.reshape(_LIMBS.size, limbs.size // _LIMBS.size) << _LIMBS).sum(
        axis=0, dtype="<u8"
    )
    return summed.view("<i8").reshape(shape)
