"""Parties that come late or come back, with real clients, a real server and a simulated network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from secretflow.party.address import Address
from secretflow.party.keys import make_party, read_identity
from secretflow.security.aggregation.secagg.call import Call, Operation
from secretflow.security.aggregation.secagg.dropouts.client import SurvivingClient
from secretflow.security.aggregation.secagg.dropouts.joining import Phase, Session, join
from secretflow.security.aggregation.secagg.dropouts.keys import as_told
from secretflow.security.aggregation.secagg.dropouts.protocol import Steps, tell, with_survivors
from secretflow.security.aggregation.secagg.dropouts.rules import SurvivorRules, may_drop_out
from secretflow.security.aggregation.secagg.dropouts.server import Step
from secretflow.security.aggregation.secagg.dropouts.wire import (
    Announcement,
    Bye,
    Codes,
    Hello,
    Letters,
    Members,
    PaddedHalf,
    PadKeys,
    Regroup,
    Release,
    Report,
    Reports,
    ToServer,
    Total,
    Upload,
)
from secretflow.security.aggregation.secagg.errors import (
    AggregationError,
    ChannelClosedError,
    DroppedOutError,
    RegroupError,
    RoundLostError,
    TooFewSurvivorsError,
)
from secretflow.security.aggregation.secagg.identity import Identities
from secretflow.security.aggregation.secagg.protocol import Exchanges, confirm
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rules import Rules

from .network import Network
from .parties import clients_of, names_of, numbers_of, plain_average, weights_of

PARTIES, ROUNDS = 4, 6
NAMES = names_of(PARTIES)
RING = Ring.make(32, None, PARTIES)
IN_CALLS = (Announcement, PaddedHalf, Codes, PadKeys, Reports, Total)
SURVIVORS = SurvivorRules.make(PARTIES, 3, 2)


@dataclass(frozen=True)
class Averaged:
    """An average as one party has it.

    Attributes:
        number: of the round.
        members: who had agreed on keys.
        survivors: whose average it is.
        average: arrays.
    """

    number: int
    members: tuple[str, ...]
    survivors: tuple[str, ...]
    average: list[np.ndarray]


class Served(Session):
    """A session, as the network asks for its step."""

    @property
    def step(self) -> Step:
        return Step.NOTHING if self.has_ended else Step.UPLOADS


def one_round(client: SurvivingClient, name: str, number: int) -> Exchanges[list[np.ndarray] | None]:
    numbers = numbers_of(name, number)
    weights = client.weights_of(weights_of(client.names))
    try:
        total = yield client.upload(Call(client.next_call(), Operation.AVERAGE, weights), numbers)
    except RoundLostError:
        return None
    opened: list[np.ndarray] = client.open(total, numbers)
    return opened


def settles(client: SurvivingClient) -> Exchanges[None]:
    """A sum before the rounds, as those in which masks and weights are told."""
    while True:
        try:
            return (yield from confirm(client, b"the same"))
        except RoundLostError:
            continue


def trains(
    name: str,
    rules: Rules,
    outcomes: list[Averaged],
    identities: Identities | None = None,
    survivors: SurvivorRules = SURVIVORS,
    hang_up: Callable[[], None] = lambda: None,
) -> Steps[None]:
    """Averages new numbers in each round, and comes back whenever it has lost the others."""
    client: SurvivingClient | None = None
    passed = held = 0
    while passed <= ROUNDS:
        try:
            before = client
            client, members = yield from join(
                lambda names: SurvivingClient(name, names, rules, survivors, identities), name, passed, held
            )
            client.number_calls(1)
            client.transcript.begin(anew=True)
            if before is not None:
                client.remember(before, fresh=name in members.behind)
            giver = next(each for each in client.names if each not in members.behind)
            told = yield from tell(client, str(held).encode())
            if name in members.behind:
                if giver not in told:
                    raise RegroupError(f"{giver} was lost")
                held = int(told[giver])
            yield from with_survivors(client, settles(client))
            passed = max(members.passed, 1)
            while passed <= ROUNDS:
                number, passed = passed, passed + 1
                average = yield from with_survivors(client, one_round(client, name, number))
                if average is not None:
                    outcomes.append(Averaged(number, client.names, client.survivors, average))
                    held = passed
                if client.comers:
                    raise RegroupError("a party waits to come in")
        except DroppedOutError:
            hang_up()
        except (ChannelClosedError, RegroupError):
            continue
    try:
        yield Bye()
    except ChannelClosedError:
        return


class Run:
    """One session of parties that come back."""

    def __init__(
        self,
        blind: bool = False,
        names: list[str] = NAMES,
        survivors: SurvivorRules = SURVIVORS,
        max_colluders: float | None = None,
        sums_ahead: bool = False,
    ) -> None:
        self.names, self.survivors = names, survivors
        self.outcomes: dict[str, list[Averaged]] = {name: [] for name in names}
        self.session = Served(names, survivors, sums_ahead)
        self.ring = Ring.make(32, None, len(names))
        self.rules = Rules.make(
            self.ring,
            len(names),
            2,
            server_blind=blind,
            max_colluders=max_colluders,
            dropped=may_drop_out(len(names), survivors.min_survivors),
        )
        self.network = Network(
            self.session,
            {name: self._trains(name) for name in names},
            self.outcomes,
        )

    def _trains(self, name: str) -> Steps[None]:
        hang_up = lambda: self.network.hang_up(name)  # noqa: E731
        return trains(name, self.rules, self.outcomes[name], survivors=self.survivors, hang_up=hang_up)

    def until(self, rounds: int) -> None:
        """Delivers until all who are alive have had so many averages."""
        network = self.network
        for _ in range(10_000):
            if all(len(self.outcomes[name]) >= rounds for name in network.alive()):
                return
            for name in self.names:
                if network.up[name]:
                    network.deliver_up(name)
                if network.down[name]:
                    network.deliver_down(name)
        raise AssertionError("a run without an end")

    def until_all_say(self, kind: type[ToServer]) -> None:
        """Delivers until the next message of each party is of a kind."""
        network = self.network
        for _ in range(10_000):
            others = [n for n in network.alive() if network.up[n] and not isinstance(network.up[n][0], kind)]
            told = [name for name in network.alive() if network.down[name]]
            if not others and not told:
                return
            for name in others:
                network.deliver_up(name)
            for name in told:
                network.deliver_down(name)
        raise AssertionError("a run without an end")

    def check(self) -> None:
        """Looks whether all averages are those of their survivors, and each round has one average."""
        of_round: dict[int, tuple[str, ...]] = {}
        for name, outcomes in self.outcomes.items():
            for one in outcomes:
                assert of_round.setdefault(one.number, one.survivors) == one.survivors
                assert name in one.survivors and len(one.survivors) >= self.survivors.min_survivors
                expected = plain_average(one.members, one.survivors, one.number, self.ring)
                for got, right in zip(one.average, expected, strict=True):
                    np.testing.assert_array_equal(got, right)


@pytest.mark.parametrize("blind", [False, True])
def test_who_has_lost_its_connection_is_in_again_from_the_next_round(blind: bool) -> None:
    run = Run(blind)
    run.until(2)
    run.network.cut(NAMES[1])
    run.network.drain()
    assert set(run.network.ended.values()) == {None}
    run.check()
    of_others = {one.number: one.survivors for one in run.outcomes[NAMES[0]]}
    assert of_others[2] == tuple(NAMES) and of_others[ROUNDS] == tuple(NAMES)
    assert sum(len(survivors) == PARTIES - 1 for survivors in of_others.values()) == 1


@pytest.mark.parametrize("blind", [False, True])
def test_with_neighbours_who_is_lost_comes_back_into_another_graph(blind: bool) -> None:
    """Each shares pads with some of the others, also in the session without the lost ones."""
    names = names_of(40)
    run = Run(blind, names, SurvivorRules.make(40, 30, 2), max_colluders=0.1)
    assert run.rules.neighbours is not None and run.rules.neighbours < 38
    run.until(2)
    for lost in names[1:4]:
        run.network.cut(lost)
    run.network.drain()
    assert set(run.network.ended.values()) == {None}
    run.check()
    survivors = [one.survivors for one in run.outcomes[names[0]]]
    assert survivors[0] == survivors[-1] == tuple(names) and min(map(len, survivors)) == 37


def test_who_was_too_slow_is_told_so_and_is_in_again() -> None:
    run = Run()
    run.until(2)
    slow = NAMES[3]
    for _ in range(12):  # the others' uploads, not the slow one's
        for name in NAMES[:3]:
            if run.network.up[name]:
                run.network.deliver_up(name)
            if run.network.down[name]:
                run.network.deliver_down(name)
    run.network.time_out()
    run.until(ROUNDS - 1)
    run.network.drain()
    assert run.network.ended[slow] is None and run.outcomes[slow][-1].number == ROUNDS
    run.check()
    assert any(slow not in one.survivors for one in run.outcomes[NAMES[0]])


def test_who_comes_late_is_in_from_the_next_round() -> None:
    run = Run()
    late = NAMES[2]
    hello = run.network.up[late].popleft()
    for name in NAMES:
        if run.network.up[name]:
            run.network.deliver_up(name)
    run.network.time_out()
    run.network.up[late].append(hello)
    run.network.drain()
    run.check()
    assert set(run.network.ended.values()) == {None}
    assert [one.number for one in run.outcomes[late]] == list(range(2, ROUNDS + 1))


def test_a_server_that_is_started_again_goes_on_where_the_parties_are() -> None:
    run = Run()
    run.until(2)
    run.network.server = run.session = Served(NAMES, SURVIVORS)
    for name in NAMES:
        run.network.cut(name)
    run.network.drain()
    run.check()
    for name in NAMES:
        assert run.network.ended[name] is None
        assert run.outcomes[name][-1].survivors == tuple(NAMES)


class Never(Upload):
    """A message that nobody sends."""


def finish(run: Run) -> None:
    """Delivers all, to one after the other, after which everybody has come to the end."""
    run.until_all_say(Never)
    run.network.drain()
    run.check()
    assert run.network.ended == dict.fromkeys(NAMES)
    assert not run.network.unanswered


def test_who_waits_to_come_in_and_goes_again_does_not_disturb_those_who_agree_on_keys() -> None:
    run = Run()
    network, comer = run.network, NAMES[3]
    for name in NAMES[:3]:
        network.deliver_up(name)
    network.time_out()
    network.deliver_up(comer)
    for name in NAMES[:3]:
        network.deliver_down(name)
    network.deliver_up(NAMES[0])  # one has written its letters, the others' are on their way
    network.cut(comer)
    assert run.session.phase is Phase.WRITING
    finish(run)
    assert run.outcomes[NAMES[0]][0].members == tuple(NAMES[:3])
    assert run.outcomes[NAMES[0]][-1].survivors == tuple(NAMES)


def test_who_writes_letters_too_slowly_is_told_that_all_say_hello_again() -> None:
    run = Run()
    network, slow = run.network, NAMES[3]
    run.until_all_say(Letters)
    for name in NAMES[:3]:
        network.deliver_up(name)
    network.time_out()
    network.deliver_up(slow)
    finish(run)
    assert run.outcomes[slow][-1].survivors == tuple(NAMES)


def test_what_was_meant_for_a_lost_connection_does_not_come_over_the_next_one() -> None:
    """Here the sum of a call that a party has released in."""
    run = Run()
    network, lost = run.network, NAMES[3]
    run.until(1)
    run.until_all_say(Release)
    network.deliver_up(lost)
    network.cut(lost)
    finish(run)
    assert run.outcomes[lost][-1].number == ROUNDS


def test_when_who_gives_the_average_is_lost_another_one_gives_it() -> None:
    run = Run()
    run.until(2)
    run.network.cut(NAMES[3])
    run.until_all_say(Bye | Report)  # type: ignore[arg-type]
    run.network.cut(NAMES[0])
    finish(run)
    assert run.outcomes[NAMES[3]][-1].number == ROUNDS


@pytest.mark.parametrize("blind", [False, True])
@pytest.mark.parametrize("kind", [Upload, Codes, Release, Report])
@pytest.mark.parametrize("who", [NAMES[0], NAMES[3]], ids=["giver", "comer"])
@pytest.mark.parametrize("sums_ahead", [False, True], ids=["total", "ahead"])
def test_all_agree_on_keys_anew_whatever_they_were_about_to_say(
    who: str, kind: type[ToServer], blind: bool, sums_ahead: bool
) -> None:
    """In the midst of a call in which a party comes in again."""
    run = Run(blind, sums_ahead=sums_ahead)
    network = run.network
    run.until(2)
    network.cut(NAMES[3])
    run.until_all_say(Report)
    run.until_all_say(kind)
    others = [name for name in NAMES if name != who]
    for name in NAMES:
        network.deliver_up(name)
    assert not isinstance(network.down[who][0], Members)
    network.say_hello_again(who)
    network.deliver_up(who)
    assert all(isinstance(network.down[name][-1], Regroup) for name in others)
    finish(run)
    assert run.outcomes[who][-1].survivors == tuple(NAMES)


def test_too_few_end_the_run_for_those_who_wait_to_come_in_too() -> None:
    run = Run()
    run.until(2)
    run.network.stick(NAMES[0])
    run.network.stick(NAMES[1])
    run.network.drain()
    for name in NAMES[2:]:
        error = run.network.ended[name]
        assert isinstance(error, TooFewSurvivorsError) and f"gone: {NAMES[0]}, {NAMES[1]}" in str(error)


def test_who_has_no_identity_of_a_party_learns_nothing_whatever_it_has_stolen(tmp_path: Path) -> None:
    """Its certificate and its checkpoint, for example: nobody tells it anything before keys are confirmed."""
    for k, name in enumerate((*NAMES, "mallory")):
        make_party(tmp_path / name, name, Address("127.0.0.1", 9001 + k))
    pinned = {name: read_identity(tmp_path / name) for name in NAMES}
    files = {name: tmp_path / (name if name != NAMES[1] else "mallory") / "identity.pem" for name in NAMES}
    network = Network(
        Served(NAMES, SURVIVORS),
        {
            name: trains(name, Rules.make(RING, PARTIES, 2), [], Identities(pinned, files[name]))
            for name in NAMES
        },
        {name: [] for name in NAMES},
    )
    network.drain()
    for name in (NAMES[0], *NAMES[2:]):
        assert "are not signed by its identity" in str(network.ended[name])
    assert {type(message) for _, message in network.said} == {Hello, Letters}


def is_in_call(network: Network, name: str) -> bool:
    """Whether what a party is told next is about a call that goes on."""
    return bool(network.down[name]) and isinstance(network.down[name][0], IN_CALLS)


@pytest.mark.faults
@settings(max_examples=1000, deadline=None)
@given(st.data(), st.booleans(), st.booleans())
def test_in_1000_schedules_of_losses_and_returns_each_average_is_that_of_its_survivors(
    data: st.DataObject, blind: bool, sums_ahead: bool
) -> None:
    run = Run(blind, sums_ahead=sums_ahead)
    network = run.network
    for _ in range(data.draw(st.integers(0, 120))):
        what = data.draw(st.integers(0, 30))
        if what == 0 and network.alive():
            network.cut(data.draw(st.sampled_from(network.alive())))
        elif what == 1:
            network.time_out()
        elif what == 2:
            network.server = run.session = Served(NAMES, SURVIVORS, sums_ahead)
            for name in NAMES:
                network.cut(name)
        elif what == 3 and (asked := [n for n in network.alive() if is_in_call(network, n)]):
            network.say_hello_again(data.draw(st.sampled_from(asked)))
        else:
            network.deliver_one(lambda names: data.draw(st.sampled_from(names)), up=what % 2 == 1)
    network.drain()
    run.check()
    assert not network.unanswered
    for error in network.ended.values():
        too_late = type(error) is AggregationError and "all they want" in str(error)
        assert error is None or too_late or isinstance(error, TooFewSurvivorsError), error


@pytest.mark.parametrize("blind", [False, True])
def test_what_parties_tell_each_other_is_not_changed_on_its_way(blind: bool) -> None:
    one, other, *_ = clients_of(NAMES, SURVIVORS, blind=blind)
    sealed = one.keys.sealed(7, b"the average")
    assert other.keys.opened(7, NAMES[0], sealed) == b"the average"
    if not blind:
        assert as_told(sealed) == b"the average"
    changed = bytearray(sealed)
    changed[-1] ^= 1
    for call, sender, body in (
        (7, NAMES[0], bytes(changed)),
        (7, NAMES[2], sealed),
        (8, NAMES[0], sealed),
        (7, NAMES[0], b"the average"),
        (7, NAMES[0], b""),
    ):
        with pytest.raises(AggregationError, match="was changed on its way"):
            other.keys.opened(call, sender, body)


@pytest.mark.parametrize("comes", [False, True])
def test_a_fit_that_all_have_left_is_over_and_has_not_lost_too_many(comes: bool) -> None:
    """Who was away says hello when the others have come to their end, so that all gather once more."""
    names = ["a", "b", "c"]
    session = Session(names, SurvivorRules.make(3, 2, 2))
    for name in names[:2]:
        session.receive(name, Hello(0, 5, 5))
    for name in names[:2]:
        session.receive(name, Bye())
    if comes:
        session.receive("c", Hello())
    session.time_out()
    assert session.is_over and session.ended is not None and not session.ended.too_few
