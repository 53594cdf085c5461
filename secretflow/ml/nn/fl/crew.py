"""The workers that a driver moves in a fit that goes on with those who are there."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

import secretflow.distributed as sfd
from secretflow.device import PYU, PYUObject, global_state
from secretflow.distributed.primitive import DISTRIBUTION_MODE
from secretflow.ml.nn.fl.epoch_reports import SurvivorReport
from secretflow.ml.nn.fl.worker.progress import Progress, Taken
from secretflow.ml.nn.fl.worker.totals import Told
from secretflow.security.aggregation.secagg.errors import AggregationError

SECONDS_OF_A_LOOK = 1.0

_LAST_WORDS = 5.0  # seconds for those who have an error of their own, when one has been met


def over_a_network() -> bool:
    """Whether this driver is one of several, each with the workers of its own party."""
    return sfd.get_distribution_mode() is DISTRIBUTION_MODE.RAY_PRODUCTION


def is_here(device: PYU) -> bool:
    """Whether this driver moves what is at a party: in a simulation that is everything."""
    return not over_a_network() or device.party == global_state.self_party()


def reference_of(value: PYUObject) -> ray.ObjectRef:
    """Ray's reference to a value at a party that is here."""
    return value.data.get_ray_object_ref() if over_a_network() else value.data


def answers_within(seconds: float, told: Mapping[PYU, Any]) -> dict[PYU, Any]:
    """What parties tell that are here, without those who have died or stand still.

    Args:
        seconds: how long all of them are waited for.
        told: by party what a method of its worker has returned.

    Raises:
        Exception: what a worker has failed with.
    """
    found = {device: value for device, value in told.items() if not isinstance(value, PYUObject)}
    calls = {reference_of(value): device for device, value in told.items() if device not in found}
    if calls:
        for call in ray.wait(list(calls), num_returns=len(calls), timeout=seconds)[0]:
            with suppress(RayActorError):
                found[calls[call]] = ray.get(call)
    return {device: found[device] for device in told if device in found}


def value_within(seconds: float | None, call: ray.ObjectRef | list[ray.ObjectRef], party: str) -> Any:
    """What a process of a party answers.

    Args:
        seconds: how long it is waited for; None for as long as it takes.
        call: what it was asked, or all of several.
        party: name of the party.

    Raises:
        AggregationError: it has not answered in time, so it stands still.
    """
    try:
        return ray.get(call, timeout=seconds)
    except GetTimeoutError:
        raise AggregationError(f"{party} must answer within {seconds:g} seconds, got nothing") from None


class OwnWorker:
    """A worker whose methods return values: no other driver is told of them, or waited for.

    Args:
        proxy: of a party that is here.
        party: its name.

    Attributes:
        patience: seconds that a method may take; None for as long as it takes.
    """

    def __init__(self, proxy: Any, party: str) -> None:
        self.proxy = proxy
        self.patience: float | None = None
        self._name = party

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.proxy, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            told = method(*args, **kwargs)
            several = isinstance(told, list)
            calls = [reference_of(value) for value in (told if several else [told])]
            values = value_within(self.patience, calls, self._name)
            return values if several else values[0]

        return call


