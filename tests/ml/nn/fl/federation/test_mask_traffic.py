"""Masks are agreed on where they change and nowhere else, by what each round uploads."""

from __future__ import annotations

from collections.abc import Callable

from secretflow.data.ndarray import FedNdarray
from secretflow.ml.nn import FLModel

from ..conftest import CLASSES, FEATURES
from .conftest import BATCH

MASK_BYTES = 4 * 4
"""Of two parties the digit of a weight that may be left is to the base 3, twenty of them in 32 bits."""


def test_a_mask_for_all_takes_no_byte_to_agree_on(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray]
) -> None:
    model = make_model(mask_scope="global", prune_end_rate=0.3, prune_percent=50)
    history = model.fit(*data, epochs=4, batch_size=BATCH, verbose=0)
    prunable, rest = FEATURES * 6 + 6 * CLASSES, 6 + CLASSES
    living = [1.0, *history.global_history["density"][:-1]]
    for party in ("alice", "bob"):
        for rate, sizes in zip(living, history.local_history[f"{party}_round_payload_bytes"], strict=True):
            assert sizes == [4 * (round(rate * prunable) + rest)] * 3


def test_masks_that_no_longer_change_are_not_agreed_on_again(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray]
) -> None:
    model = make_model(prune_end_rate=0.5, prune_percent=50, prune_start_epoch=1)
    history = model.fit(*data, epochs=5, batch_size=BATCH, verbose=0)
    prunable = FEATURES * 6 + 6 * CLASSES
    rounds = history.local_history["alice_round_payload_bytes"]
    assert rounds[0] == [4 * (prunable + 6 + CLASSES)] * 3, "nothing is pruned in the first epoch"
    # The last round of the second epoch carries the new masks, and new denominators never.
    agreed = rounds[1][-1] - MASK_BYTES
    assert rounds[1][:-1] == rounds[0][:-1] and agreed < rounds[0][0]
    assert rounds[2:] == [[agreed] * 3] * 3, "later rounds carry what lives and nothing else"
    for epoch, sizes in enumerate(rounds):
        assert history.local_history["alice_payload_bytes"][epoch] == sum(sizes)


def test_masks_are_agreed_on_after_steps_within_an_epoch_only(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray]
) -> None:
    model = make_model(prune_end_rate=0.5, prune_percent=50, prune_start_epoch=1, prune_freq=2)
    history = model.fit(*data, epochs=4, batch_size=BATCH, verbose=0)
    prunable = FEATURES * 6 + 6 * CLASSES
    rounds = history.local_history["alice_round_payload_bytes"]
    dense = 4 * (prunable + 6 + CLASSES)
    # One step, in the second of three rounds, reaches the rate; the last round knows that and takes none.
    agreed = rounds[1][1] - MASK_BYTES
    assert agreed < dense
    assert rounds == [[dense] * 3, [dense, agreed + MASK_BYTES, agreed], [agreed] * 3, [agreed] * 3]
