"""Opening: from the sum of the messages back to arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import DisagreementError, wrong_sum
from .kernels import scatter_for
from .lanes import Lanes
from .layout import Layout
from .message import PACKED, Message
from .ring import Ring, decode
from .updates import Updates

_ROUNDED_OFF = 2.0**-43  # of shares that are floats: 1000 add up to 1 within less
_CHANGED = (
    "the parties were not told the same, or a sum was changed on its way, by a failure or by a server that "
    "lies; the last sum cannot be read, begin again from what all parties have"
)


@dataclass(frozen=True, eq=False)
class Steps:
    """What travelled as updates, in steps.

    Attributes:
        arrays: the numbers of the arrays.
        sizes: of each its step.
        lanes: how the steps share them.
    """

    arrays: tuple[int, ...]
    sizes: tuple[float, ...]
    lanes: Lanes


@dataclass(frozen=True, eq=False)
class Opening:
    """All that is needed to read the sum of one call. It holds no key and no party's data.

    Attributes:
        call: number of the call.
        layout: which numbers travelled.
        layout_name: how the messages name it.
        ring: how floats were encoded.
        encoding: the messages' encoding.
        integer_divisor: what sums of integers are divided by, a number or an array that broadcasts to
            the data; None leaves them integers.
        weight_total: the sum of the weights if they are arrays, else None.
        denominators: for each element of ``layout.partial`` the share of the total weight that the
            parties that keep it hold, float64 in (0, 1]; None when the messages carry them.
        weight_unit: where parties may be gone, what the element with the weight of those who are there would
            be for all who were weighed; None where messages carry none.
        steps: what travelled as updates; None if everything travelled whole.
    """

    call: int
    layout: Layout
    layout_name: str
    ring: Ring
    encoding: str
    integer_divisor: float | np.ndarray | None
    weight_total: np.ndarray | None
    denominators: np.ndarray | None
    weight_unit: float | None = None
    steps: Steps | None = None

    @property
    def lane_size(self) -> int:
        """How many lanes the updates took."""
        return 0 if self.steps is None else self.steps.lanes.size_of(self._stepped)

    @property
    def _stepped(self) -> int:
        """How many numbers travelled as updates."""
        return 0 if self.steps is None else sum(self.layout.sizes[k] for k in self.steps.arrays)

    @property
    def _whole(self) -> int:
        """How many floats travelled whole."""
        return self.layout.float_size - self._stepped

    def read_denominators(self, total: Message) -> np.ndarray:
        """The denominators, known or as they came with this call."""
        if self.denominators is not None:
            return self.denominators
        return decode(total["body"][0][self._whole :], share_one(self.ring))

    def read_share(self, total: Message) -> float:
        """The share of the weight behind the elements that are not partial: 1 where all are there.

        Raises:
            DisagreementError: there is no such share, so the sum was changed.
        """
        if self.weight_unit is None:
            return 1.0
        share = _weight_of(total) / self.weight_unit
        if not 0 < share <= 1 + _ROUNDED_OFF:
            raise DisagreementError(_CHANGED)
        return 1.0 if share >= 1 - _ROUNDED_OFF else share

    def _divisor(self, total: Message) -> float | np.ndarray | None:
        """What sums of integers are divided by if only those who are there are in the sum."""
        if self.weight_unit is None or self.integer_divisor is None:
            return self.integer_divisor
        # In this order exact, as the divisor is all the weight or both are powers of two.
        return self.integer_divisor / self.weight_unit * _weight_of(total)

    def check(self, total: Message) -> None:
        """Looks whether a sum is the expected one.

        Raises:
            AggregationError: it is that of another call, layout or encoding.
            DisagreementError: the pads of the uploads do not cancel.
        """
        expected = (self.call, self.layout_name, self.encoding)
        if (total["call"], total["layout"], total["encoding"]) != expected:
            raise wrong_sum(self.call, total["call"])
        check_sum(total, 0)

    def open(self, total: Message) -> np.ndarray | list[np.ndarray]:
        """Decodes a sum and puts its numbers where they belong; what did not travel is 0.

        Raises:
            AggregationError: the sum is that of another call, layout or encoding.
        """
        of_integers = "<i8" if self.integer_divisor is None else "<f8"
        arrays = [
            np.zeros(shape, dtype if np.dtype(dtype).kind == "f" else of_integers)
            for shape, dtype in zip(self.layout.shapes, self.layout.dtypes, strict=True)
        ]
        self.write(total, arrays)
        return arrays if self.layout.is_list else arrays[0]

    def write(self, total: Message, arrays: Sequence[np.ndarray], updates: Updates | None = None) -> None:
        """Decodes a sum into arrays; what did not travel keeps its value there.

        Args:
            total: the sum, nothing of it packed.
            arrays: of the shapes of the data, changed in place.
            updates: say what the updates are of, if there are any.

        Raises:
            AggregationError: the sum is that of another call, layout or encoding; nothing was changed then.
        """
        self.check(total)
        layout = self.layout
        numbers, scale = self._numbers(total)
        share = self.read_share(total)
        if layout.partial.size or share != 1.0:
            numbers, scale = numbers / scale, 1.0
            denominators = self.read_denominators(total)
            # Where the division has nothing to divide by, no weight stands behind the element.
            partial = numbers[layout.partial] / np.where(denominators > 0, denominators, 1.0)
            numbers /= share
            numbers[layout.partial] = partial
        for k, place in layout.float_places:
            index, array = layout.support[k], arrays[k]
            if updates is not None and self.steps is not None and k in self.steps.arrays:
                reference = updates.reference(k)
                numbers[place] += reference if index is None else reference.take(index)
            if index is None:
                np.divide(numbers[place].reshape(array.shape), scale, out=array, casting="unsafe")
            elif array.flags.c_contiguous:
                scatter = scatter_for(layout.dense_float_size, array.dtype)
                scatter(array.reshape(-1), index, numbers[place], scale)
            else:
                array.flat[index] = numbers[place] / scale  # a reshaped array would be a copy
        integers, divisor = total["body"][1].view("<i8"), self._divisor(total)
        for k, place in layout.integer_places:
            whole = integers[place].reshape(layout.shapes[k])
            values = whole if divisor is None else _divided(whole, divisor, arrays[k].dtype)
            np.copyto(arrays[k], values, casting="unsafe")

    def _numbers(self, total: Message) -> tuple[np.ndarray, float]:
        """The sums of all floats that travelled, and what they are to be divided by."""
        elements = total["body"][0][: self._whole]
        signed = elements.view(elements.dtype.str.replace("u", "i"))
        if self.steps is None:
            return signed, self.ring.one
        numbers, places = np.empty(self.layout.float_size), dict(self.layout.float_places)
        for k, place in self.layout.floats_without(self.steps.arrays):
            numbers[places[k]] = signed[place] / self.ring.one
        steps = self.steps.lanes.split(total["body"][PACKED], self._stepped)
        sized = zip(self.layout.places(self.steps.arrays), self.steps.sizes, strict=True)
        for (k, place), size in sized:
            np.multiply(steps[place], size, out=numbers[places[k]])
        return numbers, 1.0


def _divided(whole: np.ndarray, divisor: float | np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Quotients of integers, for an array of integers cut off towards zero; exact above 2^53 as well."""
    by = np.rint(divisor).astype(np.int64)
    if (by != divisor).any() or (by == 0).any():
        return whole / divisor
    quotients = np.abs(whole) // np.abs(by) * np.sign(whole) * np.sign(by)
    return quotients if dtype.kind in "iu" else quotients + (whole - quotients * by) / by


def check_sum(total: Message, expected: int) -> None:
    """Looks whether the last number of a sum, which all parties add a pad to as well, is the expected one.

    Raises:
        DisagreementError: it is not.
    """
    if int(total["body"][-1][0]) != expected:
        raise DisagreementError(_CHANGED)


def _weight_of(total: Message) -> int:
    """How much those weigh whose numbers are in a sum that tells it."""
    return int(total["body"][-2][0])


def share_one(ring: Ring) -> float:
    """Ring units for a share of 1.0. No share is above 1, so all bits but two are fractional."""
    return 2.0 ** (ring.bits - 2)
