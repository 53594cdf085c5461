"""The client of an aggregation whose calls end with those who are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np

from ..call import Call
from ..client import Client
from ..errors import AggregationError
from ..identity import Identities
from ..inputs import ArrayMasks, as_arrays
from ..layout import Layout
from ..message import Message
from ..opening import Opening
from ..rules import Rules
from ..stages import Uploaded
from ..support import Support
from ..weights import AggregationWeights
from .keys import SurvivorKeys
from .last_average import LastAverage
from .rules import SurvivorRules
from .spent import Spent
from .support import AgreedSupport
from .wire import Codes, Declined, Release, Total


class SurvivingClient(Client):
    """One party's side of calls that end with those who are there.

    What is uploaded is as of :class:`~..client.Client`: scaled by the party's part of everybody's weight. The
    own weight goes with it, padded as well, so that the sum of those who are there says how much they weigh
    together, by which it is divided.

    Args:
        party: own name.
        names: the names of all who begin, in the order in which weights are given.
        rules: of the aggregation.
        survivor_rules: which sets of parties a call may end with.
        identities: who the parties are; None if they are not pinned.

    Raises:
        AggregationError: a call could end with fewer parties than must contribute.

    Attributes:
        roster: who takes part in the next call.
        survivors: whose numbers are in the last sum.
        comers: whether somebody waits to come in.
    """

    _key_ring = SurvivorKeys
    _tells_weight = True
    _packs = False  # the server takes pads off a sum, for which its elements must be whole
    _all_stay = False
    keys: SurvivorKeys

    def __init__(
        self,
        party: str,
        names: Sequence[str],
        rules: Rules,
        survivor_rules: SurvivorRules,
        identities: Identities | None = None,
    ) -> None:
        if survivor_rules.min_survivors < rules.min_contributors:
            raise AggregationError(
                f"min_survivors must be at least min_contributors={rules.min_contributors}, got "
                f"{survivor_rules.min_survivors}"
            )
        gone = survivor_rules.parties - survivor_rules.min_survivors
        if rules.neighbours is not None and gone > rules.dropped:
            raise AggregationError(f"neighbours must be enough for {gone} gone parties, got {rules.dropped}")
        super().__init__(party, names, rules, identities)
        self.names = tuple(names)
        self.survivors = self.names
        self._survivor_rules = survivor_rules
        self._spent = Spent()
        self._numbers: bytes | None = None  # fingerprint of the data uploaded last, if they are such
        self._repeat: Callable[[], Message] | None = None
        self._stated: dict[str, Any] = {}  # what the codes of the last call are about
        self._last_opened: tuple[Opening, Message] | None = None
        self.comers = False
        self._unrecorded: tuple[Layout, Support | None, AggregationWeights] | None = None
        self._use(self.names)

    def present(self) -> int:
        """Of how many parties the last sum is."""
        return len(self.survivors)

    def begin(self, message: Message) -> None:
        """Begins a call: what its codes will be about is what it says, and what the party was told before."""
        rules = self._survivor_rules
        self._stated = {
            "call": message["call"],
            "layout": message["layout"],
            "encoding": message["encoding"],
            "told": self.transcript.digest.hex(),
            "roster": self.roster,
            "rules": [rules.parties, rules.min_survivors],
        }

    def propose(self, call: int, data: Any, mask: ArrayMasks, within: Support | None = None) -> Message:
        """Uploads the own mask, see :meth:`~..client.Client.propose`."""
        self._repeat = lambda: self.propose(self.next_call(), data, mask, within)
        self._numbers = self._unrecorded = None
        return super().propose(call, data, mask, within)

    def upload_integers(self, call: int, own: np.ndarray) -> Message:
        """Pads integers, see :meth:`~..client.Client.upload_integers`."""
        self._repeat = lambda: self.upload_integers(self.next_call(), own)
        self._numbers = self._unrecorded = None
        return super().upload_integers(call, own)

    def settle(self, total: Message, uncounted: int = 0) -> Support:
        """Reads which elements enough of the survivors keep, see :meth:`~..client.Client.settle`."""
        proposed, counts = self._read_counts(total)
        return AgreedSupport(proposed, counts, self.survivors, self.rules.min_contributors, uncounted)

    def upload(self, call: Call, data: Any) -> Message:
        """Encodes and pads the own numbers, see :meth:`~..client.Client.upload`.

        Raises:
            AggregationError: as there; a weight is an array; or the same numbers were to be opened before
                with other parties than those of the roster.
        """
        weights = self.weights_of(()) if call.weights is None else call.weights
        if np.ndim(weights.weight) or np.ndim(weights.total):
            raise AggregationError("weights must be one number for each party with min_survivors, got arrays")
        fingerprint = self._spent.fingerprint(as_arrays(data)[0])
        support = call.support.among(self.roster) if isinstance(call.support, AgreedSupport) else call.support
        self._repeat = lambda: self.upload(replace(call, number=self.next_call()), data)
        # Who has gone since they were weighed may all have counted.
        gone = max(weights.parties - len(self.roster), 0)
        if gone:
            self._check_counting(weights.counting - gone, self.roster)
            weights = replace(weights, parties=weights.parties - gone, counting=weights.counting - gone)
        now = replace(call, support=support, weights=weights, fingerprint=fingerprint)
        message = super().upload(now, data)
        self._numbers = fingerprint.digest()
        self._spent.check(self._numbers, self.roster)
        return message

    def answer(self, call: int, survivors: tuple[str, ...]) -> Codes | Declined:
        """Says whether the party goes on with a set of survivors; once a call.

        Args:
            call: number of the call.
            survivors: as the server has announced them.

        Raises:
            AggregationError: the set is not allowed, or the party has said so of one already.
        """
        self._survivor_rules.check(self.roster, survivors, self.party)
        if "survivors" in self._stated:
            raise AggregationError(f"{self.party} has given its word on the survivors of call {call} already")
        self._check_contributors(survivors)
        if not self._can_open(survivors):
            self._stated["survivors"] = None
            return Declined(call)
        if self._numbers is not None:
            self._spent.check(self._numbers, survivors)
        self._stated["survivors"] = survivors
        others = [name for name in survivors if name != self.party]
        return Codes(call, self.keys.codes(self._statement(), others))

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
            raise AggregationError(f"{self.party} has not agreed on the survivors of call {call}")
        self.keys.check_codes(codes)
        if self._numbers is not None:
            self._spent.remember(self._numbers, survivors)
        if self._unrecorded is not None:
            super()._record(*self._unrecorded)
        dropped = set(self.roster).difference(survivors)
        seal = survivors[0] == self.party and self.keys.blinds_server
        seed, keys = self.keys.release(dropped, seal)
        return Release(call, seed, seal, keys)

    def take(self, total: Total) -> Message:
        """Takes the sum of the survivors; returns what the generators of the protocol go on with."""
        self.survivors = self._stated["survivors"]
        self.comers = total.comers
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

    def go_on_with(self, roster: tuple[str, ...]) -> None:
        """Takes notice of who is left between two calls.

        Args:
            roster: of the next call.

        Raises:
            AggregationError: the roster is not allowed.
        """
        self._survivor_rules.check(self.roster, roster, self.party)
        self._use(roster)

    def remember(self, before: SurvivingClient, fresh: bool) -> None:
        """Takes over what may not be forgotten when keys are agreed on anew.

        Args:
            before: this party's client under the keys of before.
            fresh: whether this party was away: what it contributed to before then binds it no more, for the
                others have gone on without it.
        """
        self.usage = before.usage
        self._spent = before._spent
        if not fresh:
            self.contributions = before.contributions

    def last_average(self) -> LastAverage | None:
        """The last average that came; None if none has come."""
        if self._last_opened is None:
            return None
        opening, total = self._last_opened
        opened = opening.open(total)
        whole = [index is None for index in opening.layout.support]
        return LastAverage(opened if isinstance(opened, list) else [opened], whole)

    def _ready_to_open(self, total: Message) -> tuple[Uploaded, Message]:
        uploaded, opened = super()._ready_to_open(total)
        self._last_opened = uploaded.opening, opened
        return uploaded, opened

    def lose(self, roster: tuple[str, ...]) -> None:
        """Gives the last call up and goes on with fewer parties.

        Args:
            roster: of the next call.

        Raises:
            AggregationError: it is not a smaller one of this party and enough others.
        """
        self.keys.forget()
        self._survivor_rules.check(self.roster, roster, self.party)
        if len(roster) == len(self.roster):
            raise AggregationError("a call must be given up for fewer parties, got the same ones")
        self._use(roster)

    def _use(self, roster: tuple[str, ...]) -> None:
        self.roster = self.keys.roster = roster

    def _statement(self) -> bytes:
        """A hash of what the codes of the last call are about: all that the survivors must have in common."""
        return sha256(repr(sorted(self._stated.items())).encode()).digest()

    def _check_contributors(self, survivors: Sequence[str]) -> None:
        if not isinstance(self._pending, Uploaded):
            return
        dropped = len(self.roster) - len(survivors)
        self._check_counting(self._pending.weights.counting - dropped, survivors)

    def _check_counting(self, counting: int, there: Sequence[str]) -> None:
        if counting < self.rules.min_contributors:
            raise AggregationError(
                f"at least min_contributors={self.rules.min_contributors} parties that count by their weight "
                f"must be there, got {counting} if those who are gone did; there: {', '.join(there)}"
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

    def _record(self, layout: Layout, support: Support | None, weights: AggregationWeights) -> None:
        """Keeps what the party contributes to until it releases; a call that is given up adds nothing up."""
        self._unrecorded = layout, support, weights
