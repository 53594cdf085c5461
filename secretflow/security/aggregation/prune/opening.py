"""Opening: from the sum of the payloads back to arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import AggregationError
from .frame import Frame
from .kernels import scatter_for
from .payload import Payload
from .ring import Ring, decode


@dataclass(frozen=True, eq=False)
class Opening:
    """All that is needed to read the sum of one call. It holds no key and no party's data.

    Attributes:
        call: number of the call.
        frame: which numbers travelled.
        frame_name: how the payloads name it.
        ring: how floats were encoded.
        encoding: the payloads' encoding.
        integer_divisor: what sums of integers are divided by, a number or an array that broadcasts to
            the data; None leaves them integers.
        weight_total: the sum of the weights if they are arrays, else None.
        denominators: for each element of ``frame.partial`` the share of the total weight that the
            parties that keep it hold, float64 in (0, 1]; None when the payloads carry them.
    """

    call: int
    frame: Frame
    frame_name: str
    ring: Ring
    encoding: str
    integer_divisor: float | np.ndarray | None
    weight_total: np.ndarray | None
    denominators: np.ndarray | None

    def read_denominators(self, total: Payload) -> np.ndarray:
        """The denominators, known or as they came with this call."""
        if self.denominators is not None:
            return self.denominators
        return decode(total["body"][0][self.frame.float_size :], share_one(self.ring))

    def check(self, total: Payload) -> None:
        """Looks whether a sum is the expected one.

        Raises:
            AggregationError: it is that of another call, frame or encoding.
        """
        expected = (self.call, self.frame_name, self.encoding)
        if (total["call"], total["frame"], total["encoding"]) != expected:
            raise AggregationError(f"expected the sum of call {self.call}, got that of call {total['call']}")

    def open(self, total: Payload) -> np.ndarray | list[np.ndarray]:
        """Decodes a sum and puts its numbers where they belong; what did not travel is 0.

        Raises:
            AggregationError: the sum is that of another call, frame or encoding.
        """
        of_integers = "<i8" if self.integer_divisor is None else "<f8"
        arrays = [
            np.zeros(shape, dtype if np.dtype(dtype).kind == "f" else of_integers)
            for shape, dtype in zip(self.frame.shapes, self.frame.dtypes, strict=True)
        ]
        self.write(total, arrays)
        return arrays if self.frame.is_list else arrays[0]

    def write(self, total: Payload, arrays: Sequence[np.ndarray]) -> None:
        """Decodes a sum into arrays; what did not travel keeps its value there.

        Args:
            total: the sum.
            arrays: of the shapes of the data, changed in place.

        Raises:
            AggregationError: the sum is that of another call, frame or encoding; nothing was changed then.
        """
        self.check(total)
        frame = self.frame
        elements, scale = total["body"][0][: frame.float_size], self.ring.one
        numbers = elements.view(elements.dtype.str.replace("u", "i"))
        if frame.partial.size:
            numbers, scale = decode(elements, scale), 1.0
            denominators = self.read_denominators(total)
            # Where the division has nothing to divide by, no weight stands behind the element.
            numbers[frame.partial] /= np.where(denominators > 0, denominators, 1.0)
        for k, place in frame.float_places:
            index, array = frame.support[k], arrays[k]
            if index is None:
                np.divide(numbers[place].reshape(array.shape), scale, out=array, casting="unsafe")
            elif array.flags.c_contiguous:
                scatter = scatter_for(frame.dense_float_size, array.dtype)
                scatter(array.reshape(-1), index, numbers[place], scale)
            else:
                array.flat[index] = numbers[place] / scale  # a reshaped array would be a copy
        integers = total["body"][1].view("<i8")
        for k, place in frame.integer_places:
            whole = integers[place].reshape(frame.shapes[k])
            values = whole if self.integer_divisor is None else whole / self.integer_divisor
            np.copyto(arrays[k], values, casting="unsafe")


def share_one(ring: Ring) -> float:
    """Ring units for a share of 1.0. Shares need no room above 1, so all bits but two are fractional."""
    return 2.0 ** (ring.bits - 2)
