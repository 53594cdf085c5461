"""What parties send and get over real sockets, every byte of it, and what their updates cost to prepare."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.internals import (
    AggregationWeights,
    Call,
    Channel,
    Client,
    Exchanges,
    Operation,
    Sending,
    Server,
    Support,
    Updates,
    agree_on_support,
    average_into,
    average_updates_into,
    drive,
    rounding_clients,
    rounding_key,
)
from experiments.dgl_utils import FedAvgCNN

ROUNDS = 8
"""So many averages after each agreement about masks."""

Scope = Literal["global", "local"]


class Counted(Channel):
    """A channel that counts what goes through it."""

    sent = received = 0

    def _send_all(self, parts: list[bytes | memoryview]) -> None:
        self.sent += sum(memoryview(part).nbytes for part in parts)
        super()._send_all(parts)

    def _read(self, array: np.ndarray) -> np.ndarray:
        self.received += array.nbytes
        return super()._read(array)


class Party:
    """A party whose numbers drift instead of being trained.

    Args:
        client: of the party.
        number: which party it is.
        density: of its mask in the rounds that are counted; a fifth of what lives is pruned before them.
        scope: whose the mask is.
    """

    def __init__(self, client: Client, number: int, density: float, scope: Scope) -> None:
        torch.manual_seed(0)
        self.arrays = [value.detach().numpy().copy() for value in FedAvgCNN().parameters()]
        self._client = client
        self._rng = np.random.default_rng(number)
        self._scope = scope
        self._density = density
        self._updates = Updates(self.arrays, range(len(self.arrays)))
        self.living = 0

    def start(self) -> Exchanges[None]:
        """Gives all the average of whole numbers, under masks of five quarters of the density."""
        self._prune(min(1.25 * self._density, 1.0))
        yield from self._agree(None)
        yield from average_into(self._client, self.arrays, self.arrays, None, self._support, self._updates)

    def rounds(self) -> Exchanges[None]:
        """Takes a step of pruning, and averages some times."""
        self._drift()
        self._prune(self._density)
        yield from self._agree(self._support)
        for number in range(ROUNDS):
            self._drift()
            if self._client.rules.upload_bits is None:
                yield from average_into(self._client, self.arrays, self.arrays, None, self._support)
                continue
            key = rounding_key(0, self._client.party, 0, number)
            yield from average_updates_into(
                self._client, self.arrays, self._updates, None, self._support, key
            )

    def exchanges(self) -> int:
        """How many messages :meth:`rounds` sends."""
        each = 1 + (self._client.rules.upload_bits is not None)
        return ROUNDS * each + (self._scope == "local")

    def _drift(self) -> None:
        for array, mask in zip(self.arrays, self._mask, strict=True):
            # Uniform, for it is quick, and nothing here depends on how updates are distributed.
            array += (self._rng.random(array.shape, np.float32) - 0.5) * (0.07 * array.std())
            if mask is not None:
                array *= mask

    def _prune(self, density: float) -> None:
        """Keeps the largest weights of each layer; with a mask for all, those of all parties' start."""
        self._mask: list[np.ndarray | None] = []
        for array in self.arrays:
            if array.ndim < 2:
                self._mask.append(None)
                continue
            kept = round(density * array.size)
            order = np.argsort(-np.abs(array), axis=None, kind="stable")
            mask = np.zeros(array.size, np.float32)
            mask[order[:kept] if self._scope == "local" else np.arange(kept)] = 1
            self._mask.append(mask.reshape(array.shape))
            array *= mask.reshape(array.shape)
        self.living = sum(
            array.size if mask is None else int(mask.sum())
            for array, mask in zip(self.arrays, self._mask, strict=True)
        )

    def _agree(self, within: Support | None) -> Exchanges[None]:
        if self._scope == "global":
            self._support = self._client.shared_support(self.arrays, self._mask)
            return
        self._support = yield from agree_on_support(self._client, self.arrays, self._mask, within)


def bytes_of(parties: int, bits: int | None, density: float, scope: Scope) -> dict[str, float]:
    """Bytes that go through a party's socket in a round, on average.

    Args:
        parties: how many there are.
        bits: of an update; None for whole numbers.
        density: of the net.
        scope: whose masks are. With masks of their own, one agreement belongs to :data:`ROUNDS` rounds.

    Returns:
        Bytes up and down, and the weights that live at the party, biases included.
    """
    clients = rounding_clients(parties, bits)
    made = [Party(client, k, density, scope) for k, client in enumerate(clients)]
    server = Server()
    address = server.listen()
    channels: list[Any] = [Counted.to(address) for _ in made]
    server.accept(parties)

    def one(own: Exchanges[None], channel: Any) -> None:
        try:
            drive([own], channel)
        except BaseException:
            channel.close()  # or the server would wait for more
            raise

    def run(exchanges: Sequence[Exchanges[None]], sums: int) -> None:
        with ThreadPoolExecutor(parties) as threads:
            driven = [threads.submit(one, *pair) for pair in zip(exchanges, channels, strict=True)]
            try:
                server.serve(sums, parties)
            finally:
                for done in driven:
                    done.result()

    run([party.start() for party in made], 1 + (scope == "local"))
    for channel in channels:
        channel.sent = channel.received = 0
    run([party.rounds() for party in made], made[0].exchanges())
    for channel in channels:
        channel.close()
    return {
        "up": channels[0].sent / ROUNDS,
        "down": channels[0].received / ROUNDS,
        "living": made[0].living,
    }


def client_seconds(parties: int, size: int, repeats: int) -> dict[str, Any]:
    """What a party takes to encode, pad and pack a dense upload, in turns with whole numbers.

    Args:
        parties: how many there are.
        size: float32 numbers.
        repeats: of each side; the first of each is not counted.
    """
    arrays = [np.random.default_rng(0).normal(scale=0.1, size=(1, size)).astype(np.float32)]
    sides = {bits: rounding_clients(parties, bits)[0] for bits in (None, 8, 4)}
    times: dict[int | None, list[float]] = {bits: [] for bits in sides}
    updates = {bits: Updates(arrays, [0]) for bits in sides}
    supports = {bits: client.shared_support(arrays, [None]) for bits, client in sides.items()}
    for repeat in range(repeats + 1):
        for bits, client in sides.items():
            started = time.perf_counter()
            sending = None
            if bits is not None:
                largest = updates[bits].largest(arrays, supports[bits], client.party)
                bounds = [client.rounding.bound(magnitude) for magnitude in largest]
                sending = Sending(updates[bits], bounds, rounding_key(0, client.party, 0, repeat))
            weights: AggregationWeights | None = None
            call = Call(client.next_call(), Operation.AVERAGE, weights, supports[bits], sending)
            client.upload(call, arrays)
            if repeat:
                times[bits].append(time.perf_counter() - started)
            updates[bits].take(supports[bits].layout, arrays)
    seconds = {str(bits): statistics.median(taken) for bits, taken in times.items()}
    ratios = {str(bits): statistics.median(np.divide(times[bits], times[None]).tolist()) for bits in (8, 4)}
    return {"parties": parties, "numbers": size, "seconds": seconds, "over_whole_numbers": ratios}
