"""How parties meet and agree on keys before the first call, through the server.

The server relays letters and needs no key. That a key is a party's own rests on the identities, as in
:class:`~..keyring.KeyRing`; without them a server that lies could exchange keys.

Whoever comes later, or comes back, waits until the others have ended a call; then all agree on keys anew. Who
is in the midst of another call then gives it up, as when its connection breaks: what it has uploaded and not
released stays closed, and what it has released is not uploaded again. So a server that is started again needs
nothing of the last one: the parties say hello to it and how far they have come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import TypeVar

from ..errors import AggregationError
from ..keyring import Confirmation
from .client import SurvivingClient
from .protocol import Steps, answer_to
from .rules import SurvivorRules
from .server import Outgoing, SurvivorServer
from .wire import Bye, Ended, Hello, Letters, Members, Regroup, ToParty, ToServer

_Client = TypeVar("_Client", bound=SurvivingClient)

_CODE_BYTES = 32
_LETTERS = 3  # of each member: a public key, a confirmation, the group key


def join(
    make_client: Callable[[tuple[str, ...]], _Client], party: str, passed: int = 0, held: int = 0
) -> Steps[tuple[_Client, Members]]:
    """Has a party meet the others.

    Args:
        make_client: makes its client, given who begins.
        party: own name.
        passed: see :class:`~.wire.Hello`, as well as ``held``.

    Returns:
        The client, with its keys, and what the server says of the members.

    Raises:
        RegroupError: somebody was lost meanwhile; join again.
        AggregationError: the keys are not everybody's, or the server does not follow.
    """
    members = yield from answer_to(Hello(0, passed, held))
    if not isinstance(members, Members) or party not in members.names:
        raise AggregationError(f"{party} must be told who begins, got {type(members).__name__.lower()}")
    names = members.names
    if len(set(names)) < len(names):
        raise AggregationError(f"members must be named once each, got {', '.join(names)}")
    client = make_client(names)
    peers = [name for name in names if name != party]
    own_key = client.keys.public_key()
    public_keys = yield from _exchange(dict.fromkeys(peers, own_key), peers)
    own = client.keys.agree(*(own_key if name == party else public_keys[name] for name in names))
    told = yield from _exchange({p: own["signature"] + own["codes"][p] for p in peers}, peers)
    client.keys.confirm(*(own if name == party else _confirmation(told[name], party) for name in names))
    first = names[0]
    keys = yield from _exchange(client.keys.share_group_key() if party == first else {}, [])
    if party != first:
        client.keys.take_group_key({party: keys.get(first, b"")})
    return client, members


def _exchange(letters: dict[str, bytes], senders: Sequence[str]) -> Steps[dict[str, bytes]]:
    """What the others have written to this party."""
    answer = yield from answer_to(Letters(letters))
    if not isinstance(answer, Letters) or not set(senders) <= set(answer.letters):
        raise AggregationError(f"letters of {list(senders)} must come, got {type(answer).__name__.lower()}")
    return dict(answer.letters)


def _confirmation(letter: bytes, receiver: str) -> Confirmation:
    return Confirmation(signature=letter[:-_CODE_BYTES], codes={receiver: letter[-_CODE_BYTES:]})


class Phase(Enum):
    """What a session is doing."""

    GATHERING = "parties come"
    WRITING = "members agree on keys"
    CALLING = "members add up"


class Session:
    """The server's side from the first party that comes to the last call. It waits for nothing, as its calls.

    Args:
        names: of all who may come, in the order in which weights are given.
        rules: which sets of parties a call may end with.
        sums_ahead: see :class:`~.server.SurvivorServer`.

    Attributes:
        phase: what it is doing.
        steps: counts the steps; whoever keeps the time gives each the same, but the first as long as parties
            shall be waited for.
    """

    def __init__(self, names: Sequence[str], rules: SurvivorRules, sums_ahead: bool = False) -> None:
        self.phase = Phase.GATHERING
        self._names = tuple(names)
        self._rules = rules
        self._sums_ahead = sums_ahead
        self._expected = set(names)
        self._there: dict[str, Hello] = {}
        self._written: dict[str, Letters] = {}
        self._to_write = _LETTERS
        self._members: tuple[str, ...] = ()
        self._calls: SurvivorServer | None = None
        self._waiting: dict[str, Hello] = {}  # for the end of a call
        self._left: set[str] = set()  # who has all it wants
        self._ended: Ended | None = None
        self._over = False
        self._steps = 0

    def anew(self) -> Session:
        """One of the same parties that has not begun."""
        return Session(self._names, self._rules, self._sums_ahead)

    @property
    def steps(self) -> int:
        """How many steps have ended."""
        return self._steps + (self._calls.steps if self._calls else 0)

    @property
    def ended(self) -> Ended | None:
        """What the parties were told of the end; None as long as there may be further calls."""
        return self._ended or (self._calls.ended if self._calls else None)

    @property
    def has_ended(self) -> bool:
        """Whether there will be no further call."""
        return self.ended is not None

    @property
    def is_over(self) -> bool:
        """Whether it has ended because the parties have all they want."""
        return self._over or (self._calls is not None and self._calls.is_over)

    def take_reports(self) -> dict[str, bytes]:
        """What the parties have told each other since this was asked last, by sender."""
        if self._calls is None:
            return {}
        reports, self._calls.reports = self._calls.reports, {}
        return reports

    def receive(self, party: str, message: ToServer) -> Outgoing:
        """Takes a message, see :meth:`.SurvivorServer.receive`."""
        if self.ended is not None:
            return [(party, self.ended)]
        if isinstance(message, Bye):
            self._left.add(party)
        if isinstance(message, Hello) and party in self._names:
            self._left.discard(party)
            return self._welcome(party, message)
        if self._calls is not None:
            return self._calls.receive(party, message) + self._end_with_calls()
        if isinstance(message, Bye):
            return self.lose(party)
        if party not in self._there and party not in self._waiting:
            return [(party, Regroup())]  # it does not know yet that all say hello, and would wait
        if self.phase is Phase.WRITING and isinstance(message, Letters) and party in self._members:
            self._written.setdefault(party, message)
            return self.time_out() if set(self._written) == set(self._members) else []
        return []

    def lose(self, party: str) -> Outgoing:
        """Takes notice that a party has gone; returns what to send now."""
        self._waiting.pop(party, None)
        if self._calls is not None:
            told = self._calls.lose(party)
            return told + self._end_with_calls()
        self._there.pop(party, None)
        if self.phase is Phase.WRITING:
            return self._regroup(set(self._members) - {party}) if party in self._members else []
        if self._steps:  # the first time a party may come back as long as parties are waited for
            self._expected.discard(party)
            return self._go_on_if_all_are_there()
        return []

    def time_out(self) -> Outgoing:
        """Ends the step with those who have done their part; returns what to send now."""
        if self._calls is not None:
            return self._calls.time_out() + self._end_with_calls()
        if self.phase is Phase.GATHERING:
            return self._begin_writing()
        if set(self._written) != set(self._members):
            return self._regroup(set(self._written))
        self._steps += 1
        return self._pass_letters_on()

    def _welcome(self, party: str, hello: Hello) -> Outgoing:
        """Takes a party in, now or when the others have ended a call."""
        calls, told = self._calls, list[tuple[str, ToParty]]()
        if calls is not None and party in calls.there():  # it was told of comers, or has missed an average
            told = [(other, Regroup()) for other in calls.there() if other != party]
            self._to_gathering(set(calls.there()))
        elif self.phase is not Phase.GATHERING:
            self._waiting[party] = hello
            if calls is not None:
                calls.comers = True
            return []
        self._there[party] = hello
        self._expected.add(party)
        return told + self._go_on_if_all_are_there()

    def _go_on_if_all_are_there(self) -> Outgoing:
        return self.time_out() if self._there.keys() >= self._expected else []

    def _begin_writing(self) -> Outgoing:
        self._steps += 1
        there = self._there
        self._members = members = tuple(name for name in self._names if name in there)
        if len(members) < self._rules.min_survivors and self._left:
            self._over = True  # somebody came when the others had come to their end
            return self._end("the others have all they want, and there is nothing more to do")
        if len(members) < self._rules.min_survivors:
            return self._end(self._rules.too_few(self._names, members), too_few=True)
        self.phase, self._to_write, self._written = Phase.WRITING, _LETTERS, {}
        held = max(there[member].held for member in members)
        behind = tuple(member for member in members if there[member].held < held)
        passed = max(there[member].passed for member in members)
        return [(member, Members(members, 0, behind, passed)) for member in members]

    def _regroup(self, expected: set[str]) -> Outgoing:
        """Has all say hello again: keys are everybody's or nobody's."""
        told: Outgoing = [(member, Regroup()) for member in self._members if member in expected]
        self._to_gathering(expected)
        return told

    def _to_gathering(self, expected: set[str]) -> None:
        self._steps = self.steps + 1
        self._calls, self.phase, self._written = None, Phase.GATHERING, {}
        self._there, self._waiting = self._waiting, {}
        self._expected = expected | self._there.keys()

    def _pass_letters_on(self) -> Outgoing:
        written, self._written = self._written, {}
        self._to_write -= 1
        if not self._to_write:
            self.phase = Phase.CALLING
            self._calls = SurvivorServer(self._members, self._rules, self._names, self._sums_ahead)
            self._calls.comers = bool(self._waiting)
        return [
            (to, Letters({by: w.letters[to] for by, w in written.items() if to in w.letters}))
            for to in self._members
        ]

    def _end(self, reason: str, too_few: bool = False) -> Outgoing:
        self._ended = Ended(0, reason, too_few)
        return [(party, self._ended) for party in self._names]

    def _end_with_calls(self) -> Outgoing:
        """Tells those who wait to come in of the end."""
        ended, waiting, self._waiting = self.ended, self._waiting, {}
        if ended is None:
            self._waiting = waiting
            return []
        return [(party, ended) for party in waiting]
