"""Updates: how far a party's numbers are from the last average, and what was rounded off them before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from .digests import digest_of_bytes, digest_of_nothing
from .errors import AggregationError
from .lane_kernels import lane_kernels_for
from .layout import Layout
from .memory import Recycled
from .rounding import Rounding
from .support import Support

Arrays = Mapping[int, np.ndarray]
"""Arrays by their numbers among a party's."""


@dataclass(frozen=True, eq=False)
class Rounded:
    """Updates that were rounded, of the arrays whose updates travel.

    Attributes:
        steps: what travels, int16, array behind array.
        rests: for each array what was left of it.
        clipped: how many numbers were beyond the party's limit.
    """

    steps: np.ndarray
    rests: list[np.ndarray]
    clipped: int


@dataclass(frozen=True, eq=False)
class Sending:
    """How a call uploads updates, seen from one party.

    Attributes:
        updates: of the party.
        bounds: for each array whose update travels, see :meth:`.rounding.Rounding.bound`.
        key: of the party's generator, see :meth:`.rounding.Rounding.round_off`.
    """

    updates: Updates
    bounds: Sequence[float]
    key: bytes


class Updates:
    """A party's side of averages that travel as updates.

    The reference is the last average that was opened, zero where none was: the same at all parties, whatever
    masks they have. What was rounded off or clipped is added to the next update, so nothing is lost (error
    feedback: Seide et al., Interspeech 2014; Karimireddy et al., ICML 2019). It is a party's own, and
    forgotten of an element that does not travel any more.

    Args:
        arrays: own arrays.
        which: the numbers of the arrays whose updates travel; the others travel whole.

    Attributes:
        which: see the argument.
        references: by the number of an array the last average, in the array's shape.
        rests: likewise what was rounded off.
    """

    def __init__(self, arrays: Sequence[np.ndarray], which: Sequence[int]) -> None:
        self.which = tuple(sorted(which))
        self.references = {k: np.zeros_like(arrays[k], order="C") for k in self.which}
        self.rests = {k: np.zeros_like(arrays[k], order="C") for k in self.which}
        self._memory: dict[int, np.ndarray] = {}  # of differences, for a fresh one costs as much as the work
        self._steps = Recycled()
        self._found: tuple[Support, list[np.ndarray]] | None = None
        self._rounded: tuple[Layout, Rounded] | None = None
        self._sizes = self._clipped = 0

    def largest(self, arrays: Sequence[np.ndarray], support: Support, party: str) -> list[float]:
        """The largest magnitude that travels of each array whose update does.

        Args:
            arrays: own arrays.
            support: what travels.
            party: own name, for messages.

        Raises:
            AggregationError: a number is not finite.
        """
        differences, found = [], []
        for k in self.which:
            difference, largest = self._difference(k, arrays, support)
            differences.append(difference)
            found.append(largest)
            if not np.isfinite(largest):
                what = "NaN" if np.isnan(arrays[k]).any() else "infinity"
                raise AggregationError(
                    f"data[{k}] of {party} must hold finite numbers, got {what}; weights of a model "
                    "become so by NaN in its data or too high a learning rate"
                )
        self._found = support, differences
        return found

    def round_off(
        self,
        arrays: Sequence[np.ndarray],
        support: Support,
        rounding: Rounding,
        bounds: Sequence[float],
        share: float,
        key: bytes,
    ) -> Rounded:
        """Rounds the updates; nothing is kept until :meth:`take`.

        Args:
            arrays: own arrays.
            support: what travels.
            rounding: of the aggregation.
            bounds: for each array whose update travels.
            share: own share of the weight.
            key: see :meth:`.rounding.Rounding.round_off`.
        """
        rests, clipped, start = [], 0, 0
        found, self._found = self._found, None
        if found is not None and found[0] is support:
            differences = found[1]
        else:  # fewer elements travel than when the bounds were agreed on, or the numbers are uploaded again
            differences = [self._difference(k, arrays, support)[0] for k in self.which]
        steps = self._steps.take(sum(difference.size for difference in differences), np.dtype(np.int16))
        for k, rest, bound in zip(self.which, differences, bounds, strict=True):
            own, start = steps[start : start + rest.size], start + rest.size
            clipped += rounding.round_off(own, rest, bound, share, key, k)
            rests.append(rest)
        rounded = Rounded(steps, rests, clipped)
        self._rounded = support.layout, rounded
        return rounded

    def go_on(self, references: Arrays, rests: Arrays) -> None:
        """Goes on where others have ended.

        Args:
            references: theirs, as well as ``rests``; what is of another shape or of no array is left.
        """
        for own, kept in ((self.references, references), (self.rests, rests)):
            for k, array in kept.items():
                if k in own and own[k].shape == array.shape:
                    own[k][...] = array

    def begin_anew(self) -> None:
        """Forgets all averages, as they are not everybody's; an average of whole numbers comes next."""
        for array in self.references.values():
            array.fill(0)

    def come_in(self, average: Sequence[np.ndarray] | None) -> None:
        """Goes on from the last average of others; what was rounded off before is in no later update.

        The last update of who has missed an average may be in it or not. If it is, what was rounded off
        before it is in it as well, and would be added twice.

        Args:
            average: for each array the last average, zero where none was opened; None if there is none.
        """
        for k in self.which:
            self.references[k][...] = 0 if average is None else average[k]
            self.rests[k].fill(0)

    def digest(self, arrays: Sequence[np.ndarray], support: Support) -> int:
        """What is equal for parties that have the same last average, and nothing else where they contribute.

        Args:
            arrays: own arrays.
            support: what travels.

        Returns:
            48 bits; random ones if the own numbers are no average.
        """
        state = sha256()
        for k, array in enumerate(arrays):
            if k not in self.references:
                state.update(np.ascontiguousarray(array).data)
                continue
            difference, _ = self._difference(k, arrays, support, rests=False)
            if difference.any():
                return digest_of_nothing()
            state.update(self.references[k].data)
        return digest_of_bytes(state.digest())

    def reference(self, k: int) -> np.ndarray:
        """The last average of an array, flat; where none was opened, zero."""
        return self.references[k].reshape(-1)

    def take_all(self, arrays: Sequence[np.ndarray]) -> None:
        """Takes arrays that all parties have for the next reference."""
        for k in self.which:
            # A zero has a sign, which what a party has pruned takes from its own numbers.
            np.add(arrays[k], 0, out=self.references[k])

    def take(self, layout: Layout, arrays: Sequence[np.ndarray]) -> None:
        """Takes an average that was opened for the next reference.

        Args:
            layout: which elements of it travelled.
            arrays: hold the average where it travelled.
        """
        for k in self.which:
            index = layout.support[k]
            if index is None:
                self.references[k][...] = arrays[k]
            else:
                self.reference(k)[index] = arrays[k].reshape(-1)[index]
        if self._rounded is None:
            return
        (of, rounded), self._rounded = self._rounded, None
        for k, rest in zip(self.which, rounded.rests, strict=True):
            index = of.support[k]
            if index is None:
                self.rests[k], rest = rest.reshape(self.rests[k].shape), self.rests[k].reshape(-1)
            else:
                self.rests[k].fill(0)
                self.rests[k].reshape(-1)[index] = rest
            self._memory[k] = rest
            self._sizes += rest.size
        self._clipped += rounded.clipped

    def take_clipped(self) -> float:
        """What part of the numbers uploaded since this was asked last was beyond the party's limit."""
        part = self._clipped / self._sizes if self._sizes else 0.0
        self._sizes = self._clipped = 0
        return part

    def _difference(
        self, k: int, arrays: Sequence[np.ndarray], support: Support, rests: bool = True
    ) -> tuple[np.ndarray, float]:
        """What travels of an array less the reference, with what was rounded off; its largest magnitude."""
        kept = self.rests[k] if rests else np.zeros_like(self.rests[k])
        values, reference, rest = (a.reshape(-1) for a in (arrays[k], self.references[k], kept))
        index = support.layout.support[k]
        if index is not None:
            values, reference, rest = (a.take(index) for a in (values, reference, rest))
        out = self._memory.pop(k, None)
        if out is None or out.size != values.size:
            out = np.empty(values.size, np.result_type(values.dtype, np.float32))
        largest = lane_kernels_for(values.size, values.dtype).differ(out, values, reference, rest)
        absent = support.absent.get(k)
        if absent is not None:
            out[absent] = 0
            largest = float(np.max(np.abs(out), initial=0))
        return out, largest
