"""A server that lies about where the others are in a fit is refused before anything is trained on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from secretflow.ml.nn.fl.worker.catching_up import with_new_order
from secretflow.ml.nn.fl.worker.training import PartyFit
from secretflow.security.aggregation.secagg.call import Operation
from secretflow.security.aggregation.secagg.dropouts.joining import Session
from secretflow.security.aggregation.secagg.dropouts.rules import SurvivorRules
from secretflow.security.aggregation.secagg.dropouts.server import Outgoing
from secretflow.security.aggregation.secagg.dropouts.survival import Streams, Survival
from secretflow.security.aggregation.secagg.dropouts.wire import Members, ToParty, ToServer, Total, Upload
from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rules import Rules
from secretflow.security.aggregation.secagg.transport.network.hub import Hub

from .test_survivors import STEPS, Federation

PATIENCE = 120.0
SURVIVORS = SurvivorRules.make(4, 3, 2)
Lie = Callable[[str, ToParty, int], ToParty]


class LyingSession:
    """Has all agree on keys anew after the second round's average, and lies to them.

    Args:
        names: of the parties.
        lie: makes of a message for a party, and of how many averages there were, what it is told.
    """

    def __init__(self, names: list[str], lie: Lie) -> None:
        self._honest = Session(names, SURVIVORS)
        self._lie = lie
        self._averages: set[int] = set()
        self._has_met = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._honest, name)

    def receive(self, party: str, message: ToServer) -> Outgoing:
        if isinstance(message, Upload) and message.message["encoding"].startswith(Operation.AVERAGE.value):
            self._averages.add(message.call)
            if len(self._averages) == 3 and not self._has_met:  # that of the start, and two rounds
                self._has_met = True
                assert self._honest._calls is not None
                self._honest._calls.comers = True
        return self._told(self._honest.receive(party, message))

    def lose(self, party: str) -> Outgoing:
        return self._told(self._honest.lose(party))

    def time_out(self) -> Outgoing:
        return self._told(self._honest.time_out())

    def _told(self, outgoing: Outgoing) -> Outgoing:
        return [(to, self._lie(to, message, len(self._averages))) for to, message in outgoing]


class Fits:
    """One fit of four parties in threads of this process, over gRPC."""

    def __init__(self, federation: Federation, lie: Lie, address: str) -> None:
        names, self.federation = federation.names, federation
        self.errors: dict[str, BaseException] = {}
        self.passed: dict[str, int] = {}
        session: Any = LyingSession(names, lie)
        self._hub = Hub(address, names, session, None, round_deadline=PATIENCE, wait=PATIENCE)
        rules = Rules.make(Ring.make(32, None, 4), 4, 2)
        survival = Survival("server", tuple(names), rules, SURVIVORS, PATIENCE, None)
        streams = Streams("", self._hub.address, self._hub.address, "server", None, PATIENCE)
        for worker in federation.workers.values():
            worker.begin_surviving_fit(survival, streams, federation.fit, 0)
        self._threads = [threading.Thread(target=self._hub.serve, daemon=True)]
        self._threads += [threading.Thread(target=self._run, args=(name,), daemon=True) for name in names]

    def run(self) -> None:
        for thread in self._threads:
            thread.start()
        for thread in self._threads[1:]:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def close(self) -> None:
        self._hub.stop()
        self._threads[0].join(PATIENCE)

    def _run(self, name: str) -> None:
        worker = self.federation.workers[name]
        try:
            self.passed[name] = worker.go_on(STEPS + 1).passed
        except BaseException as error:
            self.errors[name] = error
        finally:
            worker.leave_fit()


@pytest.fixture
def fits(devices: SimpleNamespace, tmp_path: Path) -> Iterator[Callable[[Lie], Fits]]:
    made: list[Fits] = []

    def make(lie: Lie) -> Fits:
        federation = made[-1].federation if made else Federation(devices, "local")
        made.append(Fits(federation, lie, f"unix:{tmp_path / str(len(made))}"))
        made[-1].run()
        return made[-1]

    yield make
    for one in made:
        one.close()


def honest(to: str, message: ToParty, averages: int) -> ToParty:
    return message


def test_an_honest_server_may_have_all_agree_on_keys_anew(fits: Callable[[Lie], Fits]) -> None:
    found = fits(honest)
    assert not found.errors
    assert set(found.passed.values()) == {STEPS + 1}


def test_what_was_released_in_a_fit_is_remembered_in_the_next_one(fits: Callable[[Lie], Fits]) -> None:
    workers = fits(honest).federation.workers
    released = {name: dict(worker._client._spent._with) for name, worker in workers.items()}
    found = fits(honest)
    assert not found.errors
    for name, worker in workers.items():
        assert len(released[name]) > STEPS and released[name].items() < worker._client._spent._with.items()


@pytest.mark.parametrize(
    ("trained", "again", "same"), [(0, False, True), (0, True, False), (2, False, False)]
)
def test_rows_come_in_another_order_where_parties_were(trained: int, again: bool, same: bool) -> None:
    fit = PartyFit(steps=STEPS, random_seed=3, epochs_trained=trained)
    assert (with_new_order(fit, "c0ffee", again) == fit) is same


def test_who_was_sent_another_sum_is_found_out_when_all_agree_on_keys_anew(
    fits: Callable[[Lie], Fits],
) -> None:
    def lie(to: str, message: ToParty, averages: int) -> ToParty:
        if isinstance(message, Total) and averages == 3 and to == "bob" and message.comers:
            body = [part.copy() for part in message.message["body"]]
            body[0][: body[0].size // 2] += np.uint32(1 << 20)
            return replace(message, message={**message.message, "body": body})
        return message

    found = fits(lie)
    assert set(found.errors) == {"alice", "bob", "carol", "davy"}
    assert any("on the sums so far" in str(error) for error in found.errors.values())


def test_nobody_goes_back_to_rows_that_it_has_trained_on(fits: Callable[[Lie], Fits]) -> None:
    def lie(to: str, message: ToParty, averages: int) -> ToParty:
        return replace(message, passed=0, behind=()) if isinstance(message, Members) else message

    found = fits(lie)
    assert len(found.errors) == 4
    for error in found.errors.values():
        assert isinstance(error, AggregationError)
    assert any("the others must be where" in str(error) for error in found.errors.values())


def test_who_has_the_last_average_does_not_take_another_one(fits: Callable[[Lie], Fits]) -> None:
    def lie(to: str, message: ToParty, averages: int) -> ToParty:
        again = isinstance(message, Members) and message.passed
        return replace(message, behind=("bob",)) if again else message  # type: ignore[type-var]

    assert "must have an average that bob has missed" in str(fits(lie).errors["bob"])
