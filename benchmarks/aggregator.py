"""SecurePruneAggregator beside upstream's SecureAggregator and PlainAggregator, in one process.

What one party does in a round (encode and pad), what the server does (add up and decode), and the bytes
a party uploads. No processes and no network: only the arithmetic. The sides alternate, the medians count.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import secretflow as sf
from benchmarks.environment import ROOT, describe, write_json
from benchmarks.internals import Call, Message, Operation, Pads, Ring, aggregators, encode_padded
from secretflow.utils import ndarray_encoding

SIZES = (10**4, 10**5, 10**6, 10**7)
PARTIES = (2, 4, 8, 16)
DENSITIES = (1.0, 0.5, 0.1)
# Sixteen parties' uploads of 10^7 numbers take the server several gigabytes with upstream's eight bytes.
LARGEST_SERVER_LOAD = 8 * 10**7

Row = dict[str, Any]


class Sides:
    """The aggregators over the same parties and the same data.

    Args:
        size: weights of the model, one float32 matrix.
        parties: number of parties.
        density: fraction of the weights that a party keeps.
        independent: each party keeps others, drawn at random; else all keep the same. Masks of parties that
            train together lie in between.
    """

    _call = 0  # numbers of calls only grow, whatever is measured next

    def __init__(self, size: int, parties: int, density: float, independent: bool = False) -> None:
        self.size, self.parties = size, parties
        rng = np.random.default_rng(size + parties)
        self._data = [rng.normal(scale=0.1, size=(1, size)).astype(np.float32)]
        masks = [
            [(rng.permutation(size) < round(size * density)).astype(np.uint8).reshape(1, size)]
            for _ in range(parties if independent else 1)
        ]
        self._maskers, self._clients, self._server = aggregators(parties)
        call = self._next_call()
        agreed = self._server.add(
            *(
                client.propose(call, self._data, masks[k % len(masks)])
                for k, client in enumerate(self._clients)
            )
        )
        self._supports = [client.settle(agreed) for client in self._clients]

    def upstream_client(self) -> Any:
        """One party's work in upstream's aggregator."""
        return self._maskers[0].mask(self._data, 1)

    def client(self) -> Any:
        """One party's work in ours; the other parties seal too, outside the clock."""
        return self._upload(0, self._next_call())

    def upstream_server(self, masked: list[Any]) -> Any:
        """The server's work in upstream's SecureAggregator: the arithmetic of its average."""
        total = np.sum([arrays[0] for arrays in masked], axis=0)
        return total.astype(np.int64) / (1 << 18) / len(masked)

    def plain_server(self) -> Any:
        """The server's work in upstream's PlainAggregator: the arithmetic of its average."""
        return np.average([self._data[0]] * self.parties, axis=0)

    def server(self, messages: list[Any]) -> Any:
        """The server's work in ours, the result opened there as upstream does."""
        total = self._server.add(*messages)
        return self._server.open(total, self._clients[0].opening(), 0)

    def seal_others(self) -> list[Any]:
        """The messages of all parties but the first, for the call the first has just sealed."""
        return [self._upload(k, Sides._call) for k in range(1, self.parties)]

    def _upload(self, k: int, call: int) -> Message:
        average = Call(call, Operation.AVERAGE, support=self._supports[k])
        return self._clients[k].upload(average, self._data)

    @staticmethod
    def _next_call() -> int:
        Sides._call += 1
        return Sides._call


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """How long a piece of work takes, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def measure(size: int, parties: int, density: float, independent: bool, repeats: int) -> Row:
    """Times one configuration; one round before the clock starts is not counted."""
    sides = Sides(size, parties, density, independent)
    with_server = size * parties <= LARGEST_SERVER_LOAD
    times: dict[str, list[float]] = {}
    uploaded: dict[str, int] = {}
    for repeat in range(repeats + 1):
        taken = {}
        taken["upstream_client"], masked = seconds(sides.upstream_client)
        taken["client"], message = seconds(sides.client)
        uploaded["upstream"] = sum(array.nbytes for array in masked[0])
        uploaded["ours"] = sum(part.nbytes for part in message["body"])
        if with_server:
            uploads = [masked[0]] * parties
            taken["upstream_server"], _ = seconds(lambda: sides.upstream_server(uploads))  # noqa: B023
            taken["plain_server"], _ = seconds(sides.plain_server)
            messages = [message, *sides.seal_others()]
            taken["server"], _ = seconds(lambda: sides.server(messages))  # noqa: B023
        # As in training: what was uploaded is gone before the next round.
        del masked, message
        if with_server:
            del uploads, messages
        if repeat:
            for name, value in taken.items():
                times.setdefault(name, []).append(value)
    row: Row = {
        "weights": size,
        "parties": parties,
        "density": density,
        "independent_masks": independent,
    }
    row.update({f"{name}_seconds": statistics.median(values) for name, values in times.items()})
    row.update({f"{name}_bytes": value for name, value in uploaded.items()}, plain_bytes=4 * size)
    row["client_ratio"] = row["upstream_client_seconds"] / row["client_seconds"]
    row["bytes_ratio"] = row["upstream_bytes"] / row["ours_bytes"]
    return row


def where_time_goes(size: int, repeats: int) -> dict[str, float]:
    """Seconds of the parts of one client's work with one peer, ours and upstream's, each by itself."""
    rng = np.random.default_rng(size)
    values = rng.normal(scale=0.1, size=size).astype(np.float32)
    out, some = np.empty(size, "<u4"), np.empty(size // 10, "<u4")
    tenth = np.flatnonzero(rng.permutation(size) < some.size)
    ring = Ring.make(32, None, 2)

    def pads() -> Pads:
        return Pads([(bytes(32), False)], 1)

    def draw(elements: int) -> None:
        drawn, piece = pads(), Pads.piece(out.dtype)
        for start in range(0, elements, piece):
            drawn.draw(min(piece, elements - start), out.dtype)

    parts: dict[str, Callable[[], Any]] = {
        "encode_and_pad": lambda: encode_padded(out, values, ring.one, ring.capacity, pads()),
        "of_that_pad": lambda: draw(size),
        "fresh_memory": lambda: np.empty(size, out.dtype).fill(0),
        "fill_memory": lambda: out.fill(0),
        "encode_and_pad_a_tenth": lambda: encode_padded(some, values, ring.one, ring.capacity, pads(), tenth),
        "of_that_pad_a_tenth": lambda: draw(some.size),
        "take_a_tenth": lambda: values.take(tenth),
        "upstream_encode": lambda: ndarray_encoding.encode(values, 18),
        "upstream_pad": lambda: rng.integers(-(2**63), 2**63 - 1, size=size),
    }
    return {name: statistics.median(seconds(work)[0] for _ in range(repeats)) for name, work in parts.items()}


def exponent(rows: list[Row], variable: Callable[[Row], float]) -> float:
    """The exponent of a power law fitted to the client's seconds: 1 is linear growth."""
    x = np.log([variable(row) for row in rows])
    y = np.log([row["client_seconds"] for row in rows])
    return float(np.polyfit(x, y, 1)[0])


