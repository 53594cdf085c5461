"""SecurePruneAggregator: averages sparse uploads without anyone seeing one party's weights or mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import ray

from secretflow.device import PYU, DeviceObject, PYUObject, proxy, reveal
from secretflow.distributed.primitive import DISTRIBUTION_MODE, get_distribution_mode
from secretflow.security.aggregation.aggregator import Aggregator
from secretflow.security.aggregation.prune.errors import AggregationError, ChannelClosedError
from secretflow.security.aggregation.prune.party import Sealer
from secretflow.security.aggregation.prune.ring import Ring
from secretflow.security.aggregation.prune.server import Adder

_MAX_PARTIES = 255  # contributor counts travel as one byte


class _HostedSealer:
    """A party's sealer that lives in another actor of its party; called as one in its own actor is.

    Args:
        host: an actor with a method ``sealer(name, *arguments)``.
    """

    def __init__(self, host: Any) -> None:
        self._host = host

    def __getattr__(self, name: str) -> Callable[..., PYUObject]:
        return partial(self._host.sealer, name)


class SecurePruneAggregator(Aggregator):
    """Secure aggregation of pruned models, and of anything upstream's ``SecureAggregator`` takes.

    Every pair of parties shares a key (X25519, HKDF-SHA256). In each call a party encodes its numbers in
    fixed point in the ring of integers modulo 2^32 or 2^64 and adds, for every peer, a pad drawn with
    AES-256-CTR from that pair's key and the call's number; the peer subtracts the same pad, so the pads
    cancel in the sum (Bonawitz et al. 2017, eprint 2017/281, section 4). With ``prune_mask``, only
    elements that enough parties keep travel, and the average of an element is over the parties that keep
    it. The masks themselves are added up behind pads too, once after they change.

    Guarantee, if everybody follows the protocol: the server, together with up to n - 2 parties, learns
    about the others' numbers and masks no more than what the results say. Visible to all, by design:

    * the average, how many parties keep each element, and everybody's weight (the sample counts);
    * for an element that some parties have pruned, the share of the weight behind its average, and with
      unequal weights this tells which parties keep it;
    * where ``k`` parties keep an element, any ``k - 1`` of them learn the last one's number from its
      average: against ``t`` parties that pool what they know, set ``min_contributors`` to ``t + 2``;
    * with two parties, each learns the other's numbers from the average itself, whatever the protocol;
    * an average with very unequal weights is nearly the heaviest party's numbers;
    * an error about a number that does not fit names its party's largest magnitude.

    An element that fewer than ``min_contributors`` parties keep is never uploaded, so with the default no
    number of one party alone is in any sum. One exception: :meth:`average` with masks of two parties gives
    the server the average over those who keep an element, even if it is only one;
    :meth:`average_at_parties`, with which models are trained, does not. Dropped parties are not tolerated:
    a call that misses a payload has no result, and later calls are not affected by it.

    The result differs from the exact average by at most ``n * 2^-(fxp_bits + 1)``. For an element that
    some parties have pruned, with ``d`` the share of the weight behind it, by at most
    ``(n * 2^-(fxp_bits + 1) + |average| * n * 2^-(ring_bits - 1)) / d``. On top comes what float64 itself
    rounds off on the way, a few 2^-53 of the largest input (for ``ring_bits=64`` the larger part, from
    numbers of some thousands on). Then the result is rounded to the dtype of the input.

    Args:
        device: the server, which adds up.
        participants: the parties, at least two.
        fxp_bits: fractional bits; default 20 in a ring of 32 bits (numbers up to about 2,047), 40 in a
            ring of 64 bits.
        ring_bits: 32 or 64; a number takes 4 or 8 bytes on the wire.
        min_contributors: fewest parties that must keep an element for it to be uploaded; from 1 to the
            number of parties.
        server_blind: one party adds one more pad, from a key that only the parties have, and the parties
            take it off the sum. The server then learns nothing but sizes, not even the average; results
            are to be had with :meth:`average_at_parties` only. A server that colludes with a party falls
            back to the guarantee above.

    Raises:
        AggregationError: fewer than two parties, more than 255, or one twice.
        ValueError: a number is out of its range, or the server shall be blind and is a participant.

    Examples:
        >>> aggregator = SecurePruneAggregator(carol, [alice, bob])
        >>> a = alice(lambda: np.array([1.0, 2.0]))()
        >>> b = bob(lambda: np.array([3.0, 4.0]))()
        >>> sf.reveal(aggregator.average([a, b], axis=0, weights=[1, 3]))
        array([2.5, 3.5])
    """

    def __init__(
        self,
        device: PYU,
        participants: list[PYU],
        fxp_bits: int | None = None,
        *,
        ring_bits: int = 32,
        min_contributors: int = 2,
        server_blind: bool = False,
    ) -> None:
        if len(set(participants)) != len(participants):
            raise AggregationError(f"participants={participants}: Should not have duplicated devices.")
        if not 2 <= len(participants) <= _MAX_PARTIES:
            raise AggregationError(
                f"participants={participants}: from 2 to {_MAX_PARTIES} parties are allowed"
            )
        if not 1 <= min_contributors <= len(participants):
            raise ValueError(
                f"min_contributors={min_contributors!r} is not allowed: from 1 to {len(participants)}"
            )
        if server_blind and device in participants:
            raise ValueError(
                f"server_blind=True is not allowed with device={device}: as a participant it has the key"
            )
        self._device = device
        self._participants = list(participants)
        self._how = Ring.make(ring_bits, fxp_bits, len(participants)), min_contributors
        self._server_blind = server_blind
        self._adder = proxy(PYUObject)(Adder)(device=device)
        self._calls = 0
        self._hosts: Mapping[PYU, Any] | None = None
        self._made: dict[PYU, Any] = {}
        self._connected: bool | None = None  # None: not tried
        self._settled_for: tuple[list[PYUObject], int | None, bool] | None = None
        self._settled: dict[PYU, PYUObject | bool] = {}  # what comes true when a party has settled its mask

    @property
    def participants(self) -> list[PYU]:
        """The parties, in the order in which their keys and weights are given to each other."""
        return list(self._participants)

    def host_at(self, hosts: Mapping[PYU, Any]) -> None:
        """Lets the parties' ends live in actors that the parties have anyway: a process less for each.

        New keys are agreed on, unless the ends live there already. What was settled about masks and counted
        in bytes at other ends is forgotten.

        Args:
            hosts: for each party an actor at it with the methods ``make_sealer(*arguments)``, which makes a
                :class:`~secretflow.security.aggregation.prune.party.Sealer` of them, and
                ``sealer(name, *arguments)``, which calls its methods.
        """
        if hosts is self._hosts:
            return
        for party, arguments in self._sealer_arguments().items():
            hosts[party].make_sealer(*arguments)
        self._hosts = hosts
        self._connected = None
        self._made = {party: _HostedSealer(hosts[party]) for party in self._participants}
        self._agree()

    def sum(self, data: list[PYUObject], axis: int | None = None) -> PYUObject:
        """Adds up the parties' data.

        Args:
            data: one object for each party: a float or integer array, DataFrame or Series, or a list of
                them, of the same shapes and dtypes at all parties.
            axis: 0 adds element by element; None also adds up the elements of each array.

        Returns:
            The sum, at the server. Sums of integers are int64 and exact; float dtypes are kept with axis 0,
            sums of elements are float64.

        Raises:
            AggregationError: the data is not one object for each party, or ``axis`` is neither.
        """
        return self._at_server(data, axis, average=False)

    def average(
        self,
        data: list[PYUObject],
        axis: int | None = None,
        weights: Any = None,
        prune_mask: Sequence[PYUObject] | None = None,
    ) -> PYUObject:
        """Averages the parties' data.

        Args:
            data: as for :meth:`sum`.
            axis: 0 averages element by element; None adds up the elements of each array as well (weights
            that are arrays weigh the elements, too, as in ``np.average``).
            weights: one number or array for each party, or device objects that hold them; None, or one
                number for all, weighs everybody alike. All parties learn all weights.
            prune_mask: one mask for each party. A mask has one entry for each array, or for each array
                of two or more dimensions: an array of 0 and 1 of that array's shape, or None where
                everything lives, at the same entries for all parties. The masks are agreed on again
                whenever other objects are given.

        Returns:
            The average, at the server. Float dtypes are kept with axis 0, averages of integers are float64.
            An element that travels from nobody is 0.

        Raises:
            AggregationError: the arguments do not belong to this aggregator's parties.
        """
        return self._at_server(data, axis, average=True, weights=weights, prune_mask=prune_mask)

    def average_at_parties(
        self,
        data: list[PYUObject],
        weights: Any = None,
        prune_mask: Sequence[PYUObject] | None = None,
        *,
        same_mask: bool = False,
    ) -> dict[PYU, PYUObject]:
        """Averages the parties' data and opens the result at every party, as training does.

        The sums travel to the parties as they were uploaded: only what lives, in ring elements. A party
        finds its own number in an element that it keeps but too few others do for it to travel.

        Args:
            data: as for :meth:`average`.
            weights: as for :meth:`average`.
            prune_mask: as for :meth:`average`.
            same_mask: all parties hold the same mask, so nothing travels to agree on it. Where one does
                not, the call fails.

        Returns:
            The average at each party.
        """
        total = self.sealed_average(data, weights, prune_mask, same_mask=same_mask)
        own = self._by_party(data, "data")
        return {party: sealer.open(total.to(party), own[party]) for party, sealer in self._sealers.items()}

    def sealed_average(
        self,
        data: list[PYUObject],
        weights: Any = None,
        prune_mask: Sequence[PYUObject] | None = None,
        *,
        same_mask: bool = False,
        shrunk_masks: bool = False,
    ) -> PYUObject:
        """The same without the last step.

        Args:
            data: as for :meth:`average`.
            weights: as for :meth:`average`.
            prune_mask: as for :meth:`average`.
            same_mask: as for :meth:`average_at_parties`.
            shrunk_masks: no mask has an element that the same party's last one had not, so only elements that
                travel already are agreed on. Where one does have, the call fails.

        Returns:
            The average in ring elements, at the server, for the ``open`` of each party's end.
        """
        return self._seal(
            data,
            average=True,
            weights=weights,
            prune_mask=prune_mask,
            same_mask=same_mask,
            shrunk_masks=shrunk_masks,
        )

    def has_settled(self, prune_mask: Sequence[PYUObject], *, same_mask: bool = False) -> bool:
        """Whether an average at the parties under these masks would go without agreeing on them first."""
        return self._is_settled(prune_mask, None, same_mask)

    def hosts_settled(self, prune_mask: Sequence[PYUObject], *, same_mask: bool = False) -> None:
        """Takes notice that the hosts of the parties' ends have settled masks by themselves.

        Args:
            prune_mask: their masks.
            same_mask: as for :meth:`average_at_parties`.
        """
        self._settled = dict.fromkeys(self._participants, True)
        self._settled_for = list(prune_mask), None, same_mask

    def hosted_average(self, seal: Callable[[PYU, int], PYUObject]) -> PYUObject:
        """The same of what the hosts of the parties' ends seal by themselves, under the masks settled last.

        Args:
            seal: given a party and the number of the call, has the party's host seal its data in this call;
                returns the payload.
        """
        call = self._next_call()
        return self._add([seal(party, call) for party in self._participants])

    def connect(self) -> bool:
        """Opens the channels of :meth:`hosted_rounds` from the parties' hosts to the server.

        Open ones stay, and where they could not be opened once it is not tried again.

        Returns:
            Whether there are any: all must be processes of one machine, as in a simulation, and have hosts.
        """
        if self._connected is None:
            self._connected = False
            if self._hosts is not None and get_distribution_mode() is DISTRIBUTION_MODE.SIMULATION:
                self._connected = self._open_channels()
        return self._connected

    def _open_channels(self) -> bool:
        address, expected = reveal(self._adder.listen()), 0
        try:
            reached = reveal([sealer.connect(address) for sealer in self._sealers.values()])
            expected = len(reached) if all(reached) else 0
        finally:
            accepted = self._adder.accept(expected)
            if not expected:
                self._hang_up()
        reveal(accepted)
        return bool(expected)

    def _hang_up(self) -> None:
        for sealer in self._sealers.values():
            sealer.hang_up()

    def hosted_rounds(self, sums: int, seal: Callable[[PYU, list[int]], PYUObject]) -> PYUObject:
        """Several rounds of :meth:`hosted_average` over channels; waits until all are done.

        Args:
            sums: how many, of data or of proposals of masks, at least 1.
            seal: given a party and the numbers of the calls, has the party's host seal and send its data, or
                propose its mask, in each of them, and receive the sum after all but the last; what it returns
                is waited for.

        Returns:
            The last average in ring elements, at the server.

        Raises:
            AggregationError: there are no channels, or the payloads do not belong together.
            Exception: whatever a party has failed with. Then the channels are closed, and the next
                :meth:`connect` opens new ones.
        """
        if not self._connected:
            raise AggregationError("there are no channels: connect() opens them where that is possible")
        calls = [self._next_call() for _ in range(sums)]
        self._connected = None  # until all is known to be well
        total = self._adder.serve(sums)
        try:
            _wait_for([*(seal(party, list(calls)) for party in self._participants), total], self._hang_up)
        except BaseException:
            self._hang_up()  # whoever has not begun will not, and the others wait for him
            raise
        self._connected = True
        return total

    def payload_bytes(self) -> dict[PYU, PYUObject]:
        """Bytes that each party has uploaded since its end was made: ring elements and masks.

        The few dozen bytes of each message's header are not counted.
        """
        return {party: sealer.payload_bytes() for party, sealer in self._sealers.items()}

    def round_bytes(self, before: Mapping[PYU, int] | None = None) -> dict[PYU, PYUObject]:
        """The same for each round: a list of ints, one for each sum or average.

        What an agreement about masks takes is counted in the round that it was made for.

        Args:
            before: how many rounds of each party to leave out; None tells of all.
        """
        return {
            party: sealer.round_bytes(0 if before is None else before[party])
            for party, sealer in self._sealers.items()
        }

    def take_seconds(self) -> dict[PYU, PYUObject]:
        """Seconds that each party has spent encoding, padding and opening since this was asked last."""
        return {party: sealer.take_seconds() for party, sealer in self._sealers.items()}

    @property
    def _sealers(self) -> dict[PYU, Any]:
        """The parties' ends; if nobody hosts them, made in actors of their own when they are first needed."""
        if not self._made:
            self._made = {
                party: proxy(PYUObject)(Sealer)(*arguments, device=party)
                for party, arguments in self._sealer_arguments().items()
            }
            self._agree()
        return self._made

    def _sealer_arguments(self) -> dict[PYU, tuple[Any, ...]]:
        names = [party.party for party in self._participants]
        return {party: (party.party, names, *self._how) for party in self._participants}

    def _agree(self) -> None:
        """Has the parties agree on keys."""
        self._settled_for = None
        public_keys = [sealer.public_key() for sealer in self._made.values()]
        for party, sealer in self._made.items():
            sealer.agree(*(key.to(party) for key in public_keys))
        if self._server_blind:
            first, *others = self._made
            wrapped = self._made[first].share_group_key()
            for party in others:
                self._made[party].take_group_key(wrapped.to(party))

    def _seal(
        self,
        data: list[PYUObject],
        *,
        average: bool,
        weights: Any = None,
        prune_mask: Sequence[PYUObject] | None = None,
        at_least: int | None = None,
        same_mask: bool = False,
        shrunk_masks: bool = False,
    ) -> PYUObject:
        own = self._by_party(data, "data")
        known = self._weights(weights, data)
        if prune_mask is not None:
            self._settle(own, list(prune_mask), at_least, same_mask, shrunk_masks)
        call = self._next_call()
        return self._add(
            [
                sealer.seal(
                    call,
                    average,
                    # A failed agreement about masks fails every call that rests on it, with its own error.
                    False if prune_mask is None else self._settled[party],
                    own[party],
                    *(w.to(party) if isinstance(w, DeviceObject) else w for w in known),
                )
                for party, sealer in self._sealers.items()
            ]
        )

    def _settle(
        self,
        own: dict[PYU, PYUObject],
        masks: list[PYUObject],
        at_least: int | None,
        same_mask: bool,
        shrunk: bool,
    ) -> None:
        by_party = self._by_party(masks, "prune_mask")
        if self._is_settled(masks, at_least, same_mask):
            return
        self._settled_for = None
        if same_mask:
            self._settled = {
                party: sealer.settle_same(own[party], by_party[party])
                for party, sealer in self._sealers.items()
            }
        else:
            call = self._next_call()
            total = self._add(
                [
                    sealer.propose(call, own[party], by_party[party], shrunk)
                    for party, sealer in self._sealers.items()
                ]
            )
            self._settled = {
                party: sealer.settle(total.to(party), at_least) for party, sealer in self._sealers.items()
            }
        self._settled_for = masks, at_least, same_mask

    def _is_settled(self, masks: Sequence[PYUObject], at_least: int | None, same_mask: bool) -> bool:
        # Objects on devices never change, so the same objects are the same masks, and every party's
        # driver comes to the same decision without looking at a value.
        if self._settled_for is None:
            return False
        known, *how = self._settled_for
        return how == [at_least, same_mask] and all(new is old for new, old in zip(masks, known, strict=True))

    def _add(self, payloads: list[PYUObject]) -> PYUObject:
        return self._adder.add(*(payload.to(self._device) for payload in payloads))

    def _at_server(self, data: list[PYUObject], axis: int | None, **how: Any) -> PYUObject:
        if axis not in (0, None):
            raise AggregationError(f"axis={axis!r} is not allowed: 0 or None")
        if self._server_blind:
            raise AggregationError(
                "server_blind=True leaves the server no result: average_at_parties gives it to the parties"
            )
        # Of two parties' numbers an average at the server shows what only one of them keeps in any case.
        at_least = 1 if len(self._participants) == 2 else None
        total = self._seal(data, at_least=at_least, **how)
        openings = [sealer.opening() for sealer in self._sealers.values()]
        return self._adder.open(total, openings[0].to(self._device), axis)

    def _next_call(self) -> int:
        self._calls += 1
        return self._calls

    def _by_party(self, objects: Sequence[PYUObject], name: str) -> dict[PYU, PYUObject]:
        if not objects:
            raise AggregationError(f"{name}: The data should not be None or empty.")
        if len(objects) != len(self._participants):
            raise AggregationError(
                f"{name}: Length of the data not equals devices: {len(objects)} vs {len(self._participants)}"
            )
        by_party = {item.device: item for item in objects}
        if set(by_party) != set(self._participants):
            raise AggregationError(
                f"{name}: Devices of the data must be corresponding with this aggregator: "
                f"{sorted(map(str, by_party))} vs {sorted(map(str, self._participants))}"
            )
        return by_party

    def _weights(self, weights: Any, data: Sequence[PYUObject]) -> list[Any]:
        """Everybody's weight in the order of the participants; empty for equal ones."""
        if weights is None or isinstance(weights, (int, float, np.number)):
            return []
        if not hasattr(weights, "__len__"):
            raise AggregationError(
                f"weights={weights!r} is not allowed: one for each party, a number or None"
            )
        if len(weights) != len(data):
            raise AggregationError(f"Length of the weights not equals data: {len(weights)} vs {len(data)}.")
        by_party = {}
        for weight, datum in zip(weights, data, strict=True):
            if isinstance(weight, DeviceObject) and weight.device != datum.device:
                raise AggregationError("Device of weight is not same with the corresponding data.")
            by_party[datum.device] = weight
        return [by_party[party] for party in self._participants]


def _wait_for(ends: Sequence[PYUObject], on_error: Callable[[], None]) -> None:
    """Waits for all, in the order in which they end, in a simulation.

    Args:
        ends: what is waited for.
        on_error: called once when the first has failed, to free those that wait for it.

    Raises:
        Exception: one of theirs, rather one that others may have followed from.
    """
    errors: list[Exception] = []
    waiting = [end.data for end in ends]
    while waiting:
        (ended, *_), waiting = ray.wait(waiting)
        try:
            ray.get(ended)
        except Exception as error:
            if not errors:
                on_error()
            errors.append(error)
    if errors:
        raise min(errors, key=lambda error: isinstance(error, ChannelClosedError))
