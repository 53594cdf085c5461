"""The client of an aggregation whose calls end with those who are there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..call import Call
from ..client import Client
from ..errors import AggregationError
from ..identity import Identities
from ..inputs import ArrayMasks, as_arrays
from ..message import Message
from ..opening import Opening
from ..ring import Ring
from ..stages import Uploaded
from ..support import Support
from .keys import SurvivorKeys
from .rules import SurvivorRules
from .spent import Spent, fingerprint
from .support import AgreedSupport
from .wire import Codes, Declined, Release, Total


class SurvivingClient(Client):
    """One party's side.

    What is uploaded is as of :class:`~..client.Client`: scaled by the party's part of everybody's weight. The
    sum of those who are there is divided by their part of it.

    Args:
        party: own name.
        names: the names of all who begin, in the order in which weights are given.
        ring: how floats are encoded.
        rules: which sets of parties a call may end with.
        identities: who the parties are; None if they are not pinned.

    Attributes:
        roster: who takes part in the next call.
        survivors: whose numbers are in the last sum.
    """

    _key_ring = SurvivorKeys
    keys: SurvivorKeys

    def __init__(
        self,
        party: str,
        names: Sequence[str],
        ring: Ring,
        rules: SurvivorRules,
        identities: Identities | None = None,
    ) -> None:
        super().__init__(party, names, ring, rules.min_contributors, identities)
        self.names = tuple(names)
        self.survivors = self.names
        self._rules = rules
        self._spent = Spent()
        self._numbers: bytes | None = None  # fingerprint of what was uploaded last, unless it is public
        self._repeat: Callable[[], Message] | None = None
        self._stated: dict[str, Any] = {}  # what the codes of the last call are about
        self._use(self.names)

    def propose(self, call: int, data: Any, mask: ArrayMasks, within: Support | None = None) -> Message:
        """Uploads the own mask, see :meth:`~..client.Client.propose`."""
        self._repeat = lambda: self.propose(self.next_call(), data, mask, within)
        self._numbers = None
        return super().propose(call, data, mask, within)

    def settle(self, total: Message) -> Support:
        """Reads which elements enough of the survivors keep, see :meth:`~..client.Client.settle`."""
        proposed, counts = self._read_counts(total)
        return AgreedSupport(proposed, counts, self.survivors, self._min_contributors)

    def upload(self, call: Call, data: Any) -> Message:
        """Encodes and pads the own numbers, see :meth:`~..client.Client.upload`.

        Raises:
            AggregationError: as there; a weight is an array; or the same numbers were to be opened before
                with other parties than those of the roster.
        """
        if any(np.ndim(weight) for weight in call.weights):
            raise AggregationError("weights must be one number for each party with min_survivors, got arrays")
        self._numbers = fingerprint(as_arrays(data)[0]) if call.is_round else None
        if self._numbers is not None:
            self._spent.check(self._numbers, self.roster)
        support = call.support.among(self.roster) if isinstance(call.support, AgreedSupport) else call.support
        self._repeat = lambda: self.upload(replace(call, number=self.next_call()), data)
        return super().upload(replace(call, support=support), data)

    def present(self) -> list[int]:
        """The positions of the survivors among all names."""
        return [self.names.index(name) for name in self.survivors]

    def answer(self, call: int, survivors: tuple[str, ...]) -> Codes | Declined:
        """Says whether the party goes on with a set of survivors; once a call.

        Args:
            call: number of the call.
            survivors: as the server has announced them.

        Raises:
            AggregationError: the set is not allowed, or the party has said so of one already.
        """
        self._rules.check(self.roster, survivors, self._party)
        if "survivors" in self._stated:
            raise AggregationError(
                f"{self._party} has given its word on the survivors of call {call} already"
            )
        self._check_contributors(survivors)
        if not self._can_open(survivors):
            self._stated["survivors"] = None
            return Declined(call)
        if self._numbers is not None:
            self._spent.check(self._numbers, survivors)
        self._stated["survivors"] = survivors
        return Codes(call, self.keys.codes(self._statement(), self._others(survivors)))

    def release(self, call: int, codes: Mapping[str, bytes]) -> Release:
        """Gives out what takes the own pads off, if all survivors mean the same set; once a call.

        Args:
            call: number of the call.
            codes: of all other survivors, by name.

        Raises:
            AggregationError: a code is missing or is about something else; then nothing is given out.
        """
        survivors = self._stated.get("survivors")
        if survivors is None:
            raise AggregationError(f"{self._party} has not agreed on the survivors of call {call}")
        self.keys.check_codes(self._statement(), self._others(survivors), codes)
        if self._numbers is not None:
            self._spent.remember(self._numbers, survivors)
        dropped = [name for name in self.roster if name not in survivors]
        seal = survivors[0] == self._party and self.keys.has_group_key
        seed, keys = self.keys.release(dropped, seal)
        return Release(call, seed, seal, keys)

    def take(self, total: Total) -> Message:
        """Takes the sum of the survivors; returns what the generators of the protocol go on with."""
        self.survivors = self._stated["survivors"]
        self.keys.unseal(total.call, self.survivors[0], total.sealed)
        self._use(self.survivors)
        return total.message

    def repeat(self, roster: tuple[str, ...]) -> Message:
        """Uploads the same numbers for fewer parties; nothing of the last upload is ever opened.

        Args:
            roster: of the next call.

        Raises:
            AggregationError: the roster is not allowed.
        """
        self.lose(roster)
        assert self._repeat is not None  # whoever repeats has uploaded
        return self._repeat()

    def lose(self, roster: tuple[str, ...]) -> None:
        """Gives the last call up and goes on with fewer parties.

        Args:
            roster: of the next call.

        Raises:
            AggregationError: it is not a smaller one of this party and enough others.
        """
        self.keys.forget()
        self._rules.check(self.roster, roster, self._party)
        if len(roster) == len(self.roster):
            raise AggregationError("a call must be given up for fewer parties, got the same ones")
        self._use(roster)

    def _use(self, roster: tuple[str, ...]) -> None:
        self.roster = self.keys.roster = roster

    def _others(self, survivors: Sequence[str]) -> list[str]:
        return [name for name in survivors if name != self._party]

    def _statement(self) -> bytes:
        """What the codes of the last call are about: everything that the survivors must have in common."""
        return json.dumps(self._stated, sort_keys=True).encode()

    def _check_contributors(self, survivors: Sequence[str]) -> None:
        if not isinstance(self._pending, Uploaded):
            return
        weights = self._pending.weights.weights
        adding = [name for name in survivors if weights[self.names.index(name)] > 0]
        if len(adding) < self._min_contributors:
            raise AggregationError(
                f"at least {self._min_contributors} parties of positive weight must be there, got {adding}"
            )

    def _can_open(self, survivors: Sequence[str]) -> bool:
        """Whether the sum can be read, and each element has contributors enough, if only these are in it."""
        pending, dropped = self._pending, len(self.roster) - len(survivors)
        if not dropped or not isinstance(pending, Uploaded) or not pending.opening.layout.partial.size:
            return True
        carried = pending.opening.denominators is None  # those known are of the whole roster
        return (
            carried and isinstance(pending.support, AgreedSupport) and pending.support.opens_without(dropped)
        )

    def _take_uploaded(self) -> Uploaded:
        uploaded = super()._take_uploaded()
        return replace(uploaded, opening=self._of_survivors(uploaded))

    def _of_survivors(self, uploaded: Uploaded) -> Opening:
        """How to read the sum if it is the survivors' only."""
        opening, weights = uploaded.opening, uploaded.weights
        if opening.integer_divisor is None or self.survivors == self.names:
            return opening
        there = sum(weights.weights[self.names.index(name)] for name in self.survivors)
        share = float(there / weights.total)
        return replace(
            opening, share=share, integer_divisor=there if weights.exact else share * self._ring.one
        )

    def _message(self, call: int, layout: Any, encoding: str, body: list[np.ndarray]) -> Message:
        message = super()._message(call, layout, encoding, body)
        rules = self._rules
        self._stated = {
            "call": call,
            "layout": message["layout"],
            "encoding": message["encoding"],
            "roster": self.roster,
            "rules": [rules.parties, rules.min_survivors, rules.min_contributors],
        }
        return message
