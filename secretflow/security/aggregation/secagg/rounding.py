"""Rounding: updates as a few bits a number, of which the sum of all parties is exact.

A party rounds its part of the average, ``share * update``, to a whole number of steps. All parties have the
same step, so the sum of what they upload is the average in steps. A number is rounded up with a chance of
what is behind its point, so its expectation is the number itself (Alistarh et al., "QSGD", NeurIPS 2017,
section 3.1, with one scale for a whole layer).
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from secretflow import _validate

from .lane_kernels import lane_kernels_for
from .lanes import Lanes
from .pads import Pads

UPLOAD_BITS = (8, 4, 2)

_WORD = 64
_OFF = 2.0**-40  # more than float64 is off in a share times the steps, of which there are less than 2^15
_RANDOM = np.dtype("<u2")
_MOST_STEPS = 2**15 - 1  # of int16
_BOUND_BY_LARGEST = {8: 2.0, 4: 1.0, 2: 1.0}


def check_upload_bits(bits: int | None) -> None:
    """Refuses bits that no update is rounded to.

    Raises:
        ValueError: they are not 8, 4 or 2, and not None.
    """
    _validate.one_of("upload_bits", bits, (*UPLOAD_BITS, None))


@dataclass(frozen=True)
class Rounding:
    """What updates of a number of parties are rounded to, and how they share lanes.

    With b bits and n parties a number costs less than ``b + ceil(log2 n)`` bits of the upload: a lane has
    one bit less than so many for each of its numbers, which pays for headers. The bound of a layer has
    :attr:`steps` steps, of which a party has its share: with equal shares at least 106, 5.9 or 0.78 on either
    side of zero, for 8, 4 and 2 bits. A larger weight has more steps, never a larger step.

    What is opened is exactly the sum of what the parties have rounded. Where nobody's number is beyond its
    limit, its expectation is the average, to ``2^-17`` of a step of each party and, for float32, ``2^-22`` of
    its number; it differs from it by less than n steps, and its standard deviation is at most
    ``sqrt(n) / 2`` steps. Where parties have pruned an element, all of that is divided by the share of the
    weight that is left. What is beyond the limit is clipped; it and what was rounded off are in the party's
    next update.

    Attributes:
        bits: b.
        parties: n.
        lanes: of what is uploaded.
        steps: how many steps the bound of a layer has.
    """

    bits: int
    parties: int
    lanes: Lanes
    steps: int

    @classmethod
    def make(cls, bits: int, parties: int, packed: bool = True) -> Rounding:
        """The rounding of an aggregation.

        Args:
            bits: see the class.
            parties: see the class.
            packed: whether lanes are packed; if not they are whole words, and a number costs up to a quarter
                more.
        """
        each = bits + (parties - 1).bit_length()
        per_lane = _WORD // each
        lane_bits = per_lane * each - 1 if packed else _WORD
        base = math.floor(2 ** (lane_bits / per_lane))
        half = min((base - 1) // 2, _MOST_STEPS)
        # Each party's number may be rounded up by less than one step beyond its share of the bound.
        return cls(bits, parties, Lanes(2 * half + 1, per_lane, lane_bits, signed=True), half - parties + 1)

    def bound(self, largest: float) -> float:
        """The bound of a layer: beyond it a party's numbers are clipped.

        It goes by the mean over the parties of the largest magnitude in the layer, which costs one secure sum
        and shows nobody's. A secure maximum would take an exchange for every bit of it, and would show that
        of one party as it is. What the last average changed is public, but says little of one party's update
        where the parties' differ, and a clipped average would make the next bound smaller still.

        Args:
            largest: the mean.
        """
        return _BOUND_BY_LARGEST[self.bits] * largest

    def step(self, bound: float) -> float:
        """The size of a step in the average.

        Args:
            bound: of the layer.
        """
        return bound / self.steps

    def limit(self, share: float) -> int:
        """The most steps that a party uploads of a number.

        The limits of all parties, whose shares add up to 1, add up to less than ``steps + parties``, which is
        at most 32,768: so none is too large for what it is kept in.

        Args:
            share: of the party in the weight of all, in [0, 1].
        """
        return math.ceil(share * self.steps * (1 - _OFF))

    def scale(self, bound: float, share: float) -> float:
        """How many steps a party's update of 1.0 is.

        Args:
            bound: of the layer.
            share: of the party.
        """
        return share * self.steps / bound if bound else 0.0

    def round_off(
        self, steps: np.ndarray, rest: np.ndarray, bound: float, share: float, key: bytes, number: int = 0
    ) -> int:
        """Rounds a party's update of one layer.

        The mean of a number over all keys is the number, to ``2^-17`` of a step and what float32 cannot hold
        of it, unless it is clipped.

        Args:
            steps: int16, to be written.
            rest: float32 or float64, one-dimensional, finite; what is rounded off or clipped is left there.
            bound: of the layer.
            share: of the party.
            key: 32 bytes of the party's own, for this round.
            number: of the layer.

        Returns:
            How many numbers were beyond the party's limit.
        """
        random = Pads([(key, False)], number)
        round_off = lane_kernels_for(rest.size, rest.dtype).round_off
        scale, limit, clipped = self.scale(bound, share), self.limit(share), 0
        piece = Pads.piece(_RANDOM)
        for start in range(0, rest.size, piece):
            part = slice(start, start + piece)
            drawn = random.draw(steps[part].size, _RANDOM)
            clipped += round_off(steps[part], rest[part], drawn, scale, limit)
        return clipped


def rounding_key(seed: int | None, party: str, epoch: int, number: int) -> bytes:
    """The key of a party's own generator in one round, so that a run that goes on rounds as it would have.

    Nothing that is hidden rests on its being secret: others who know the seed know how a party rounds.

    Args:
        seed: of the fit; None draws a key that nobody knows, and no run repeats.
        party: own name.
        epoch: how many epochs have been trained before the round.
        number: of the round in its epoch.
    """
    if seed is None:
        return secrets.token_bytes(32)
    return sha256(repr(("rounding", seed, party, epoch, number)).encode()).digest()


def rounded_update(
    update: np.ndarray, bits: int, parties: int, key: bytes, largest: float | None = None
) -> np.ndarray:
    """One layer's update as it is after rounding, as an attacker behind the aggregation would see it alone.

    Args:
        update: float32 or float64, of any shape; it stays as it is.
        bits: 8, 4 or 2.
        parties: how many upload, with equal weights.
        key: 32 bytes that decide how is rounded.
        largest: mean over the parties of the largest magnitude in the layer; None takes that of ``update``.

    Returns:
        An array of the same shape and dtype; of many roundings with different keys the mean is ``update``,
        where it is within the bound.

    Raises:
        ValueError: ``bits`` are none that updates are rounded to.
    """
    check_upload_bits(bits)
    rounding = Rounding.make(bits, parties)
    found = float(np.max(np.abs(update), initial=0)) if largest is None else largest
    bound, share = rounding.bound(found), 1 / parties
    rest = update.ravel().copy()
    steps = np.empty(rest.size, np.int16)
    rounding.round_off(steps, rest, bound, share, key)
    rounded = steps * (rounding.step(bound) / share)
    return np.asarray(rounded.astype(update.dtype).reshape(update.shape))
