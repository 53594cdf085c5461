"""What updates of a few bits cost and what they lose, beside whole numbers.

Bytes are counted at the sockets of real clients, headers, bounds and agreements about masks included.
Accuracy is that of real fits. What the file has is not measured again, but for the seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bytes_fits import BITS, NETS, SEEDS, fit
from benchmarks.bytes_wire import Scope, bytes_of, client_seconds
from benchmarks.environment import ROOT, describe, write_json
from experiments.data import load_images

PARTIES = (2, 4, 8, 16, 32)
DENSITY = 0.1
CNN_WEIGHTS = 1_663_370

_TARGETS = {8: (1.5, 0.3), 4: (1.0, 0.5)}
_CNN_TARGET = 1 / 50


def wire(known: dict[str, Any], save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Adds bytes of a living weight by parties and bits, and those of the sparse CNN beside dense float32.

    Args:
        known: what has been measured.
        save: called with each new part.
    """
    scopes: dict[str, Scope] = {"bytes_per_weight": "global", "bytes_per_weight_own_masks": "local"}
    for key, scope in scopes.items():
        for parties in PARTIES:
            if str(parties) in known.get(f"{key}_down", {}):
                continue
            rows = {str(bits): bytes_of(parties, bits, DENSITY, scope) for bits in BITS}
            for way, name in (("up", key), ("down", f"{key}_down")):
                found = {bits: row[way] / row["living"] for bits, row in rows.items()}
                known = {**known, name: {**known.get(name, {}), str(parties): found}}
            print(scope, parties, "parties", known[key][str(parties)], flush=True)
            save(known)
    sparse = bytes_of(16, 8, 0.05, "global")["up"] / (4 * CNN_WEIGHTS)
    return {**known, "cnn_0.05_over_dense_float32": sparse}


def lost(fits: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By net and bits the points of accuracy that a fit has less than with whole numbers, mean over seeds."""
    accuracy = {(row["net"], row["seed"], row["bits"]): row["accuracy"] for row in fits}
    return {
        net: {
            str(bits): statistics.mean(
                accuracy[net, seed, None] - accuracy[net, seed, bits] for seed in SEEDS
            )
            for bits in BITS
            if bits is not None
        }
        for net in NETS
        if all((net, seed, bits) in accuracy for seed in SEEDS for bits in BITS)
    }


def verdicts(result: dict[str, Any]) -> dict[str, bool]:
    """Which targets are met, of what has been measured."""
    said = {
        f"at 16 parties at most {most} bytes with {bits} bits": result["bytes_per_weight"]["16"][str(bits)]
        <= most
        for bits, (most, _) in _TARGETS.items()
    }
    for bits, (_, points) in _TARGETS.items() if result["points_lost"] else ():
        worst = max(row[str(bits)] for row in result["points_lost"].values())
        said[f"at most {points} points lost with {bits} bits"] = worst <= points
    said["the CNN at 0.05 at most 1/50"] = result["cnn_0.05_over_dense_float32"] <= _CNN_TARGET
    for row in result["client"]:
        slower = max(row["over_whole_numbers"].values())
        said[f"a client of {row['parties']} parties not slower"] = slower <= 1
    return said


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "bytes.json")
    parser.add_argument("--net", choices=NETS, action="append", help="measure fits of this net only")
    parser.add_argument("--seed", type=int, choices=SEEDS, action="append", help="and of this seed only")
    parser.add_argument(
        "--fits-only", action="store_true", help="keep the bytes and seconds that the file has"
    )
    parser.add_argument("--wire-only", action="store_true", help="measure bytes and seconds, and no fits")
    parser.add_argument("--numbers", type=int, default=10**7, help="of the client's upload (default 10^7)")
    options = parser.parse_args(arguments)
    known = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    if not options.fits_only:
        known = wire({**known, **describe()}, lambda known: write_json(options.out, known))
        known["client"] = [client_seconds(parties, options.numbers, 7) for parties in (3, 16)]
        write_json(options.out, known)
    fits = known.get("fits", [])
    images = load_images()
    for net in () if options.wire_only else options.net or NETS:
        for seed in options.seed or SEEDS:
            for bits in BITS:
                if not any((row["net"], row["seed"], row["bits"]) == (net, seed, bits) for row in fits):
                    fits.append(fit(net, seed, bits, images))
                    print(fits[-1], flush=True)
                    write_json(options.out, {**known, "fits": fits})
    result = {**known, "fits": fits, "points_lost": lost(fits)}
    if "client" in result:
        result["met"] = verdicts(result)
    write_json(options.out, result)
    print({name: result.get(name) for name in ("points_lost", "client", "met")})


if __name__ == "__main__":
    main()
