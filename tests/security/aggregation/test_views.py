"""What the server and colluding parties see, made constructive: views with another explanation, or noise."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from secretflow.security.aggregation.secagg import keyring as keyring_module
from secretflow.security.aggregation.secagg.client import Client
from secretflow.security.aggregation.secagg.pads import Pads

from .views import Body, MakeClients, Round, bits, without_pads


@pytest.mark.parametrize("ring_bits", [32, 64])
@pytest.mark.parametrize(
    ("parties", "honest"), [(3, (0, 1)), (3, (0, 2)), (3, (1, 2)), (4, (0, 3)), (5, (1, 2))]
)
def test_n_minus_2_parties_and_the_server_cannot_tell_honest_inputs_of_the_same_sum_apart(
    make_clients: MakeClients,
    monkeypatch: pytest.MonkeyPatch,
    parties: int,
    honest: tuple[int, int],
    ring_bits: int,
) -> None:
    """For another pair of honest inputs there is a pad between the two that gives the very same view.

    The colluders know all their keys, so the honest pair's pad is all that is hidden from them, and it is
    uniform. The honest two exchange a third of their masks and numbers and shift each other's others.
    """
    one, two = honest
    rng = np.random.default_rng(parties)
    # A share of a multiple of 2^-10 is a whole number of ring units only if the shares are powers of 2,
    # and only then has a shifted pair of numbers the same sum to the last bit.
    weights = [1 if party in honest or parties == 4 else 2 for party in range(parties)]

    def numbers() -> np.ndarray:
        return rng.integers(-(2**15), 2**15, 90) / 2.0**10

    data = [[numbers(), np.array([k])] for k in range(parties)]
    masks: list[list[Any]] = [[rng.random(90) < 0.6, None] for _ in range(parties)]
    exchanged = rng.random(90) < 1 / 3
    other_data, other_masks = list(data), list(masks)
    shift = (masks[one][0] & masks[two][0]) * (rng.integers(1, 100, 90) / 2.0**10)
    for mine, theirs, sign in ((one, two, 1), (two, one, -1)):
        swapped = np.where(exchanged, data[theirs][0], data[mine][0])
        other_data[mine] = [swapped + sign * shift, data[mine][1] + sign]
        other_masks[mine] = [np.where(exchanged, masks[theirs][0], masks[mine][0]), None]

    def clients() -> list[Client]:
        return make_clients(parties, seed=5, ring_bits=ring_bits)

    seen = clients()
    heard = {1: seen[one].transcript.digest}
    view = Round(seen, data, masks, weights)
    heard[2] = seen[one].transcript.digest
    encoded = without_pads(monkeypatch, lambda: Round(clients(), data, masks, weights))
    other = without_pads(monkeypatch, lambda: Round(clients(), other_data, other_masks, weights))
    assert bits([other.total["body"]]) == bits([encoded.total["body"]]), "not an alternative: another sum"
    assert bits(other.uploads()) != bits(encoded.uploads()), "not an alternative: the same inputs"

    # What the first of the two must have added instead of its pad, call by call.
    names = [client.party for client in clients()]
    ratchet = clients()[one].keys._ratchets[names[two]]
    hidden = {call: hmac.digest(ratchet.key_of(call), heard[call], "sha256") for call in (1, 2)}
    alternative: dict[int, bytes] = {}
    for call, before, after in (
        (1, encoded.proposals[one], other.proposals[one]),
        (2, encoded.messages[one], other.messages[one]),
    ):
        pad = [np.zeros_like(part) for part in before["body"]]
        drawn = Pads([(hidden[call], False)], call)
        for part in pad:
            drawn.add_to(part)
        alternative[call] = b"".join(
            (p + x - y).tobytes() for p, x, y in zip(pad, before["body"], after["body"], strict=True)
        )

    class Explained(Pads):
        """The honest pair's pad exchanged for the alternative one."""

        def __init__(self, keys: Sequence[tuple[bytes, bool]], call: int) -> None:
            super().__init__([(key, negative) for key, negative in keys if key != hidden[call]], call)
            self._hidden = [negative for key, negative in keys if key == hidden[call]]
            self._rest = alternative[call]

        def draw(self, size: int, dtype: np.dtype) -> np.ndarray:
            drawn = super().draw(size, dtype)
            pad = np.frombuffer(self._rest, dtype, size)
            self._rest = self._rest[pad.nbytes :]
            for negative in self._hidden:
                drawn = drawn - pad if negative else drawn + pad
            return drawn

    monkeypatch.setattr(keyring_module, "Pads", Explained)
    explanation = Round(clients(), other_data, other_masks, weights)
    assert bits(explanation.uploads()) == bits(view.uploads())
    assert explanation.messages[one].keys() == view.messages[one].keys()
    for explained_one, seen in zip(
        explanation.messages + explanation.proposals, view.messages + view.proposals, strict=True
    ):
        assert {**explained_one, "body": []} == {**seen, "body": []}


