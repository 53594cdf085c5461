"""The client of the aggregation: what one party sends, and how it reads the sums that come back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .ballot import ballot, tally
from .call import Call, Operation
from .caller import Caller
from .contributions import Contributions
from .encoder import Encoder
from .errors import AggregationError
from .identity import Identities
from .inputs import ArrayMasks, align_mask, as_arrays
from .layout import Layout
from .memory import Recycled
from .message import Message
from .opening import Opening, check_sum, share_one
from .rules import Rules
from .stages import Proposed, Uploaded
from .support import Support
from .usage import timed
from .weights import AggregationWeights


class Client(Caller):
    """One party's side of the aggregation, for arguments and attributes see :class:`~.caller.Caller`."""

    _tells_weight = False  # whether the sum of those who are there says how much they weigh

    def __init__(
        self,
        party: str,
        names: Sequence[str],
        rules: Rules,
        identities: Identities | None = None,
    ) -> None:
        super().__init__(party, names, rules, identities)
        self._contributions = Contributions(rules.fixed_contributors)
        self._memory = Recycled()
        self._dense_layout: Layout | None = None

    def go_on_from(self, before: Client) -> None:
        """Takes over to what another client of this party and these parties has contributed."""
        self._contributions = before._contributions

    @timed
    def propose(self, call: int, data: Any, mask: ArrayMasks, within: Support | None = None) -> Message:
        """Uploads the own mask, padded: a :func:`~.ballot.ballot` for each maskable element.

        Args:
            call: number of the call.
            data: own arrays.
            mask: own mask, see :func:`~.inputs.align_mask`.
            within: what travels so far, of which no party's mask has got a new element: only its elements are
                agreed on. None, or one of data of other shapes, agrees on all.

        Raises:
            AggregationError: the mask is not allowed, or has an element that it had not in ``within``.
        """
        self._pending = None
        arrays, is_list = as_arrays(data)
        living = align_mask(mask, arrays)
        layout = Layout.dense(arrays, is_list)
        if within is not None and within.layout.fits(arrays, is_list):
            if not within.encloses(living):
                raise AggregationError(f"the mask of {self.party} has elements that its last one had not")
            layout = within.layout
        contributes, leaves = self._contributions.split(layout, living)
        which = "".join("." if mask is None else "m" for mask in living)
        body = ballot(layout.travelling(contributes), layout.travelling(leaves), self.parties)
        pads = self.keys.pads(call, self.transcript.digest)
        checksum = self.keys.checksum(body)
        pads.add_to(body)
        pads.add_to(checksum)
        self.usage.count_agreement(body.nbytes)
        self._pending = Proposed(call, layout, living, contributes)
        return self._message(call, layout, f"mask {which}", [body, checksum])

    @timed
    def settle(self, total: Message, uncounted: int = 0) -> Support:
        """Reads from the sum of the masks which elements travel.

        Args:
            total: the sum of the proposals.
            uncounted: how many parties do not count by their weight. Which is not known, so an element needs
                one contributor more for each.

        Raises:
            AggregationError: no mask was proposed, or the sum is one of other masks.
            DisagreementError: the sum was changed on its way, or the parties were not told the same before.
        """
        proposed, counts = self._read_counts(total)
        layout = proposed.layout.narrowed(counts, self.parties, self.rules.min_contributors + uncounted)
        return Support(layout, proposed.living, proposed.contributes, uncounted)

    def _read_counts(self, total: Message) -> tuple[Proposed, list[np.ndarray | None]]:
        """The last proposal, and for each array how many parties keep each element of its layout."""
        if not isinstance(self._pending, Proposed):
            raise AggregationError(f"a mask must be proposed first, but {self.party} {self.stage.value}")
        proposed = self._pending
        if (total["call"], total["layout"]) != (proposed.call, self.keys.name_of(proposed.layout)):
            raise AggregationError("the contributor counts are those of another proposal")
        self._pending = None
        opened = self.keys.unblinded(total)
        check_sum(opened, int(self.keys.checksum(opened["body"][0])[0]))
        self.transcript.add(total)
        return proposed, proposed.layout.split_masked(tally(opened["body"][0], self.parties), proposed.living)

    @timed
    def shared_support(self, data: Any, mask: ArrayMasks) -> Support:
        """What travels if the own mask is everybody's.

        If another party's mask is another one, their uploads do not add up, and the server says so.

        Args:
            data: own arrays.
            mask: own mask, see :func:`~.inputs.align_mask`.
        """
        arrays, is_list = as_arrays(data)
        living = align_mask(mask, arrays)
        counts = [None if entry is None else np.where(entry, self.parties, 0) for entry in living]
        layout = Layout.dense(arrays, is_list).narrowed(counts, self.parties, self.rules.min_contributors)
        return Support(layout, living, uncounted=self.parties, shared=True)

    @timed
    def upload(self, call: Call, data: Any) -> Message:
        """Encodes and pads the own numbers.

        Args:
            call: what for.
            data: own arrays.

        Returns:
            ``body[0]``: floats that travel, followed by the denominators of partial elements if they are
            not known yet; ``body[1]``: integers; last a padded zero, by which all see whether the pads
            cancel. Where parties may be gone the own weight stands before it.

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
        self._contributions.check(layout, support, weights.counts)
        denominators = support.denominators_for(weights) if support else None
        carried = layout.partial.size if denominators is None else 0

        pads = self.keys.pads(call.number, self.transcript.digest)
        absent = support.absent if support else {}
        encoder = Encoder(self.party, ring, layout, weights, average, pads, absent)
        floats = self._memory.take(layout.float_size + carried, ring.dtype)
        integers = np.empty(layout.integer_size, "<u8")
        encoder.write_floats(floats[: layout.float_size], arrays)
        if support is not None and carried:
            own = round(float(weights.own) * share_one(ring))
            floats[layout.float_size :] = support.has_partial * own
            pads.add_to(floats[layout.float_size :])
        encoder.write_integers(integers, arrays)
        body, weight_unit = [floats, integers], None
        if self._tells_weight and average:
            own_weight, weight_unit = weights.as_element()
            pads.add_to(own_weight)
            body.append(own_weight)
        cancelling = np.zeros(1, "<u8")  # in the sum, if all have the same pads
        pads.add_to(cancelling)

        encoding = (
            f"{call.operation.value} ring={ring.bits} fxp={ring.fxp_bits} "
            f"exact={weights.exact} denominators={carried}"
        )
        message = self._message(call.number, layout, encoding, [*body, cancelling])
        self.usage.count_round(floats.nbytes + integers.nbytes)
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
        )
        self._pending = Uploaded(opening, weights, support)
        self._record(layout, support, weights)
        return message

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
    def open_into(self, total: Message, arrays: Sequence[np.ndarray]) -> None:
        """Reads the sum of the last upload into arrays; what did not travel keeps its value there.

        What the own mask has pruned becomes zero, also where the others' average of it came.

        Args:
            total: the sum.
            arrays: of the shapes of the own data, changed in place.

        Raises:
            AggregationError: as of :meth:`open`; nothing was changed then.
        """
        uploaded, total = self._ready_to_open(total)
        uploaded.opening.write(total, arrays)
        if uploaded.support is not None:
            uploaded.support.keep_pruned(arrays)

    def opening(self) -> Opening:
        """What is needed to read the sum of the last upload; it is given once."""
        return self._take_uploaded().opening

    def _ready_to_open(self, total: Message) -> tuple[Uploaded, Message]:
        uploaded, told = self._take_uploaded(), total
        total = self.keys.unblinded(total)
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

    def _record(self, layout: Layout, support: Support | None, weights: AggregationWeights) -> None:
        """Takes down to which elements this party has contributed, as it uploads."""
        self._contributions.record(layout, support, weights.counts)

    def _dense_for(self, arrays: Sequence[np.ndarray], is_list: bool) -> Layout:
        if self._dense_layout is None or not self._dense_layout.fits(arrays, is_list):
            self._dense_layout = Layout.dense(arrays, is_list)
        return self._dense_layout

    def _message(self, call: int, layout: Layout, encoding: str, body: list[np.ndarray]) -> Message:
        # Of parties that do not share their keys the pads would not cancel, and the sum would be noise.
        encoding = f"{encoding} session={self.keys.session}"
        return Message(call=call, layout=self.keys.name_of(layout), encoding=encoding, body=body)
