"""View: one party's padded upload of ``SecurePruneAggregator``, read as well as one can without the keys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from secretflow.security.aggregation.prune.opening import Opening
from secretflow.security.aggregation.prune.party import Sealer
from secretflow.security.aggregation.prune.payload import Payload, add_up
from secretflow.security.aggregation.prune.ring import Ring

_MIN_CONTRIBUTORS = 2


def padded_uploads(
    uploads: Sequence[Sequence[torch.Tensor]], masks: Sequence[Sequence[np.ndarray | None]]
) -> tuple[list[Payload], Opening]:
    """Seals the parties' uploads as the aggregator's actors do, with keys drawn anew.

    Args:
        uploads: of each party, float arrays; at least two parties.
        masks: of each party, one entry for each array: 0 and 1 of its shape, or None if it is not prunable.

    Returns:
        What each party sends, and what is public about how to read their sum.
    """
    names = [f"party{number}" for number in range(len(uploads))]
    ring = Ring.make(32, None, len(names))
    sealers = [Sealer(name, names, ring, _MIN_CONTRIBUTORS) for name in names]
    keys = [sealer.public_key() for sealer in sealers]
    arrays = [[array.numpy(force=True) for array in upload] for upload in uploads]
    for sealer in sealers:
        sealer.agree(*keys)
    proposals = [
        sealer.propose(1, data, mask) for sealer, data, mask in zip(sealers, arrays, masks, strict=True)
    ]
    counts = add_up(proposals)
    for sealer in sealers:
        sealer.settle(counts)
    payloads = [sealer.seal(2, True, True, data) for sealer, data in zip(sealers, arrays, strict=True)]
    return payloads, sealers[0].opening()


def decode_without_keys(payload: Payload, opening: Opening, parties: int) -> tuple[torch.Tensor, ...]:
    """A padded upload decoded as if it held no pad: the best that fits all that is public about it.

    Without the pads every ring element is uniform, so there is no better guess than the number that it would
    stand for; what did not travel is known to be zero.

    Args:
        payload: one party's.
        opening: frame, ring and encoding, which the server has.
        parties: how many numbers are averaged; each enters the sum divided by that.

    Returns:
        Arrays of the shapes of the upload.
    """
    arrays = opening.open(payload)
    return tuple(torch.from_numpy(np.ascontiguousarray(array)) * parties for array in arrays)