def constant_zeros(parties: int) -> list[list[np.ndarray]]:
    return [[np.zeros(60_000, "f4"), np.zeros(6_000, "i8")] for _ in range(parties)]


def real_weights(parties: int) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(1)
    return [[rng.normal(0, 0.05, 60_000).astype("f4"), rng.integers(0, 1000, 6_000)] for _ in range(parties)]


@pytest.mark.parametrize("data", [constant_zeros, real_weights])
@pytest.mark.parametrize("ring_bits", [32, 64])
def test_each_padded_upload_and_each_incomplete_sum_is_uniform_and_the_encoding_is_not(
    make_clients: MakeClients,
    monkeypatch: pytest.MonkeyPatch,
    looks_uniform: Callable[[Body], bool],
    data: Callable[[int], list[list[np.ndarray]]],
    ring_bits: int,
) -> None:
    masks = [[np.arange(60_000) % 5 != k, None] for k in range(3)]

    def run() -> Round:
        return Round(make_clients(3, ring_bits=ring_bits), data(3), masks)

    padded = run()
    assert all(looks_uniform(body) for body in padded.uploads())
    # Of two parties together, the pad with the third one is left.
    pairs = [(padded.messages[j]["body"], padded.messages[k]["body"]) for j, k in ((0, 1), (0, 2), (1, 2))]
    assert all(looks_uniform([a + b for a, b in zip(*pair, strict=True)]) for pair in pairs)
    bare = without_pads(monkeypatch, run)
    assert not any(looks_uniform(body) for body in bare.uploads())
    assert not looks_uniform(padded.total["body"])


@pytest.mark.parametrize("data", [constant_zeros, real_weights])
@pytest.mark.parametrize("parties", [2, 4])
def test_in_blind_mode_all_that_the_server_sees_is_uniform(
    make_clients: MakeClients,
    looks_uniform: Callable[[Body], bool],
    data: Callable[[int], list[list[np.ndarray]]],
    parties: int,
) -> None:
    masks = [[np.arange(60_000) % 5 != k, None] for k in range(parties)]
    clients = make_clients(parties, blind=True)
    blind = Round(clients, data(parties), masks)
    assert all(looks_uniform(body) for body in blind.uploads())
    assert looks_uniform(blind.counts["body"])
    assert looks_uniform(blind.total["body"])
    opened = [client.open(blind.total) for client in clients]
    kept = np.stack([mask[0] for mask in masks])
    values = np.stack([arrays[0] for arrays in data(parties)])
    expected = (values * kept).sum(axis=0) / np.maximum(kept.sum(axis=0), 1)
    travels = kept.sum(axis=0) >= 2
    for arrays in opened:
        np.testing.assert_allclose(arrays[0][travels], expected[travels], atol=parties * 2.0**-20)


@pytest.mark.parametrize("parties", [3, 4, 5, 6])
def test_no_element_of_too_few_contributors_is_in_any_payload(
    make_clients: MakeClients, parties: int
) -> None:
    """A hundred mask sets: the length tells what travels, and a change of what must not changes no byte."""
    rng = np.random.default_rng(parties)
    private_seen = pruned_seen = travelling_seen = 0
    for trial in range(100):
        at_least, rate = int(rng.integers(1, parties + 1)), rng.choice([0.1, 0.3, 0.6, 0.9])
        masks = [[(rng.random(40) < rate).astype("u1"), None] for _ in range(parties)]
        data = [[rng.normal(size=40), rng.normal(size=3)] for _ in range(parties)]
        contributors = np.sum([mask[0] for mask in masks], axis=0)
        travels = contributors >= at_least
        partial = travels & (contributors < parties)

        def upload(data: list[list[np.ndarray]]) -> list[Body]:
            clients = make_clients(parties, at_least=at_least, seed=trial)  # noqa: B023
            return [message["body"] for message in Round(clients, data, masks).messages]  # noqa: B023

        before = upload(data)
        for body in before:
            assert body[0].size == travels.sum() + partial.sum() + 3 and body[1].size == 0
        party = int(rng.integers(parties))
        mine = masks[party][0].astype(bool)
        changed = [[arrays[0].copy(), arrays[1]] for arrays in data]
        changed[party][0][~travels | ~mine] += 100
        assert bits(upload(changed)) == bits(before)
        private_seen += int((~travels & mine).sum())
        pruned_seen += int((travels & ~mine).sum())
        if (travels & mine).any():
            changed[party][0][np.flatnonzero(travels & mine)[0]] += 100
            assert bits(upload(changed)) != bits(before)
            travelling_seen += 1
    assert min(private_seen, pruned_seen) > 100 and travelling_seen > 50  # the cases above did happen
