"""NVFlare's averages under homomorphic encryption (CKKS), with its own filters and aggregation.

The parts are called as its clients and server call them, in one process; what would travel is serialised,
and not sent. The keys are those that its provisioning makes: all clients have the same secret key. Of the
layers' weights all are encrypted.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np  # noqa: E402
import tenseal  # noqa: E402
from nvflare.apis.fl_context import FLContext  # noqa: E402
from nvflare.app_common.aggregators.weighted_aggregation_helper import WeightedAggregationHelper  # noqa: E402
from nvflare.app_opt.he.model_decryptor import HEModelDecryptor  # noqa: E402
from nvflare.app_opt.he.model_encryptor import HEModelEncryptor  # noqa: E402
from nvflare.lighter.impl.he import HEBuilder  # noqa: E402

from benchmarks.peers.score import Clock, Score, largest_error, numbers, run_job  # noqa: E402


def measure(parties: int, rounds: int) -> Score:
    """Averages some times, and once without the last party."""
    logging.disable(logging.WARNING)
    client, server = _contexts()
    own = [numbers(party) for party in range(parties)]
    score = Score()
    for _ in range(rounds):
        average = _average(own, client, server, score)
    score.largest_error = largest_error(average, own)
    error = largest_error(_average(own[:-1], client, server, Score()), own[:-1])
    score.one_lost = f"the others' average, to {error:.1e}" if error < 1e-3 else "a wrong average"
    return score


def _contexts() -> tuple[Any, Any]:
    """The clients' keys and those of the server, as :class:`HEBuilder` makes them."""
    builder = HEBuilder()
    keys = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS,
        poly_modulus_degree=builder.poly_modulus_degree,
        coeff_mod_bit_sizes=builder.coeff_mod_bit_sizes,
        encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC,
    )
    keys.global_scale = 2**builder.scale_bits
    server = keys.serialize(
        save_public_key=False, save_secret_key=False, save_galois_keys=False, save_relin_keys=True
    )
    return keys, tenseal.context_from(server)


def _average(own: list[list[np.ndarray]], client: Any, server: Any, score: Score) -> list[Any]:
    clock, context = Clock(), FLContext()
    uploads = []
    for party, arrays in enumerate(own):
        with clock.of(party):
            encryptor = HEModelEncryptor(weigh_by_local_iter=False)
            encryptor.tenseal_context, encryptor.encrypt_layers = client, [True]
            layers, _ = encryptor.encryption({str(k): array for k, array in enumerate(arrays)}, context)
            uploads.append({name: vector.serialize() for name, vector in layers.items()})
    with clock.of("server"):
        helper = WeightedAggregationHelper(weigh_by_local_iter=False)
        for party, upload in enumerate(uploads):
            vectors = {name: tenseal.ckks_vector_from(server, data) for name, data in upload.items()}
            helper.add(vectors, 1.0, f"party{party}", 0)
        average = {name: vector.serialize() for name, vector in helper.get_result().items()}
    for party in range(len(own)):
        with clock.of(party):
            decryptor = HEModelDecryptor()
            decryptor.tenseal_context = client
            opened = decryptor.decryption(dict(average), dict.fromkeys(average, True), context)
    clock.end(score)
    score.up.append(sum(map(len, uploads[0].values())))
    score.down.append(sum(map(len, average.values())))
    return [np.array(opened[name]) for name in average]


if __name__ == "__main__":
    run_job(measure, ["nvflare", "tenseal", "numpy"])