class Crew:
    """Has workers go on together, as far as they are there.

    Args:
        workers: by party; who is lost is taken out of it, and put back when it has come back.
        deadline: seconds for which those who are behind are waited for.
        patience: seconds in which one must have come further.
        look: called about every second while all are at work; what it raises ends the wait for them.

    Attributes:
        passed: how many entries of the plan are behind the one that is furthest.
        planned: how many there are.
        trained: epochs before the fit.
        taken: by epoch and number the rounds that were passed, until they are taken out.
        reports: by number of the epoch in the fit what each party that is here has measured in it, by name.
        totals: by number of the epoch what was added up of it, see :class:`~.worker.progress.Progress`.
    """

    def __init__(
        self,
        workers: dict[PYU, Any],
        deadline: float,
        patience: float,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self.passed = -1
        self.planned = self.trained = 0
        self.taken: dict[tuple[int, int], Taken] = {}
        self.reports: dict[int, dict[str, SurvivorReport]] = {}
        self.totals: dict[int, Told | None] = {}
        self._workers = workers
        self._all = dict(workers)
        self._deadline = deadline
        self._patience = patience
        self._look = look
        self._reached = dict.fromkeys(workers, -1)
        self._there: tuple[str, ...] = ()
        self._calls: dict[ray.ObjectRef, PYU] = {}

    def go_on(self, until: int) -> None:
        """Has all who are there go on.

        Args:
            until: how many entries of the plan shall be behind them.

        Raises:
            Exception: a worker's own error.
            AggregationError: none has come further in time, or the look has raised it.
        """
        end = time.monotonic() + self._patience
        while True:
            self._call(until)
            late = [device for device in self._calls.values() if device.party in self._there]
            furthest = max((self._reached[device] for device in self._all), default=-1)
            if furthest >= until and (not late or time.monotonic() >= end):
                break
            seconds = min(SECONDS_OF_A_LOOK, max(0.0, end - time.monotonic()))
            ready, _ = ray.wait(list(self._calls), timeout=seconds)
            for call in ready:
                self._hear(call)
            if ready:
                reached = max((self._reached[device] for device in self._all), default=-1) >= until
                end = time.monotonic() + (self._deadline if reached else self._patience)
            elif time.monotonic() < end:
                self._look()
            elif furthest < until:
                raise AggregationError(
                    f"a party must come further within {self._patience:g} seconds, got none that has"
                )
        behind = set(self._calls.values())
        there = {device: worker for device, worker in self._all.items() if device not in behind}
        self._workers.clear()
        self._workers.update(there)

    def leave(self) -> None:
        """Has all who are there end the fit."""
        self._end([reference_of(_proxy(worker).leave_fit()) for worker in self._workers.values()])

    def _call(self, until: int) -> None:
        busy = set(self._calls.values())
        for device, worker in self._all.items():
            if device not in busy and self._reached[device] < until:
                self._calls[reference_of(_proxy(worker).go_on(until))] = device

    def _hear(self, call: ray.ObjectRef) -> None:
        device = self._calls.pop(call)
        try:
            progress: Progress = ray.get(call)
        except RayActorError:
            del self._all[device]
            self._workers.pop(device, None)
            if not self._all:
                raise
            return
        except Exception:
            self._give_up()
            raise
        self._reached[device] = progress.passed
        for taken in progress.taken:
            place = taken.round.epoch, taken.round.number
            if place not in self.taken or taken.parties:
                self.taken[place] = taken
        for number, own in progress.reports.items():
            self.reports.setdefault(number, {}).update(own)
        self.totals.update(progress.totals)
        if progress.passed >= self.passed:
            self.passed, self.planned, self._there = progress.passed, progress.planned, progress.there
            self.trained = progress.trained

    def _give_up(self) -> None:
        """Has the others come to the errors that follow from one; who does not is not there any more."""
        self._end([*self._calls])
        for call, device in self._calls.items():
            ready, _ = ray.wait([call], timeout=0)
            try:
                ray.get(ready)
            except RayActorError:
                ready = []
            except Exception as error:
                logging.debug("%s: %r", device, error)
            if not ready:
                self._workers.pop(device, None)
        self._calls = {}

    def _end(self, calls: list[ray.ObjectRef]) -> None:
        if calls:
            ray.wait(calls, num_returns=len(calls), timeout=min(_LAST_WORDS, self._deadline))


def _proxy(worker: Any) -> Any:
    return worker.proxy if isinstance(worker, OwnWorker) else worker


def own_workers(workers: Mapping[PYU, Any]) -> dict[PYU, Any]:
    """Workers as an ``FLModel`` uses them: those that are here, over a network as :class:`OwnWorker`."""
    if not over_a_network():
        return dict(workers)
    return {device: OwnWorker(worker, device.party) for device, worker in workers.items() if is_here(device)}


def be_patient(workers: Mapping[PYU, Any], seconds: float | None) -> None:
    """Says how long methods of the workers of a driver of several may take, see :class:`OwnWorker`."""
    for worker in workers.values():
        if isinstance(worker, OwnWorker):
            worker.patience = seconds
