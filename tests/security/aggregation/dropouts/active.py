"""A server that does not follow the protocol."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b, sha256

from secretflow.security.aggregation.secagg.dropouts.ahead import SumAhead, halves
from secretflow.security.aggregation.secagg.dropouts.rules import SurvivorRules
from secretflow.security.aggregation.secagg.dropouts.server import Outgoing, Step, SurvivorServer
from secretflow.security.aggregation.secagg.dropouts.wire import (
    Again,
    Announcement,
    Codes,
    Lost,
    PaddedHalf,
    PadKeys,
    Release,
    ToParty,
    ToServer,
    Total,
    Upload,
)
from secretflow.security.aggregation.secagg.keys import KEY_BYTES
from secretflow.security.aggregation.secagg.message import Message
from secretflow.security.aggregation.secagg.transcript import Transcript


class ActiveServer:
    """Follows the protocol now and then, and else says what it likes to whom it likes.

    Args:
        names: of the parties.
        rules: of the parties.
        chance: decides.
        lies: how often it deviates, from 0 to 1.
        sums_ahead: see :class:`SurvivorServer`.
    """

    def __init__(
        self,
        names: Sequence[str],
        rules: SurvivorRules,
        chance: random.Random,
        lies: float,
        sums_ahead: bool,
    ) -> None:
        self._honest = SurvivorServer(names, rules, sums_ahead=sums_ahead)
        self._names = list(names)
        self._rules = rules
        self._chance = chance
        self._lies = lies
        self._codes: list[tuple[str, str, int, bytes]] = []  # sender, receiver, call, code
        self._pad_keys: dict[tuple[str, str], bytes] = {}
        self._seeds: list[bytes] = []
        self._halves: list[PaddedHalf] = []
        self._sent: list[ToParty] = []
        self._transcript = Transcript()  # as the parties have it, if they were told the truth
        self._uploads: list[Upload] = []

    @property
    def step(self) -> Step:
        return self._honest.step

    def receive(self, party: str, message: ToServer) -> Outgoing:
        if isinstance(message, Upload):
            self._uploads.append(message)
        elif isinstance(message, Codes):
            self._codes += [(party, to, message.call, code) for to, code in message.codes.items()]
        elif isinstance(message, Release):
            self._pad_keys |= {(party, other): key for other, key in message.keys.items()}
            self._seeds.append(message.seed[:KEY_BYTES])
        return self._twisted(self._honest.receive(party, message), party)

    def lose(self, party: str) -> Outgoing:
        return self._twisted(self._honest.lose(party), party)

    def time_out(self) -> Outgoing:
        return self._twisted(self._honest.time_out(), self._chance.choice(self._names))

    def _twisted(self, outgoing: Outgoing, party: str) -> Outgoing:
        told: Outgoing = []
        total = self._opened([message for _, message in outgoing])
        if total is not None:
            self._transcript.add(total)
        for to, message in outgoing:
            if self._chance.random() < self._lies:
                told += [(to, lie) for lie in self._lie(to, message)]
            else:
                told.append((to, message))
        if self._chance.random() < self._lies / 4:
            to = self._chance.choice(self._names)
            told += [(to, lie) for lie in self._lie(to, None)]
        self._sent += [message for _, message in told]
        return told

    def _opened(self, answers: list[ToParty]) -> Message | None:
        """The sum that the parties would open now, if they were told the truth."""
        for answer in answers:
            if isinstance(answer, Total):
                return answer.message
            if isinstance(answer, PaddedHalf) and answer not in self._halves:
                self._halves.append(answer)
            elif isinstance(answer, PadKeys):
                own = next(upload for upload in self._uploads if upload.call == answer.call)
                ahead = SumAhead(own.message, len(answer.keys))
                assert [ahead.takes(half) for half in self._halves[-2:]] == [True, True]
                return ahead.opened(answer).message
        return None

    def _lie(self, to: str, instead_of: ToParty | None) -> list[ToParty]:
        call = self._uploads[-1].call if self._uploads else 1
        roster = self._some(to)
        lies: list[ToParty] = [
            Announcement(call, self._some(to)),
            Again(call, roster),
            Lost(call, roster),
            self._gathered(to, call),
            self._forged(to, call),
        ]
        if self._sent:
            lies.append(self._chance.choice(self._sent))
        if self._uploads:
            message = self._chance.choice(self._uploads).message
            lies += [Total(message), *halves(message)]
        keys = [(key, self._chance.random() < 0.9) for key in self._seeds[-self._chance.randint(1, 9) :]]
        lies.append(PadKeys(call, keys))
        if isinstance(instead_of, Codes):
            lies += [self._forged(to, call), replace(instead_of, call=call - 1)]
        if isinstance(instead_of, Announcement):
            lies += [Announcement(call, self._some(to))] * 4
        return self._chance.sample(lies, self._chance.choice([0, 1, 1, 1, 2]))

    def _some(self, to: str) -> tuple[str, ...]:
        """A set that could be allowed."""
        size = self._chance.randint(self._rules.min_survivors, len(self._names))
        chosen = {to, *self._chance.sample(self._names, size)}
        return tuple(name for name in self._names if name in chosen)

    def _gathered(self, to: str, call: int) -> Codes:
        """Codes that were said, for this call if there are such."""
        there = sorted(
            (of == call, k) for k, (_, receiver, of, _) in enumerate(self._codes) if receiver == to
        )
        return Codes(call, {self._codes[k][0]: self._codes[k][3] for _, k in there})

    def _forged(self, to: str, call: int) -> Codes:
        """Codes under the keys of pads that were released, where there are such, about any set."""
        survivors, told = self._some(to), self._transcript.digest
        codes = dict(self._gathered(to, call).codes)
        for name in survivors:
            key = self._pad_keys.get((name, to))
            if key is not None:
                upload = self._uploads[-1]
                codes[name] = forged(key, name, to, upload, self._names, survivors, self._rules, told)
        return Codes(call, codes)


def forged(
    key: bytes,
    sender: str,
    receiver: str,
    upload: Upload,
    roster: Sequence[str],
    survivors: Sequence[str],
    rules: SurvivorRules,
    told: bytes = bytes(32),
) -> bytes:
    """The code that a sender would make about a set for a receiver, if codes were made with this key."""
    stated = {
        "call": upload.call,
        "layout": upload.message["layout"],
        "encoding": upload.message["encoding"],
        "roster": tuple(roster),
        "told": told.hex(),
        "rules": [rules.parties, rules.min_survivors],
        "survivors": tuple(survivors),
    }
    statement = sha256(repr(sorted(stated.items())).encode()).digest()
    both = blake2b(statement, digest_size=64, key=key).digest()
    return both[:32] if sender < receiver else both[32:]
