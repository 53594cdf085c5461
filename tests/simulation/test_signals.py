"""A fit ends in time whatever signals the processes of its parties and of its server are sent, and when."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
from ray.exceptions import RayActorError

import secretflow as sf
from secretflow.device import PYU
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.fl import surviving_fit, surviving_session
from secretflow.ml.nn.fl.worker.capture import GradientCapture
from secretflow.security.aggregation.secagg.errors import AggregationError, TooFewSurvivorsError

from .surviving import BATCH, EPOCHS, NAMES, ROUNDS, make_data, make_model

SERVER = "davy"
DEADLINE = 4.0
MOST_SECONDS = 300.0  # of a fit that is not held up takes a few


@pytest.fixture
def parties(ray_devices: SimpleNamespace) -> list[PYU]:
    return [ray_devices.alice, ray_devices.bob, ray_devices.carol]


def process_of(actor: Any) -> int:
    pid: int = ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))
    return pid


def send(pid: int, what: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, what)


@contextmanager
def ended_in_time(pids: list[int]) -> Iterator[None]:
    """Kills processes when too much time has passed, so that what waits for them ends, and then fails."""
    late = threading.Event()

    def end() -> None:
        late.set()
        for pid in pids:
            send(pid, signal.SIGKILL)

    timer = threading.Timer(MOST_SECONDS, end)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        for pid in pids:
            send(pid, signal.SIGKILL)
        assert not late.is_set(), f"no end after {MOST_SECONDS:g} seconds"


class StopsAt:
    """A party's worker whose process is stopped when a method is called.

    Args:
        worker: of the party.
        method: name of the method.
        pid: of the process.
    """

    def __init__(self, worker: Any, method: str, pid: int) -> None:
        self._worker = worker
        self._method = method
        self._pid = pid

    def __getattr__(self, name: str) -> Any:
        if name == self._method:
            send(self._pid, signal.SIGSTOP)
        return getattr(self._worker, name)


def stopped_at(method: str, model: FLModel, party: PYU) -> list[int]:
    """Has the process of a party stop when a method of its worker is called; returns the process."""
    pid = process_of(model._workers[party].data)
    model._workers[party] = StopsAt(model._workers[party], method, pid)
    return [pid]


def fit(model: FLModel, parties: list[PYU], epochs: int = EPOCHS) -> Any:
    return model.fit(**make_data(parties), batch_size=BATCH, epochs=epochs, verbose=0, random_seed=5)


def flat(history: Any) -> list[list[str]]:
    return [names for epoch in history.participants for names in epoch]


@pytest.mark.slow
def test_a_party_that_stands_still_when_it_is_given_its_data_drops_out(
    ray_devices: SimpleNamespace, parties: list[PYU], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surviving_fit, "_SECONDS_OF_A_START", 1.0)
    model = make_model(ray_devices, tmp_path, round_deadline=DEADLINE)
    with ended_in_time(stopped_at("build_dataset", model, ray_devices.bob)):
        history = fit(model, parties, epochs=1)
        assert flat(history) == [["alice", "carol"]] * ROUNDS


@pytest.mark.parametrize("method", ["epochs_trained", "check_capture"])
def test_a_party_that_stands_still_before_a_fit_is_named(
    ray_devices: SimpleNamespace,
    parties: list[PYU],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    monkeypatch.setattr(surviving_fit, "_SECONDS_OF_A_START", 0.0)
    capture = GradientCapture(tmp_path / "captured", "carol")
    model = make_model(ray_devices, tmp_path, round_deadline=DEADLINE, gradient_capture=capture)
    with (
        ended_in_time(stopped_at(method, model, ray_devices.bob)),
        pytest.raises(ValueError, match="all parties must be there when fit begins, gone: bob"),
    ):
        fit(model, parties)


@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGSTOP])
def test_a_server_that_fails_when_all_are_trained_does_not_end_a_fit_with_an_error(
    ray_devices: SimpleNamespace,
    parties: list[PYU],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: signal.Signals,
) -> None:
    serve, pids = surviving_session.SurvivingSession._serve, list[int]()

    def failed(self: Any, waits: bool) -> None:
        pids.append(process_of(self._host.data))
        send(pids[0], what)
        serve(self, waits)

    monkeypatch.setattr(surviving_session.SurvivingSession, "_serve", failed)
    model = make_model(ray_devices, tmp_path, round_deadline=DEADLINE)
    with ended_in_time(pids):
        history = fit(model, parties, epochs=1)
    assert pids and flat(history) == [list(NAMES)] * ROUNDS


@dataclass(frozen=True)
class Fault:
    """What a process is sent.

    Attributes:
        seconds: from the beginning of the fit.
        who: whose process.
        what: the signal.
    """

    seconds: float
    who: str
    what: signal.Signals


def schedule(seed: int) -> list[Fault]:
    """One to three processes that are killed, or stopped for a while or for ever, while a fit lasts."""
    draw, faults = random.Random(seed), list[Fault]()
    for who in draw.sample([*NAMES, SERVER], draw.choice([1, 1, 2, 3])):
        at = draw.uniform(0, 3.0)
        if draw.random() < 0.4:
            faults.append(Fault(at, who, signal.SIGKILL))
            continue
        faults.append(Fault(at, who, signal.SIGSTOP))
        if draw.random() < 0.7:
            faults.append(Fault(at + draw.uniform(0, 2 * DEADLINE), who, signal.SIGCONT))
    return sorted(faults, key=lambda fault: fault.seconds)


def sending(faults: list[Fault], pids: dict[str, int], over: threading.Event) -> threading.Thread:
    """Sends signals at their times, until the fit is over."""

    def run() -> None:
        began = time.monotonic()
        for fault in faults:
            if over.wait(max(0.0, began + fault.seconds - time.monotonic())):
                return
            send(pids[fault.who], fault.what)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_signals_at_random_moments_end_a_fit_with_the_survivors_result_or_the_names_of_who_is_gone(
    ray_devices: SimpleNamespace,
    parties: list[PYU],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    train, faults = surviving_session.SurvivingSession._train, schedule(seed)
    model = make_model(ray_devices, tmp_path, round_deadline=DEADLINE, mask_scope="global")
    pids = {device.party: process_of(worker.data) for device, worker in model._workers.items()}
    over, sent = threading.Event(), list[threading.Thread]()

    def begun(self: Any, *arguments: Any) -> None:
        pids[SERVER] = process_of(self._host.data)
        sent.append(sending(faults, pids, over))
        train(self, *arguments)

    monkeypatch.setattr(surviving_session.SurvivingSession, "_train", begun)
    touched = {fault.who for fault in faults}
    print(faults)
    all_pids = list(pids.values())
    with ended_in_time(all_pids):
        began = time.monotonic()
        try:
            history = fit(model, parties)
        except TooFewSurvivorsError as error:
            print(f"{time.monotonic() - began:.1f} s: {error}")
            gone = str(error).partition("gone: ")[2].partition(".")[0].split(", ")
            assert touched & set(NAMES) and set(gone) <= touched | ({*NAMES} if SERVER in touched else set())
        except AggregationError as error:
            print(f"{time.monotonic() - began:.1f} s: {error}")
            assert SERVER in touched and SERVER in str(error)
        else:
            over.set()
            print(f"{time.monotonic() - began:.1f} s: {[len(names) for names in flat(history)]}")
            check_result(model, history, touched)
        finally:
            over.set()
            for thread in sent:
                thread.join()
            all_pids.append(pids.get(SERVER, all_pids[0]))


def check_result(model: FLModel, history: Any, touched: set[str]) -> None:
    """All rounds were those of enough parties, and who is there has the one model of all."""
    taken = flat(history)
    assert len(taken) == EPOCHS * ROUNDS and all(len(names) >= 2 for names in taken)
    if SERVER not in touched:
        assert all(set(NAMES) - touched <= set(names) for names in taken)
    there = [worker for device, worker in model._workers.items() if device.party in taken[-1]]
    weights = []
    for worker in there:
        with suppress(RayActorError):  # killed when the fit was over
            weights.append(sf.reveal(worker.get_weights()))
    for other in weights[1:]:
        for one, own in zip(weights[0], other, strict=True):
            np.testing.assert_array_equal(one, own)
    assert all(np.isfinite(array).all() for array in weights[0])
