"""Fed-BioMed's averages under pairwise masks (its class for "Low-Overhead Masking").

The parts are called as its nodes and researcher call them, in one process; what would travel is serialised
with its own serializer, and not sent. The researcher is the server. The keys of pairs are agreed on before;
here they are random. The average travels back as plain numbers.
"""

from __future__ import annotations

import logging
import secrets
import sys
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np  # noqa: E402
from fedbiomed.common.secagg import SecaggLomCrypter  # noqa: E402
from fedbiomed.common.serializer import Serializer  # noqa: E402

from benchmarks.peers.score import Clock, Score, largest_error, numbers, run_job  # noqa: E402

NONCE = "a nonce of 16 B."


def measure(parties: int, rounds: int) -> Score:
    """Averages some times, and once without the last party."""
    logging.disable(logging.WARNING)
    names = [f"party{k}" for k in range(parties)]
    pairs = {frozenset((a, b)): secrets.token_bytes(32) for a in names for b in names if a < b}
    own = [numbers(party) for party in range(parties)]
    score = Score()
    for number in range(rounds):
        average = _average(own, names, pairs, number, score)
    score.largest_error = largest_error(average, own)
    lost = _average(own, names, pairs, rounds, Score(), lost=1)
    error = largest_error(lost, own[:-1])
    score.one_lost = (
        f"the others' average, to {error:.1e}" if error < 1e-2 else "noise: masks stay in the sum"
    )
    return score


def _average(
    own: list[list[np.ndarray]],
    names: list[str],
    pairs: dict[frozenset[str], bytes],
    number: int,
    score: Score,
    lost: int = 0,
) -> list[Any]:
    clock, uploads = Clock(), []
    for name, arrays in zip(names, own, strict=True):
        with clock.of(name):
            secret = {other: pairs[frozenset((name, other))] for other in names if other != name}
            flat = np.concatenate([array.ravel() for array in arrays]).astype(float).tolist()
            sealed = SecaggLomCrypter(nonce=NONCE).encrypt(
                current_round=number,
                node_id=name,
                params=flat,
                pairwise_secrets=secret,
                node_ids=names,
                weight=1,
            )
            uploads.append(Serializer.dumps(sealed))
    uploads = uploads[: len(uploads) - lost]
    with clock.of("server"):
        average = SecaggLomCrypter(nonce=NONCE).aggregate(
            params=[Serializer.loads(upload) for upload in uploads], total_sample_size=len(uploads)
        )
        down = Serializer.dumps(np.array(average, np.float32))
    with clock.of(names[0]):
        opened = Serializer.loads(down)
    clock.end(score)
    score.up.append(len(uploads[0]))
    score.down.append(len(down))
    ends = np.cumsum([array.size for array in own[0]])[:-1]
    return np.split(opened, ends)


if __name__ == "__main__":
    run_job(measure, ["fedbiomed", "numpy"])