def summary(rows: list[Row]) -> dict[str, Any]:
    """The figures that matter, from the largest model measured."""
    largest = max(row["weights"] for row in rows)
    label = f"1e{len(str(largest)) - 1}"

    def of(parties: int, density: float, independent: bool = False) -> Row:
        key = {"weights": largest, "parties": parties, "density": density}
        key["independent_masks"] = independent
        return next(row for row in rows if key.items() <= row.items())

    dense = [row for row in rows if row["density"] == 1.0]
    return {
        "client": {
            f"ratio_dense_{label}": of(2, 1.0)["client_ratio"],
            f"ratio_living_0.1_{label}": of(2, 0.1)["client_ratio"],
        },
        "bytes": {
            "ratio_living_0.1": of(2, 0.1)["bytes_ratio"],
            "ratio_living_0.1_8_parties_independent_masks": of(8, 0.1, True)["bytes_ratio"],
            "ratio_dense": of(2, 1.0)["bytes_ratio"],
        },
        "growth": {
            "client_exponent_of_weights": exponent(
                [row for row in dense if row["parties"] == 2 and row["weights"] >= 10**5],
                lambda row: row["weights"],
            ),
            "client_exponent_of_peers": exponent(
                [row for row in dense if row["weights"] == largest], lambda row: row["parties"] - 1
            ),
        },
    }


def show(rows: list[Row]) -> None:
    """Prints the table."""
    print(f"{'weights':>9} {'parties':>7} {'living':>6} | client ms: upstream, ours, ratio | bytes ratio")
    for row in rows:
        print(
            f"{row['weights']:>9} {row['parties']:>7} {row['density']:>6} | "
            f"{1e3 * row['upstream_client_seconds']:>10.2f} {1e3 * row['client_seconds']:>9.2f} "
            f"{row['client_ratio']:>7.1f} | {row['bytes_ratio']:>6.1f}"
        )


def main() -> None:
    """Measures every configuration and writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repeats", type=int, default=9, help="timed rounds of each configuration (default 9)"
    )
    parser.add_argument(
        "--largest", type=int, default=SIZES[-1], help="leave out larger models (default 10^7)"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks/results/aggregator.json", help="where the result goes"
    )
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error(f"argument --repeats: must be at least 1, got {arguments.repeats}")
    sizes = [size for size in SIZES if size <= arguments.largest]
    if not sizes:
        parser.error(f"argument --largest: must be at least {SIZES[0]}, got {arguments.largest}")

    sf.init(
        [*(f"party{k:02}" for k in range(max(PARTIES))), "server"], debug_mode=True, logging_level="error"
    )
    cases = [(size, parties, rate, False) for size in sizes for parties in PARTIES for rate in DENSITIES]
    cases.append((sizes[-1], 8, 0.1, True))
    rows = [
        measure(size, parties, rate, independent, arguments.repeats)
        for size, parties, rate, independent in tqdm(cases, unit="case")
    ]
    show(rows)
    result = {
        **summary(rows),
        "parts_seconds": where_time_goes(sizes[-1], arguments.repeats),
        "repeats": arguments.repeats,
        "rows": rows,
        "environment": describe(),
    }
    print({name: result[name] for name in ("client", "bytes", "growth", "parts_seconds")})
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
