"""SecurePruneAggregator: averages sparse uploads without anyone seeing one party's weights or mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from secretflow import _validate
from secretflow.device import PYU, DeviceObject, PYUObject
from secretflow.security.aggregation.aggregator import Aggregator
from secretflow.security.aggregation.secagg.agreements import Agreements
from secretflow.security.aggregation.secagg.arguments import by_party, check_members, weights_by_party
from secretflow.security.aggregation.secagg.call import Operation
from secretflow.security.aggregation.secagg.dropouts.rules import may_drop_out
from secretflow.security.aggregation.secagg.dropouts.survival import ROUND_DEADLINE, Survival
from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.group import Group
from secretflow.security.aggregation.secagg.identity import Identities, identities_here
from secretflow.security.aggregation.secagg.measured import Measured
from secretflow.security.aggregation.secagg.participant import Request
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rules import Rules
from secretflow.security.aggregation.secagg.transport.driver import DriverTransport
from secretflow.security.aggregation.secagg.transport.interface import Transport
from secretflow.security.aggregation.secagg.transport.local import LocalTransport


class SecurePruneAggregator(Measured, Aggregator):
    """Secure aggregation of pruned models, and of anything upstream's ``SecureAggregator`` takes.

    Every pair of peers shares a key (X25519, HKDF-SHA256), confirmed and signed by their identities where
    those are pinned. In each call a party encodes its numbers in fixed point in the ring of integers modulo
    2^32 or 2^64 and adds, for every peer, a pad drawn with AES-256-CTR from a key of that pair for this call
    alone; the peer subtracts the same pad, so the pads cancel in the sum (Bonawitz et al. 2017, eprint
    2017/281, section 4). Of more than 32 parties each has some neighbours for peers instead of all others
    (Bell et al. 2020, eprint 2020/704). A call's key is derived in a chain that turns one way, so keys
    stolen later open no upload that was recorded before. With ``prune_mask``, only elements that enough
    parties keep travel, and the average of an element is over the parties that keep it. The masks
    themselves are added up behind pads too, once after they change.

    Guarantee, if everybody follows the protocol: the server, together with up to n - 2 parties (of more than
    32: up to ``max_colluders`` of them, but for a chance of 2^-40 in each key agreement), learns about the
    others' numbers and masks no more than what the results say. Visible to all, by design:

    * the average, how many parties keep each element, and the total of the weights;
    * for an element that some parties have pruned, the share of the weight behind its average;
    * where ``k`` parties keep an element, any ``k - 1`` of them learn the last one's number from its
      average: against ``t`` parties that pool what they know, set ``min_contributors`` to ``t + 2``;
    * with two parties, each learns the other's numbers from the average itself, whatever the protocol;
    * to the server also each element of what ``axis=None`` adds up;
    * with ``upload_bits``, the mean over the parties of the largest update in each layer;
    * an error about a number that does not fit names its party's largest magnitude.

    Behind every opened element stand at least ``min_contributors`` parties that count: that add their
    number to it with a weight of at least ``min_share`` of an equal one. An element with fewer is in no
    upload. It stays each party's own and goes on learning there. Weights with which too few count are
    refused. Between calls an element keeps the contributors of its first sum, or does not travel; arrays
    that are the same byte for byte are averaged under one weighting alone. If the server works together with
    no party, it cannot have an element opened by false counts; if it tells parties different things, it
    cannot read what they upload then, and they refuse the sum. A call that misses a message has no result,
    and later calls are not affected by it; with ``min_survivors`` training goes on with those who are there,
    under what :mod:`~secretflow.security.aggregation.secagg.dropouts.protocol` says of it.

    The result differs from the exact average by at most ``n * 2^-(fxp_bits + 1)``. For an element that
    some parties have pruned, with ``d`` the share of the weight behind it, by at most
    ``(n * 2^-(fxp_bits + 1) + |average| * n * 2^-(ring_bits - 1)) / d``. On top comes what float64 itself
    rounds off on the way, a few 2^-53 of the largest input (for ``ring_bits=64`` the larger part, from
    numbers of some thousands on). Then the result is rounded to the dtype of the input. An average to which
    a party adds less than ``2^(10 - fxp_bits)`` of the weights, and half of an equal part, is refused.

    Args:
        device: the server, which adds up.
        participants: the parties, at least two.
        fxp_bits: fractional bits; default 20 in a ring of 32 bits (numbers up to about 2,047), else 40.
        ring_bits: 32 or 64; a number takes 4 or 8 bytes on the wire.
        min_contributors: fewest parties that must count at an element for it to be uploaded; by default 3,
            and 2 of two. With 2, each of two that keep an element reads the other's number off the average.
        min_share: what a party must hold to count, as a part of an equal share of the weight.
        fixed_contributors: False lifts the rules between calls, for masks of the parties' own to share
            more. Then a server that only listens estimates the last update of a party that leaves an element
            (correlation 0.95 for full batches, 0.81 for batches of 32; five parties, ``make bench-leaving``),
            and with ``min_survivors`` sums of measurements show what stays the same of a party that is lost.
        server_blind: one party adds one more pad, from a key that only the parties have, who take it off the
            sum. The server then learns nothing but sizes, unless it colludes with a party; results are to be
            had with :meth:`average_at_parties` only.
        max_colluders: part of the parties that may work together with the server, from 0 to 1; None is 1 for
            up to 32 parties, two thirds for more. A party shares pads with as many peers as that takes (of
            256 with 32 for a third, 76 for two thirds, 255 for 1), and each pad takes time. Who colludes must
            be settled before keys are drawn (bound: ``secagg/neighbours.py``). With ``min_survivors`` parties
            may be lost beside, so it takes more peers: of 256 with a third 142, where 64 may be lost.
        upload_bits: 8, 4 or 2 have training upload the update of each weight since the last average, rounded
            at random to so many bits, less than ``upload_bits + ceil(log2 n)`` on the wire; None uploads ring
            elements. See :class:`~secretflow.security.aggregation.secagg.rounding.Rounding`. :meth:`sum` and
            averages that are asked for directly know of no last average, so they take numbers whole.
        identities: who the parties are, pinned, so a key exchanged on the way is refused. None takes those of
            the cluster file; without any, keys are the parties' own if nobody can change their messages.
        min_survivors: fewest parties that a round of ``FLModel.fit`` ends with, more than half of them and
            at least ``min_contributors``; who was lost may come back. None: all must be there. Sums and
            averages outside of ``fit`` need all in any case.
        round_deadline: with ``min_survivors`` seconds that a party may take for its part of a round,
            training included; who takes longer is gone.

    Raises:
        AggregationError: fewer than two parties, more than 1,000, or one twice.
        TypeError: something is of another type.
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
        min_contributors: int | None = None,
        min_share: float = 0.01,
        fixed_contributors: bool = True,
        server_blind: bool = False,
        max_colluders: float | None = None,
        upload_bits: int | None = None,
        identities: Identities | None = None,
        min_survivors: int | None = None,
        round_deadline: float = ROUND_DEADLINE,
    ) -> None:
        check_members(device, participants, server_blind, identities)
        _validate.flag("fixed_contributors", fixed_contributors)
        ring = Ring.make(ring_bits, fxp_bits, count := len(participants))
        choices = min_contributors, min_share, fixed_contributors, server_blind, max_colluders
        rules = Rules.make(ring, count, *choices, may_drop_out(count, min_survivors), upload_bits)
        self._group = Group(device, participants, rules, identities or identities_here())
        self._agreements = Agreements()
        self.survival = Survival.make(self._group, min_survivors, round_deadline)

    @property
    def participants(self) -> list[PYU]:
        """The parties, in the order in which their keys and weights are given to each other."""
        return list(self._group.parties)

    def host_at(self, hosts: Mapping[PYU, Any]) -> None:
        """Lets the parties' clients live in actors that the parties have anyway: a process less for each.

        Unless they live there already, new keys are agreed on, and counts and agreements are forgotten.

        Args:
            hosts: for each party an actor at it that is a :class:`.secagg.participant.Participant`.
        """
        if self._group.host_at(hosts):
            self._agreements.forget()

    def fingerprint(self) -> dict[PYU, PYUObject]:
        """The key agreement in short, at each party: 16 hexadecimal digits, the same at all parties.

        Without pinned identities people can compare it over another way: exchanged keys make it differ.
        """
        return {party: member.fingerprint() for party, member in self._group.members.items()}

    def transport(self, rounds_at_once: int) -> Transport:
        """The quickest way for messages between the parties' clients and the server.

        Args:
            rounds_at_once: how many rounds of training are run together where the driver carries messages.
        """
        return LocalTransport.open(self._group) or DriverTransport(self._group, rounds_at_once)

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
        return self._at_server(data, axis, Operation.SUM)

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
                number for all, weighs everybody alike. Of objects at the parties only the total is told.
            prune_mask: one mask for each party. A mask has one entry for each array, or for each array
                of two or more dimensions: an array of 0 and 1 of that array's shape, or None where
                everything lives, at the same entries for all parties. The masks are agreed on again
                whenever other objects are given.

        Returns:
            The average, at the server. Float dtypes are kept with axis 0, averages of integers are float64.
            An element that does not travel is 0.

        Raises:
            AggregationError: the arguments do not belong to this aggregator's parties, too few of them count,
                or data have been averaged under other weights before.
        """
        return self._at_server(data, axis, Operation.AVERAGE, weights, prune_mask)

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
        total = self._run(data, Operation.AVERAGE, weights, prune_mask, same_mask=same_mask)
        return {party: member.finish(total.to(party)) for party, member in self._group.members.items()}

    def _at_server(
        self,
        data: list[PYUObject],
        axis: int | None,
        operation: Operation,
        weights: Any = None,
        prune_mask: Sequence[PYUObject] | None = None,
    ) -> PYUObject:
        group = self._group
        if axis not in (0, None):
            raise AggregationError(f"axis must be 0 or None, got {axis!r}")
        if group.rules.server_blind:
            raise AggregationError(
                "server_blind must be False for a result at the server, got True; average_at_parties gives "
                "it to the parties"
            )
        total = self._run(data, operation, weights, prune_mask)
        openings = [member.opening() for member in group.members.values()]
        return group.server.open(total, openings[0].to(group.device), axis)

    def _run(
        self,
        data: list[PYUObject],
        operation: Operation,
        weights: Any,
        prune_mask: Sequence[PYUObject] | None,
        *,
        same_mask: bool = False,
    ) -> PYUObject:
        """Has all parties make a request; returns the last sum, at the server."""
        group, own = self._group, by_party(data, "data", self._group.parties)
        everybodys = weights_by_party(weights, data, group.parties)
        masks: dict[PYU, PYUObject] | dict[PYU, None] = dict.fromkeys(own)
        at_parties = any(isinstance(weight, DeviceObject) for weight in everybodys.values())
        request = Request(operation, own_weight=at_parties)
        if prune_mask is not None:
            masks = by_party(prune_mask, "prune_mask", group.parties)
            use, number = self._agreements.begin(prune_mask, same_mask)
            request = replace(request, masks=use, agreement=number)

        def begin(party: PYU, start: int) -> PYUObject:
            known = [everybodys[party]] if request.own_weight else everybodys.values()
            return group.members[party].begin_request(start, request, own[party], masks[party], *known)

        total = DriverTransport(group).last_sum(begin, request.exchanges)
        if prune_mask is not None:
            self._agreements.end(prune_mask, request.masks)
        return total
