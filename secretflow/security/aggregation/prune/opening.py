"""Opening: from the sum of the payloads back to arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import AggregationError
from .frame import Frame
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

    def open(self, total: Payload) -> np.ndarray | list[np.ndarray]:
        """Decodes a sum and puts its numbers where they belong; what did not travel is 0.

        Raises:
            AggregationError: the sum is that of another call, frame or encoding.
        """
        expected = (self.call, self.frame_name, self.encoding)
        if (total["call"], total["frame"], total["encoding"]) != expected:
            raise AggregationError(f"expected the sum of call {self.call}, got that of call {total['call']}")
        frame = self.frame
        floats = decode(total["body"][0][: frame.float_size], self.ring.one)
        if frame.partial.size:
            denominators = self.read_denominators(total)
            # Where the division has nothing to divide by, no weight stands behind the element.
            floats[frame.partial] /= np.where(denominators > 0, denominators, 1.0)
        integers = total["body"][1].view("<i8")
        arrays = [np.empty(0)] * len(frame.shapes)
        for k, place in frame.slices("f"):
            arrays[k] = _place(floats[place], frame, k)
        for k, place in frame.slices("iu"):
            arrays[k] = integers[place].reshape(frame.shapes[k])
            if self.integer_divisor is not None:
                arrays[k] = arrays[k] / self.integer_divisor
        return arrays if frame.is_list else arrays[0]


def share_one(ring: Ring) -> float:
    """Ring units for a share of 1.0. Shares need no room above 1, so all bits but two are fractional."""
    return 2.0 ** (ring.bits - 2)


def _place(values: np.ndarray, frame: Frame, k: int) -> np.ndarray:
    index = frame.support[k]
    if index is None:
        return values.astype(frame.dtypes[k]).reshape(frame.shapes[k])
    array = np.zeros(frame.shapes[k], frame.dtypes[k])
    array.reshape(-1)[index] = values
    return array
