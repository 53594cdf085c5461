"""A simulated network between real clients and a real server: whoever drives it decides what happens when."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from secretflow.security.aggregation.secagg.dropouts.protocol import Steps
from secretflow.security.aggregation.secagg.dropouts.server import Outgoing, Step
from secretflow.security.aggregation.secagg.dropouts.wire import Bye, Release, ToParty, ToServer, Upload
from secretflow.security.aggregation.secagg.errors import ChannelClosedError, RegroupError


class Server(Protocol):
    """What the network needs of a server, honest or not."""

    step: Step

    def receive(self, party: str, message: ToServer) -> Outgoing: ...

    def lose(self, party: str) -> Outgoing: ...

    def time_out(self) -> Outgoing: ...


class Network:
    """Carries messages one by one.

    Args:
        server: of the parties.
        parties: by name what each does.
        outcomes: by name what each has come to so far.

    Attributes:
        up: by party the messages on their way to the server.
        down: by party the messages on their way to it.
        ended: by party how it has ended: None, or its error.
        said: all that the parties have said, with who has.
        told: all that the server has said, with whom to.
        released: by party and number of the round the calls whose pads it has released.
        unanswered: who has waited for an answer in vain until its own patience was over.
    """

    def __init__(
        self, server: Server, parties: Mapping[str, Steps[None]], outcomes: Mapping[str, Sequence[object]]
    ) -> None:
        self.server = server
        self.up: dict[str, deque[ToServer]] = {name: deque() for name in parties}
        self.down: dict[str, deque[ToParty]] = {name: deque() for name in parties}
        self.ended: dict[str, BaseException | None] = {}
        self.said: list[tuple[str, ToServer]] = []
        self.told: Outgoing = []
        self.released: dict[tuple[str, int], set[int]] = {}
        self.unanswered: list[str] = []
        self._asked: dict[str, ToServer] = {}
        self._outcomes = outcomes
        self._parties = dict(parties)
        for name in parties:
            self._resume(name, None)

    def alive(self) -> list[str]:
        return [name for name in self._parties if name not in self.ended]

    def deliver_up(self, name: str) -> None:
        """The server takes the next message of a party."""
        self._send(self.server.receive(name, self.up[name].popleft()))

    def deliver_down(self, name: str) -> None:
        """A party takes the next message of the server."""
        message = self.down[name].popleft()
        if name not in self.ended:
            self._resume(name, message)

    def deliver_one(self, choose: Callable[[list[str]], str], up: bool = True) -> bool:
        """Delivers a message, of a party that is chosen among those that have one; whether there was any.

        Args:
            choose: one of some parties.
            up: whether one to the server goes first, if there is one; else it goes if nothing else does.
        """
        busy_up = [name for name, queue in self.up.items() if queue]
        busy_down = [name for name, queue in self.down.items() if queue and name not in self.ended]
        if busy_up and (up or not busy_down):
            self.deliver_up(choose(busy_up))
        elif busy_down:
            self.deliver_down(choose(busy_down))
        return bool(busy_up or busy_down)

    def hang_up(self, name: str) -> None:
        """A party ends its connection: the server notices, what is on its way is lost."""
        self.up[name].clear()
        self.down[name].clear()
        self._send(self.server.lose(name))
        self.down[name].clear()

    def cut(self, name: str) -> None:
        """The connection of a party breaks: both ends notice, what is on its way is lost."""
        self.hang_up(name)
        if name not in self.ended:
            self._throw(name, ChannelClosedError("cut"))

    def stick(self, name: str) -> None:
        """A party and its connection stand still for ever, and nobody notices."""
        self.ended[name] = TimeoutError("stuck")

    def say_hello_again(self, name: str) -> None:
        """A party takes nothing more of a call from the server, but has all agree on keys anew."""
        call = self.down[name][0].call
        self.down[name] = deque(message for message in self.down[name] if message.call != call)
        self._throw(name, RegroupError("hello"))

    def time_out(self) -> None:
        """The server has waited long enough."""
        self._send(self.server.time_out())

    def drain(self) -> None:
        """Delivers all that is on its way, then lets time pass, until nothing happens any more."""
        for _ in range(10_000):
            if self.deliver_one(lambda names: names[0]):
                continue
            if self.alive() and self.server.step is not Step.NOTHING:
                self.time_out()
            elif self.alive():  # no answer will come: the party's own deadline passes
                if not isinstance(self._asked.get(self.alive()[0]), Bye):
                    self.unanswered.append(self.alive()[0])
                self._throw(self.alive()[0], ChannelClosedError("no answer in time"))
            else:
                return
        raise AssertionError("a run without an end")

    def _resume(self, name: str, message: ToParty | None) -> None:
        try:
            said = self._parties[name].send(message)  # type: ignore[arg-type]
            if said is not None:
                self.said.append((name, said))
                self._asked[name] = said
                if isinstance(said, Release):
                    self.released.setdefault((name, len(self._outcomes[name])), set()).add(said.call)
                self.up[name].append(said)
        except StopIteration:
            self.ended[name] = None
        except Exception as error:
            self.ended[name] = error
            self._send(self.server.lose(name))  # as a party that fails closes its connection

    def _throw(self, name: str, error: Exception) -> None:
        try:
            said = self._parties[name].throw(error)
        except StopIteration:
            self.ended[name] = None
        except Exception as raised:
            self.ended[name] = raised
        else:  # it comes back
            assert said is not None
            self._asked[name] = said
            self.up[name].append(said)

    def _send(self, outgoing: Outgoing) -> None:
        self.told += outgoing
        for name, message in outgoing:
            self.down[name].append(message)


def openable(said: list[tuple[str, ToServer]]) -> dict[int, list[frozenset[str]]]:
    """Of each call the smallest sums that whoever has heard all that was said can open.

    Parties are joined where the pad of the pair is unknown: a sum must have both or none of them. A sum can
    be opened if the own pads of all in it are known.
    """
    rosters: dict[int, set[str]] = {}
    seeds: dict[int, set[str]] = {}
    pairs: dict[int, set[frozenset[str]]] = {}
    for name, message in said:
        if isinstance(message, Upload):
            rosters.setdefault(message.call, set()).add(name)
        if isinstance(message, Release):
            seeds.setdefault(message.call, set()).add(name)
            pairs.setdefault(message.call, set()).update(frozenset((name, other)) for other in message.keys)
    found: dict[int, list[frozenset[str]]] = {}
    for call, uploaded in rosters.items():
        left, parts = set(uploaded), []
        while left:
            part, edge = set(), {left.pop()}
            while edge:
                one = edge.pop()
                part.add(one)
                edge |= {
                    other
                    for other in uploaded - part
                    if frozenset((one, other)) not in pairs.get(call, set())
                }
            left -= part
            parts.append(frozenset(part))
        found[call] = [part for part in parts if part <= seeds.get(call, set())]
    return found
