"""How parties meet and agree on keys before the first call, through the server.

The server relays letters and needs no key. That a key is a party's own rests on the identities, as in
:class:`~..keyring.KeyRing`; without them a server that lies could exchange keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

from ..errors import AggregationError
from ..keyring import Confirmation
from .client import SurvivingClient
from .protocol import Steps, answer_to
from .rules import SurvivorRules
from .server import Outgoing, SurvivorServer
from .wire import Ended, Hello, Letters, Members, ToServer

_CODE_BYTES = 32
_LETTERS = 3  # of each member: a public key, a confirmation, the group key


def join(make_client: Callable[[tuple[str, ...]], SurvivingClient], party: str) -> Steps[SurvivingClient]:
    """Has a party meet the others.

    Args:
        make_client: makes its client, given who begins.
        party: own name.

    Returns:
        The client, with its keys.

    Raises:
        AggregationError: the keys are not everybody's, or the server does not follow.
    """
    members = yield from answer_to(Hello())
    if not isinstance(members, Members) or party not in members.names:
        raise AggregationError(f"{party} must be told who begins, got {type(members).__name__.lower()}")
    names = members.names
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
    return client


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

    Attributes:
        phase: what it is doing.
        steps: counts the steps; whoever keeps the time gives each the same, but the first as long as parties
            shall be waited for.
    """

    def __init__(self, names: Sequence[str], rules: SurvivorRules) -> None:
        self.phase = Phase.GATHERING
        self._names = tuple(names)
        self._rules = rules
        self._there: set[str] = set()
        self._written: dict[str, Letters] = {}
        self._to_write = _LETTERS
        self._members: tuple[str, ...] = ()
        self._calls: SurvivorServer | None = None
        self._ended: Ended | None = None
        self._steps = 0

    @property
    def steps(self) -> int:
        """How many steps have ended."""
        return self._steps + (self._calls.steps if self._calls else 0)

    @property
    def has_ended(self) -> bool:
        """Whether there will be no further call."""
        return self._ended is not None or (self._calls is not None and self._calls.has_ended)

    def receive(self, party: str, message: ToServer) -> Outgoing:
        """Takes a message, see :meth:`.SurvivorServer.receive`."""
        if self._ended is not None:
            return [(party, self._ended)]
        if self._calls is not None:
            return self._calls.receive(party, message)
        if self.phase is Phase.GATHERING and isinstance(message, Hello) and party in self._names:
            self._there.add(party)
            return self.time_out() if self._there == set(self._names) else []
        if self.phase is Phase.WRITING and isinstance(message, Letters) and party in self._members:
            self._written.setdefault(party, message)
            return self.time_out() if set(self._written) == set(self._members) else []
        return []

    def lose(self, party: str) -> Outgoing:
        """Takes notice that a party has gone; returns what to send now."""
        if self._calls is not None:
            return self._calls.lose(party)
        self._there.discard(party)
        if self.phase is Phase.WRITING and party in self._members:
            return self._end(f"{party} has gone before the keys were agreed on: start again")
        return []

    def time_out(self) -> Outgoing:
        """Ends the step with those who have done their part; returns what to send now."""
        if self._calls is not None:
            return self._calls.time_out()
        self._steps += 1
        if self.phase is Phase.GATHERING:
            self._members = tuple(name for name in self._names if name in self._there)
            if len(self._members) < self._rules.min_survivors:
                return self._end(self._rules.too_few(self._names, self._members), too_few=True)
            self.phase = Phase.WRITING
            return [(member, Members(self._members)) for member in self._members]
        silent = [member for member in self._members if member not in self._written]
        if silent:
            return self._end(f"{', '.join(silent)} did not agree on keys in time: start again")
        return self._pass_letters_on()

    def _pass_letters_on(self) -> Outgoing:
        written, self._written = self._written, {}
        self._to_write -= 1
        if not self._to_write:
            self.phase = Phase.CALLING
            self._calls = SurvivorServer(self._members, self._rules)
        return [
            (to, Letters({by: w.letters[to] for by, w in written.items() if to in w.letters}))
            for to in self._members
        ]

    def _end(self, reason: str, too_few: bool = False) -> Outgoing:
        self._ended = Ended(0, reason, too_few)
        return [(party, self._ended) for party in self._names if party in self._there]
