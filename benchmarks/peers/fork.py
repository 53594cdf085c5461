"""This project's averages of the same numbers, its clients and server in one process; nothing is sent."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version

import numpy as np

from benchmarks.bytes_wire import bytes_of
from benchmarks.internals import (
    Client,
    Exchanges,
    Server,
    Survivors,
    Updates,
    average_into,
    average_updates_into,
    rounding_clients,
    rounding_key,
)
from benchmarks.peers.score import Clock, Score, largest_error, numbers


def measure(parties: int, rounds: int, density: float, bits: int | None) -> Score:
    """Averages some times.

    Args:
        parties: how many.
        rounds: how many averages.
        density: part of the weights that lives, by one mask for all; biases all live.
        bits: of an update; None for whole numbers.
    """
    logging.disable(logging.WARNING)
    clients, server, clock, score = rounding_clients(parties, bits), Server(), Clock(), Score()
    masks = [_mask(array, density) for array in numbers(0)]
    shared = _masked(numbers(0), masks)
    own = [[array.copy() for array in shared] for _ in clients]
    supports = [client.shared_support(shared, masks) for client in clients]
    updates = [Updates(arrays, range(len(arrays))) for arrays in own]
    for number in range(rounds + 1):
        if number:  # before there is an average, nothing has moved from one
            for party, arrays in enumerate(own):
                for array, update in zip(arrays, _masked(numbers(party), masks), strict=True):
                    array += update / 50  # as far as a round of training moves a weight of 0.05
        before = [[array.copy() for array in arrays] for arrays in own]
        steps: list[Exchanges[None]] = []
        for client, arrays, support, last in zip(clients, own, supports, updates, strict=True):
            if bits is None or not number:
                steps.append(average_into(client, arrays, arrays, None, support, last))
            else:
                key = rounding_key(0, client.party, 0, number)
                steps.append(average_updates_into(client, arrays, last, None, support, key))
        _run(clients, server, steps, clock)
        clock.end(score if number else Score())
    score.largest_error = largest_error(own[0], before)
    wire = bytes_of(parties, bits, density, "global")
    score.up, score.down = [round(wire["up"])] * rounds, [round(wire["down"])] * rounds
    score.one_lost = _one_lost(parties) if bits is None else "not measured"
    score.packages = {name: version(name) for name in ("secretflow-prune", "numpy")}
    return score


def _run(clients: Sequence[Client], server: Server, steps: Sequence[Exchanges[None]], clock: Clock) -> None:
    """Runs the parties' steps to their end, each message of all before the next one."""
    answer = None
    while True:
        messages = []
        for client, step in zip(clients, steps, strict=True):
            with clock.of(client.party), suppress(StopIteration):
                messages.append(next(step) if answer is None else step.send(answer))
        if not messages:
            return
        with clock.of("server"):
            answer = server.add(*messages)


def _one_lost(parties: int) -> str:
    """What comes of an average with ``min_survivors`` in which the last party uploads nothing."""
    own = [numbers(party) for party in range(parties)]
    survivors = Survivors(parties, own)
    opened = survivors.round(lost=1)
    error = largest_error(opened, own[:-1])
    return f"the others' average, to {error:.1e}" if error < 1e-3 else "a wrong average"


def _mask(array: np.ndarray, density: float) -> np.ndarray | None:
    if array.ndim == 1:
        return None
    rng = np.random.default_rng(0)
    return (rng.random(array.shape) < density).astype(np.float32)


def _masked(arrays: Sequence[np.ndarray], masks: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    return [array if mask is None else array * mask for array, mask in zip(arrays, masks, strict=True)]
