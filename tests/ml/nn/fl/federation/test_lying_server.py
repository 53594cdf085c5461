"""A server that lies about where the others are in a fit is refused before anything is trained on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from secretflow.ml.nn.fl.epoch_reports import sums_columns, survivors_columns
from secretflow.ml.nn.fl.worker.progress import Progress
from secretflow.party.messages import unpack
from secretflow.security.aggregation.secagg.call import Operation
from secretflow.security.aggregation.secagg.dropouts.joining import Session
from secretflow.security.aggregation.secagg.dropouts.keys import as_told
from secretflow.security.aggregation.secagg.dropouts.rules import SurvivorRules
from secretflow.security.aggregation.secagg.dropouts.server import Outgoing
from secretflow.security.aggregation.secagg.dropouts.survival import Streams, Survival
from secretflow.security.aggregation.secagg.dropouts.wire import (
    Ended,
    Members,
    PaddedHalf,
    ToParty,
    ToServer,
    Total,
    Upload,
)
from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.message import PACKED
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rules import Rules
from secretflow.security.aggregation.secagg.transport.network.hub import Hub

from .test_survivors import STEPS, Federation

PATIENCE = 120.0
NAMES = ["alice", "bob", "carol", "davy"]
SURVIVORS = SurvivorRules.make(4, 3, 2)
Lie = Callable[[str, ToParty, int], ToParty]


class LyingSession:
    """Has all agree on keys anew after the second round's average, and lies to them.

    Args:
        names: of the parties.
        lie: makes of a message for a party, and of how many averages there were, what it is told.
        sums_ahead: see :class:`Session`.
    """

    def __init__(self, names: list[str], lie: Lie, sums_ahead: bool) -> None:
        self._honest = Session(names, SURVIVORS, sums_ahead)
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

    def __init__(
        self, federation: Federation, lie: Lie, address: str, folder: Path | None = None, **options: bool
    ) -> None:
        names, self.federation = federation.names, federation
        self.errors: dict[str, BaseException] = {}
        self.came_to: dict[str, Progress] = {}
        self.told_to_server: list[Mapping[str, bytes]] = []
        session: Any = LyingSession(names, lie, options.get("sums_ahead", False))
        self._hub = Hub(
            address,
            names,
            session,
            None,
            round_deadline=PATIENCE,
            wait=PATIENCE,
            on_reports=self.told_to_server.append,
        )
        rules = Rules.make(
            Ring.make(32, None, 4),
            4,
            2,
            server_blind=options.get("server_blind", False),
            upload_bits=federation.upload_bits,
        )
        survival = Survival("server", tuple(names), rules, SURVIVORS, PATIENCE, None)
        streams = Streams("", self._hub.address, self._hub.address, "server", None, PATIENCE, folder)
        for worker in federation.workers.values():
            worker.begin_surviving_fit(survival, streams, federation.fit, 0, True)
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
            self.came_to[name] = worker.go_on(STEPS + 1)
        except BaseException as error:
            self.errors[name] = error
        finally:
            worker.leave_fit()


@pytest.fixture
def fits(devices: SimpleNamespace, tmp_path: Path) -> Iterator[Callable[..., Fits]]:
    made: list[Fits] = []

    def make(lie: Lie, **options: Any) -> Fits:
        bits = options.pop("upload_bits", None)
        federation = made[-1].federation if made else Federation(devices, "local", bits)
        made.append(Fits(federation, lie, f"unix:{tmp_path / str(len(made))}", **options))
        made[-1].run()
        return made[-1]

    yield make
    for one in made:
        one.close()


def honest(to: str, message: ToParty, averages: int) -> ToParty:
    return message


@pytest.mark.parametrize("upload_bits", [None, 8])
def test_an_honest_server_may_have_all_agree_on_keys_anew(
    fits: Callable[..., Fits], upload_bits: int | None
) -> None:
    found = fits(honest, upload_bits=upload_bits)
    assert not found.errors
    assert {progress.passed for progress in found.came_to.values()} == {STEPS + 1}


@pytest.mark.parametrize("server_blind", [False, True])
def test_a_partys_driver_and_the_server_are_told_no_other_partys_numbers_but_sums(
    fits: Callable[..., Fits], server_blind: bool
) -> None:
    found = fits(honest, server_blind=server_blind)
    assert not found.errors
    reports = [found.came_to[name].reports[0][name] for name in found.came_to]
    expected = survivors_columns(reports)
    assert {"loss", "density", "multiclassaccuracy", "payload_bytes"} <= set(expected)
    for name, progress in found.came_to.items():
        assert set(progress.reports[0]) == {name}
        totals = progress.totals[0]
        assert totals is not None
        assert sums_columns(totals[0]) == pytest.approx(expected, rel=1e-9)
    losses = [np.float64(report["loss"]).tobytes() for report in reports]
    at_server = [body for bodies in found.told_to_server for body in bodies.values()]
    assert not any(loss in body or loss[::-1] in body for loss in losses for body in at_server)
    sums = [] if server_blind else [unpack(as_told(body)) for body in at_server]
    told = [body["totals"] for body in sums if "totals" in body]
    assert all(set(body) in ({"totals"}, set(), {"rows_known", "given", "measured"}) for body in sums)
    assert len(told) == (0 if server_blind else len(NAMES))
    for totals in told:
        assert sums_columns(totals[0]) == pytest.approx(expected, rel=1e-9)


def test_who_is_started_again_is_told_of_whom_sums_were_opened(fits: Callable[..., Fits]) -> None:
    workers = fits(honest).federation.workers
    everybody = {tuple(sorted(workers))}
    assert all(worker._client.measured.opened == everybody for worker in workers.values())
    workers["alice"]._client = None  # as in a new process
    found = fits(lambda to, message, averages: message if averages < 1 else Ended(1, "stop", False))
    assert len(found.errors) == len(workers)
    assert workers["alice"]._client.measured.opened == everybody


def test_parties_in_new_processes_remember_of_whom_sums_were_opened(
    fits: Callable[..., Fits], tmp_path: Path
) -> None:
    workers = fits(honest, folder=tmp_path / "own").federation.workers
    everybody = {tuple(sorted(workers))}
    for worker in workers.values():
        worker._client = None  # as in a new process
    fits(
        lambda to, message, averages: message if averages < 1 else Ended(1, "stop", False),
        folder=tmp_path / "own",
    )
    assert all(worker._client.measured.opened == everybody for worker in workers.values())


def test_what_was_released_in_a_fit_is_remembered_in_the_next_one(fits: Callable[..., Fits]) -> None:
    workers = fits(honest).federation.workers
    released = {name: dict(worker._client._spent._with) for name, worker in workers.items()}
    found = fits(honest)
    assert not found.errors
    for name, worker in workers.items():
        assert len(released[name]) > STEPS and released[name].items() < worker._client._spent._with.items()


@pytest.mark.parametrize("sums_ahead", [False, True], ids=["total", "ahead"])
@pytest.mark.parametrize("upload_bits", [None, 8])
def test_who_was_sent_another_sum_is_found_out_when_all_agree_on_keys_anew(
    fits: Callable[..., Fits], upload_bits: int | None, sums_ahead: bool
) -> None:
    def lie(to: str, message: ToParty, averages: int) -> ToParty:
        is_last = isinstance(message, (PaddedHalf, Total)) and averages == 3 and to == "bob"
        if is_last and message.message["encoding"].startswith(Operation.AVERAGE.value):
            body = [part.copy() for part in message.message["body"]]
            part = body[0] if upload_bits is None else body[PACKED]
            part[: part.size // 2] += part.dtype.type(1 << 20)
            return replace(message, message={**message.message, "body": body})
        return message

    found = fits(lie, upload_bits=upload_bits, sums_ahead=sums_ahead)
    assert set(found.errors) == set(NAMES)
    assert any("on the sums so far" in str(error) for error in found.errors.values())


def test_nobody_goes_back_to_rows_that_it_has_trained_on(fits: Callable[..., Fits]) -> None:
    def lie(to: str, message: ToParty, averages: int) -> ToParty:
        return replace(message, passed=0, behind=()) if isinstance(message, Members) else message

    found = fits(lie)
    assert len(found.errors) == 4
    for error in found.errors.values():
        assert isinstance(error, AggregationError)
    assert any("the others must be where" in str(error) for error in found.errors.values())


def test_nobody_leaves_out_the_average_that_a_fit_begins_with(fits: Callable[..., Fits]) -> None:
    def lie(to: str, message: ToParty, averages: int) -> ToParty:
        return replace(message, passed=1) if isinstance(message, Members) else message

    found = fits(lie)
    assert set(found.errors) == set(NAMES)
    assert any("-1 entries into the plan, or up to -1, got 0" in str(e) for e in found.errors.values())


def test_who_has_the_last_average_does_not_take_another_one(fits: Callable[..., Fits]) -> None:
    def lie(to: str, message: ToParty, averages: int) -> ToParty:
        again = isinstance(message, Members) and message.passed
        return replace(message, behind=("bob",)) if again else message  # type: ignore[type-var]

    assert "must have an average that bob has missed" in str(fits(lie).errors["bob"])
