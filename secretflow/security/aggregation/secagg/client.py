"""The client of the aggregation: what one party sends, and how it reads the sums that come back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .agreeing import Agreeing
from .call import Call, Operation
from .encoder import Encoder
from .errors import AggregationError
from .identity import Identities
from .inputs import as_arrays
from .layout import Layout
from .memory import Recycled
from .message import Message, unpacked
from .opening import Opening, Steps, share_one
from .pads import Pads
from .rounding import Rounding
from .rules import Rules
from .stages import Uploaded
from .support import Support
from .updates import Sending, Updates
from .usage import timed
from .weights import AggregationWeights


class Client(Agreeing):
    """One party's side of the aggregation, for arguments and attributes see :class:`~.agreeing.Agreeing`."""

    _tells_weight = False  # whether the sum of those who are there says how much they weigh
    _packs = True  # whether the server can unpack

    def __init__(
        self,
        party: str,
        names: Sequence[str],
        rules: Rules,
        identities: Identities | None = None,
    ) -> None:
        super().__init__(party, names, rules, identities)
        self._memory, self._memory_of_words = Recycled(), Recycled()
        self._dense_layout: Layout | None = None
        bits, parties = rules.upload_bits, len(names)
        self._rounding = None if bits is None else Rounding.make(bits, parties, self._packs)

    @property
    def rounding(self) -> Rounding:
        """What updates are rounded to.

        Raises:
            AggregationError: the rules say that all numbers travel whole.
        """
        if self._rounding is None:
            raise AggregationError("upload_bits must be 8, 4 or 2 for updates to travel, got None")
        return self._rounding

    @timed
    def upload(self, call: Call, data: Any) -> Message:
        """Encodes and pads the own numbers.

        Args:
            call: what for.
            data: own arrays.

        Returns:
            ``body[0]``: floats that travel whole, followed by the denominators of partial elements if they
            are not known yet; ``body[1]``: integers; where updates travel ``body[PACKED]`` has them; last a
            padded zero, by which all see whether the pads cancel. Where parties may be gone the own weight
            stands before it.

        Raises:
            AggregationError: the input is not allowed, or a number does not fit into the ring. Nothing
                is uploaded then.
        """
        arrays, is_list = as_arrays(data)
        ring, support, average = self.rules.ring, call.support, call.operation is Operation.AVERAGE
        weights = self.weights_of(()) if call.weights is None else call.weights
        weights.check_counting(self.rules, support is not None, support.uncounted if support else None)
        layout = support.layout if support else self._dense_for(arrays, is_list)
        if not layout.fits(arrays, is_list):
            raise AggregationError(
                "the parties have not settled masks for data of these shapes and types: give new mask objects"
            )
        self.contributions.check(layout, support, weights.counts)
        denominators = support.denominators_for(weights) if support else None
        carried = layout.partial.size if denominators is None else 0

        pads = self.keys.pads(call.number, self.transcript.digest)
        body = self._written(call, arrays, layout, weights, carried, pads)
        weight_unit, steps = None, None
        if call.sending is not None:
            assert support is not None  # updates are of what was agreed on
            steps, lanes = self._steps(call.sending, arrays, support, float(weights.own), pads)
            body.append(lanes)
        last = np.zeros(1, "<u8")  # in the sum as well, if all have the same pads
        if self._tells_weight and average:
            own_weight, weight_unit = weights.as_element()
            last = np.concatenate([own_weight, last])
        pads.add_to(last)
        if last.size > 1:
            body.append(last[:-1])

        encoding = (
            f"{call.operation.value} ring={ring.bits} fxp={ring.fxp_bits} "
            f"exact={weights.exact} denominators={carried}"
        )
        message = self._message(call.number, layout, encoding, [*body, last[-1:]])
        if steps is not None and steps.lanes.is_packed:
            message["lane_bits"] = steps.lanes.bits
        self.usage.count_round(sum(part.nbytes for part in body))
        opening = Opening(
            call=call.number,
            layout=layout,
            layout_name=message["layout"],
            ring=ring,
            encoding=message["encoding"],
            integer_divisor=(weights.total if weights.exact else ring.one) if average else None,
            weight_total=weights.total if average and np.ndim(weights.total) else None,
            denominators=denominators,
            weight_unit=weight_unit,
            steps=steps,
        )
        self._pending = Uploaded(opening, weights, support)
        self._record(layout, support, weights)
        return message

    def _written(
        self,
        call: Call,
        arrays: Sequence[np.ndarray],
        layout: Layout,
        weights: AggregationWeights,
        carried: int,
        pads: Pads,
    ) -> list[np.ndarray]:
        """The padded floats that travel whole, with so many denominators behind them, and the integers."""
        ring, support = self.rules.ring, call.support
        absent = support.absent if support else {}
        average = call.operation is Operation.AVERAGE
        encoder = Encoder(self.party, ring, layout, weights, average, pads, absent, call.fingerprint)
        places = layout.floats_without(call.sending.updates.which if call.sending else ())
        whole = places[-1][1].stop if places else 0
        floats = self._memory.take(whole + carried, ring.dtype)
        integers = np.empty(layout.integer_size, "<u8")
        encoder.write_floats(floats[:whole], arrays, places)
        if support is not None and carried:
            own = round(float(weights.own) * share_one(ring))
            floats[whole:] = support.has_partial * own
            pads.add_to(floats[whole:])
        encoder.write_integers(integers, arrays)
        return [floats, integers]

    @timed
    def open(self, total: Message, own: Any = None) -> Any:
        """Reads the sum of the last upload.

        Args:
            total: the sum.
            own: the data that were uploaded, for the own values of elements that too few parties keep;
                without it they are 0.

        Returns:
            Arrays of the shapes of the own data, and of its dtypes if they are floats; averages of integers
            are float64. An element that did not travel has the own value back if the own mask keeps it.

        Raises:
            AggregationError: the sum is that of another call, or nothing was uploaded.
        """
        uploaded, total = self._ready_to_open(total)
        result = uploaded.opening.open(total)
        if own is not None and uploaded.support is not None:
            uploaded.support.keep_private(result if isinstance(result, list) else [result], as_arrays(own)[0])
        return result

    @timed
    def open_into(self, total: Message, arrays: Sequence[np.ndarray], updates: Updates | None = None) -> None:
        """Reads the sum of the last upload into arrays; what did not travel keeps its value there.

        What the own mask has pruned becomes zero, also where the others' average of it came.

        Args:
            total: the sum.
            arrays: of the shapes of the own data, changed in place.
            updates: what travelled as updates is of, and what later ones shall be of; None if there are none.

        Raises:
            AggregationError: as of :meth:`open`; nothing was changed then.
        """
        uploaded, total = self._ready_to_open(total)
        uploaded.opening.write(total, arrays, updates)
        if updates is not None:
            updates.take(uploaded.opening.layout, arrays)
        if uploaded.support is not None:
            uploaded.support.keep_pruned(arrays)

    def opening(self) -> Opening:
        """What is needed to read the sum of the last upload; it is given once."""
        return self._take_uploaded().opening

    def _ready_to_open(self, total: Message) -> tuple[Uploaded, Message]:
        uploaded, told = self._take_uploaded(), total
        total = self.keys.unblinded(unpacked(total, uploaded.opening.lane_size))
        uploaded.opening.check(total)
        self.transcript.add(told)
        if uploaded.support is not None and uploaded.opening.layout.partial.size:
            denominators = uploaded.opening.read_denominators(total)
            uploaded.support.remember_denominators(uploaded.weights, denominators)
        return uploaded, total

    def _take_uploaded(self) -> Uploaded:
        if not isinstance(self._pending, Uploaded):
            raise AggregationError(f"nothing was uploaded to open, and {self.party} {self.stage.value}")
        uploaded, self._pending = self._pending, None
        return uploaded

    def _steps(
        self,
        sending: Sending,
        arrays: Sequence[np.ndarray],
        support: Support,
        share: float,
        pads: Pads,
    ) -> tuple[Steps, np.ndarray]:
        """How the updates of a call are read from a sum, and the own ones, padded and packed."""
        updates, rounding = sending.updates, self.rounding
        rounded = updates.round_off(arrays, support, rounding, sending.bounds, share, sending.key)
        lanes, sizes = rounding.lanes, tuple(map(rounding.step, sending.bounds))
        words = self._memory_of_words.take(lanes.words_of(rounded.steps.size), np.dtype("<u8"))
        lanes.write_padded(words, rounded.steps, pads)
        return Steps(updates.which, sizes, lanes), words

    def _record(self, layout: Layout, support: Support | None, weights: AggregationWeights) -> None:
        """Takes down to which elements this party has contributed, as it uploads."""
        self.contributions.record(layout, support, weights.counts)

    def _dense_for(self, arrays: Sequence[np.ndarray], is_list: bool) -> Layout:
        if self._dense_layout is None or not self._dense_layout.fits(arrays, is_list):
            self._dense_layout = Layout.dense(arrays, is_list)
        return self._dense_layout
