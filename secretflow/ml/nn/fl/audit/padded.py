"""View: one party's padded upload of ``SecurePruneAggregator``, read as well as one can without the keys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from secretflow import _validate
from secretflow.security.aggregation.secagg.call import Call, Operation
from secretflow.security.aggregation.secagg.client import Client
from secretflow.security.aggregation.secagg.keyring import agree_all
from secretflow.security.aggregation.secagg.message import Message, add_up
from secretflow.security.aggregation.secagg.opening import Opening
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rules import Rules


def padded_uploads(
    uploads: Sequence[Sequence[torch.Tensor]], masks: Sequence[Sequence[np.ndarray | None]]
) -> tuple[list[Message], Opening]:
    """Seals the parties' uploads as the aggregator's actors do, with keys drawn anew.

    Args:
        uploads: of each party, float arrays; at least two parties.
        masks: of each party, one entry for each array: 0 and 1 of its shape, or None if it is not prunable.

    Returns:
        What each party sends, and what is public about how to read their sum.

    Raises:
        ValueError: there are fewer than two parties, or not one mask for each.
    """
    _validate.check(len(uploads) >= 2, "uploads", len(uploads), "of at least two parties")
    _validate.check(
        len(masks) == len(uploads), "masks", len(masks), f"one for each of {len(uploads)} uploads"
    )
    names = [f"party{number}" for number in range(len(uploads))]
    rules = Rules.make(Ring.make(32, None, len(names)), len(names))
    clients = [Client(name, names, rules) for name in names]
    arrays = [[array.numpy(force=True) for array in upload] for upload in uploads]
    agree_all([client.keys for client in clients])
    proposals = [
        client.propose(1, data, mask) for client, data, mask in zip(clients, arrays, masks, strict=True)
    ]
    counts = add_up(proposals)
    messages = [
        client.upload(Call(2, Operation.AVERAGE, support=client.settle(counts)), data)
        for client, data in zip(clients, arrays, strict=True)
    ]
    return messages, clients[0].opening()


def decode_without_keys(message: Message, opening: Opening, parties: int) -> tuple[torch.Tensor, ...]:
    """A padded upload decoded as if it held no pad: the best that fits all that is public about it.

    Without the pads every ring element is uniform, so there is no better guess than the number that it would
    stand for; what did not travel is known to be zero.

    Args:
        message: one party's.
        opening: layout, ring and encoding, which the server has.
        parties: how many numbers are averaged; each enters the sum divided by that.

    Returns:
        Arrays of the shapes of the upload.
    """
    # The last number is zero in a sum alone, and none of the upload's.
    arrays = opening.open({**message, "body": [*message["body"][:-1], np.zeros(1, "<u8")]})
    return tuple(torch.from_numpy(np.ascontiguousarray(array)) * parties for array in arrays)
