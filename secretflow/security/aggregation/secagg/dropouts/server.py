"""The server of calls that end with those who are there. It waits for nothing: it is told what happens."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from enum import Enum
from typing import TypeAlias

from ..errors import AggregationError
from ..keys import KEY_BYTES
from ..message import Message, add_up, take_pads_off
from .ahead import halves
from .rules import SurvivorRules
from .wire import (
    Again,
    Announcement,
    Bye,
    Codes,
    Declined,
    Dropped,
    Ended,
    Lost,
    PadKeys,
    Release,
    Report,
    Reports,
    ToParty,
    ToServer,
    Total,
    Upload,
)

Outgoing: TypeAlias = "list[tuple[str, ToParty]]"
"""Messages, each with the party it is for."""


class Step(Enum):
    """What the server waits for."""

    UPLOADS = "uploads"
    ANSWERS = "answers to the announcement"
    RELEASES = "what takes the pads off"
    NOTHING = "nothing more"


class SurvivorServer:
    """Adds the messages of those who are there, call by call.

    Args:
        names: of all who begin, in their order.
        rules: which sets of parties a call may end with.
        expected: of all who were to begin; None for ``names``.
        sums_ahead: whether sums travel while the parties agree; then each takes all pads off by itself. Else
            this server does so once, which is less work where all are on one machine.

    Attributes:
        step: what it waits for.
        steps: counts the steps; whoever keeps the time gives each the same.
        roster: who takes part in this call.
        comers: whether somebody waits to come in.
        told_of_comers: whether the parties know.
        reports: those of the last call that was for reports, by sender.
        is_over: whether there will be no further call because the parties have all they want.
    """

    def __init__(
        self,
        names: Sequence[str],
        rules: SurvivorRules,
        expected: Sequence[str] | None = None,
        sums_ahead: bool = False,
    ) -> None:
        self.comers = self.told_of_comers = self.is_over = False
        self.reports: dict[str, bytes] = {}
        self.step = Step.UPLOADS
        self.steps = 0
        self.roster = tuple(names)
        self._names = tuple(names if expected is None else expected)
        self._rules = rules
        self._sums_ahead = sums_ahead
        self._reported: dict[str, Report] = {}
        self._left: set[str] = set()
        self._gone: set[str] = set()
        self._call = 0
        self._last_call = 0  # that is over
        self._ended: Ended | None = None
        self._awaited = set(names)  # who has not done its part of this step
        self._survivors: tuple[str, ...] = ()
        self._uploads: dict[str, Message] = {}
        self._sum: Message | None = None
        self._answers: dict[str, Codes | Declined] = {}
        self._releases: dict[str, Release] = {}

    @property
    def has_ended(self) -> bool:
        """Whether there will be no further call."""
        return self._ended is not None

    def waits_for(self) -> set[str]:
        """Who has not done its part of this step."""
        return set(self._awaited)

    def receive(self, party: str, message: ToServer) -> Outgoing:
        """Takes a message.

        Args:
            party: who has sent it.
            message: what came; one that is late, or that came before, changes nothing.

        Returns:
            What to send now.
        """
        if self._ended is not None:
            return [(party, self._ended)]
        if party in self._gone or party not in self.roster:
            return [(party, Dropped(message.call))]
        if isinstance(message, Bye):
            self._left.add(party)
            return self.lose(party)
        if isinstance(message, (Upload, Report)):
            return self._take_upload(party, message)
        if message.call != self._call or party not in self._awaited:
            return []
        if self.step is Step.RELEASES and isinstance(message, Release):
            self._releases[party] = message
        elif self.step is Step.ANSWERS and isinstance(message, (Codes, Declined)):
            self._answers[party] = message
        else:
            return []
        return self._go_on_without(party)

    def lose(self, party: str) -> Outgoing:
        """Takes notice that a party has gone; returns what to send now."""
        self._gone.add(party)
        return self._go_on_without(party)

    def time_out(self) -> Outgoing:
        """Ends the step with those who have done their part; returns what to send now."""
        return {
            Step.UPLOADS: self._announce,
            Step.ANSWERS: self._pass_codes_on,
            Step.RELEASES: self._open,
            Step.NOTHING: lambda: list[tuple[str, ToParty]](),
        }[self.step]()

    def _go_on_without(self, party: str) -> Outgoing:
        """Waits no longer for a party."""
        self._awaited.discard(party)
        return [] if self._awaited else self.time_out()

    def _take_upload(self, party: str, upload: Upload | Report) -> Outgoing:
        if self.step is not Step.UPLOADS or party not in self._awaited or upload.call <= self._last_call:
            return []
        self._call = upload.call
        if isinstance(upload, Report):
            self._reported[party] = upload
        else:
            self._uploads[party] = upload.message
        return self._go_on_without(party)

    def _announce(self) -> Outgoing:
        if self._reported and not self._uploads:
            return self._pass_reports_on()
        if self._left and not self._uploads:
            self.is_over = True
            return self._end("the others have all they want, and there is nothing more to do", too_few=False)
        self._survivors = there = self._of_roster(self._uploads)
        told = self._to_enough(there, Step.ANSWERS, lambda there: Announcement(self._call, there))
        if self._ended is None:
            try:
                self._sum = add_up([self._uploads[party] for party in there])
            except AggregationError as error:
                return self._end(str(error), too_few=False)
            told += self._send_half(0)
        return told + self._drop(self.roster, there)

    def _send_half(self, which: int) -> Outgoing:
        """Sends each survivor half of the sum, the pads of all of them on it."""
        if not self._sums_ahead:
            return []
        assert self._sum is not None  # of the survivors, who are some
        half = halves(self._sum)[which]
        return [(party, half) for party in self._survivors]

    def _pass_reports_on(self) -> Outgoing:
        there, before = self._of_roster(self._reported), self.roster
        bodies = {party: self._reported[party].body for party in there}
        call = self._call
        told = self._to_enough(there, Step.UPLOADS, lambda there: Reports(call, bodies))
        if self._ended is None:
            self.reports = bodies
            self._begin(there)
        return told + self._drop(before, there)

    def _pass_codes_on(self) -> Outgoing:
        answers, survivors = self._answers, self._survivors
        there = self._of_roster(answers)
        said = {party: answers[party] for party in there}
        codes = {party: answer.codes for party, answer in said.items() if isinstance(answer, Codes)}
        if len(codes) < len(survivors):
            return self._begin_anew(there, lambda roster: Again(self._call, roster))
        self._to_step(Step.RELEASES)
        told: Outgoing = [
            (
                party,
                Codes(self._call, {peer: codes[peer].get(party, b"") for peer in survivors if peer != party}),
            )
            for party in survivors
        ]
        return told + self._send_half(1)

    def _open(self) -> Outgoing:
        if set(self._releases) != set(self._survivors):
            there = self._of_roster(self._releases)
            return self._begin_anew(there, lambda roster: Lost(self._call, roster))
        assert self._sum is not None  # of the survivors, who are some
        keys = self._pad_keys()
        if any(len(key) != KEY_BYTES for key, _ in keys):
            return self._end("a party has not released what takes its pads off", too_few=False)
        sealed = b"".join(release.seed for release in self._releases.values() if release.sealed)
        opens: ToParty
        if self._sums_ahead:
            opens = PadKeys(self._call, keys, sealed, self.comers)
        else:
            take_pads_off(self._sum, keys)
            opens = Total(self._sum, sealed, self.comers)
        self._begin(self._survivors)
        self.told_of_comers |= self.comers
        return [(party, opens) for party in self.there()]

    def _pad_keys(self) -> list[tuple[bytes, bool]]:
        """Of the pads on the sum, each with whether it is subtracted to take it off.

        They are the survivors' own ones, and those shared with who has dropped out.
        """
        gone = set(self.roster).difference(self._survivors)
        keys = [(release.seed, True) for release in self._releases.values() if not release.sealed]
        for party, release in self._releases.items():
            # Who is no neighbour of a party has no pad in common with it.
            for dropped in gone & release.keys.keys():
                keys.append((release.keys[dropped], party < dropped))  # the reverse of how they were added
        return keys

    def _begin_anew(self, there: tuple[str, ...], tell: Callable[[tuple[str, ...]], ToParty]) -> Outgoing:
        """Gives the call up; the next one is of those who are there, who must be fewer."""
        if there == self.roster:
            return self._end("a party cannot open what all have uploaded", too_few=False)
        told = self._to_enough(there, Step.UPLOADS, tell)
        if self._ended is None:
            self._begin(there)
        return told + self._drop(self._survivors, there)

    def _begin(self, roster: tuple[str, ...]) -> None:
        self.roster = roster
        self._last_call, self._sum = self._call, None
        self._uploads, self._answers, self._releases, self._reported = {}, {}, {}, {}
        self._to_step(Step.UPLOADS)

    def _to_enough(
        self, there: tuple[str, ...], step: Step, tell: Callable[[tuple[str, ...]], ToParty]
    ) -> Outgoing:
        """Tells those who are there how it goes on, or that it does not."""
        if len(there) < self._rules.min_survivors:
            return self._end(self._rules.too_few(self._names, there), too_few=True)
        self._to_step(step)
        return [(party, tell(there)) for party in there]

    @property
    def ended(self) -> Ended | None:
        """What the parties were told of the end; None before it."""
        return self._ended

    def there(self) -> tuple[str, ...]:
        """Who of the roster has not gone."""
        return self._of_roster(self.roster)

    def _end(self, reason: str, too_few: bool) -> Outgoing:
        self._to_step(Step.NOTHING)
        self._ended = Ended(self._call, reason, too_few)
        return [(party, self._ended) for party in self.roster if party not in self._gone]

    def _drop(self, expected: Sequence[str], there: Sequence[str]) -> Outgoing:
        """Tells those who came too late, in case they are still there."""
        if self._ended is not None:
            return []  # all have been told
        late = set(expected) - set(there) - self._gone
        self._gone |= late
        return [(party, Dropped(self._call)) for party in sorted(late)]

    def _of_roster(self, parties: Container[str]) -> tuple[str, ...]:
        return tuple(name for name in self.roster if name in parties and name not in self._gone)

    def _to_step(self, step: Step) -> None:
        self.step = step
        self.steps += 1
        parties = {Step.UPLOADS: self.roster, Step.NOTHING: ()}.get(step, self._survivors)
        self._awaited = set(parties) - self._gone
