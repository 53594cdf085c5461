"""What the server and colluding parties see, made constructive: views with another explanation, or noise."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from secretflow.security.aggregation.secagg import keyring as keyring_module
from secretflow.security.aggregation.secagg.call import Call, Operation
from secretflow.security.aggregation.secagg.client import Client
from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.keyring import KeyRing
from secretflow.security.aggregation.secagg.layout import Layout
from secretflow.security.aggregation.secagg.message import Message, add_up
from secretflow.security.aggregation.secagg.pads import Pads
from secretflow.security.aggregation.secagg.support import Support
from tests.security.aggregation.stepwise import Stepwise

MakeClients = Callable[..., list[Stepwise]]
Body = list[np.ndarray]


class Round:
    """One agreement about masks and one average, as bare clients run them, with all that is uploaded."""

    def __init__(
        self,
        clients: Sequence[Stepwise],
        data: Sequence[list[np.ndarray]],
        masks: Sequence[list[Any]] | None = None,
        weights: Sequence[float] = (),
    ) -> None:
        self.proposals: list[Message] = []
        if masks is not None:
            self.proposals = [
                client.propose(1, x, mask) for client, x, mask in zip(clients, data, masks, strict=True)
            ]
            self.counts = add_up(self.proposals)
            for client in clients:
                client.settle(self.counts)
        self.messages = [
            (client.average if masks is None else client.sparse_average)(2, x, *weights)
            for client, x in zip(clients, data, strict=True)
        ]
        self.total = add_up(self.messages)

    def uploads(self) -> list[Body]:
        """The bodies of everything uploaded, proposals first."""
        return [message["body"] for message in (*self.proposals, *self.messages)]


def bits(bodies: Sequence[Body]) -> list[list[bytes]]:
    return [[part.tobytes() for part in body] for body in bodies]


class NoPads(Pads):
    def draw(self, size: int, dtype: np.dtype) -> np.ndarray:
        return np.zeros(size, dtype)


def without_pads(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Round]) -> Round:
    with monkeypatch.context() as patch:
        patch.setattr(keyring_module, "Pads", NoPads)
        return run()


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

    view = Round(clients(), data, masks, weights)
    encoded = without_pads(monkeypatch, lambda: Round(clients(), data, masks, weights))
    other = without_pads(monkeypatch, lambda: Round(clients(), other_data, other_masks, weights))
    assert bits([other.total["body"]]) == bits([encoded.total["body"]]), "not an alternative: another sum"
    assert bits(other.uploads()) != bits(encoded.uploads()), "not an alternative: the same inputs"

    # What the first of the two must have added instead of its pad, call by call.
    names = [client._party for client in clients()]
    ratchet = clients()[one].keys._ratchets[names[two]]
    hidden = {call: ratchet.key_of(call) for call in (1, 2)}
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
    return [[np.zeros(30_000, "f4"), np.zeros(6_000, "i8")] for _ in range(parties)]


def real_weights(parties: int) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(1)
    return [[rng.normal(0, 0.05, 30_000).astype("f4"), rng.integers(0, 1000, 6_000)] for _ in range(parties)]


@pytest.mark.parametrize("data", [constant_zeros, real_weights])
@pytest.mark.parametrize("ring_bits", [32, 64])
def test_each_padded_upload_and_each_incomplete_sum_is_uniform_and_the_encoding_is_not(
    make_clients: MakeClients,
    monkeypatch: pytest.MonkeyPatch,
    looks_uniform: Callable[[Body], bool],
    data: Callable[[int], list[list[np.ndarray]]],
    ring_bits: int,
) -> None:
    masks = [[np.arange(30_000) % 5 != k, None] for k in range(3)]

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
    masks = [[np.arange(30_000) % 5 != k, None] for k in range(parties)]
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


@pytest.fixture
def secrets_of() -> Callable[[Stepwise], list[bytes]]:
    """Everything about a client that nobody else may ever see."""

    def collect(client: Stepwise) -> list[bytes]:
        ring = client.keys
        ratchets = [*ring._ratchets.values(), *([ring._group] if ring._group else [])]
        keys = [key for ratchet in ratchets for key in (ratchet._starts, ratchet._calls)]
        keys += [*ring._wrapping_keys.values(), ring._layout_key or b""]
        keys += [ring._private_key.private_bytes_raw() if ring._private_key else b""]
        return [key for key in keys if key]

    return collect


def shows(text: str | bytes, secret: bytes) -> bool:
    """Whether a secret is somewhere in a text, raw or in a form that people print."""
    raw = text if isinstance(text, bytes) else text.encode("latin-1", "backslashreplace")
    number = str(int.from_bytes(secret, "big")), str(int.from_bytes(secret, "little"))
    forms = [secret, secret.hex().encode(), repr(secret)[2:-1].encode(), str(list(secret)).encode()]
    return any(form in raw for form in (*forms, *(n.encode() for n in number)))


def test_nothing_secret_is_in_a_repr_or_an_exception(
    make_clients: MakeClients, secrets_of: Callable[[Stepwise], list[bytes]]
) -> None:
    clients = make_clients(3, blind=True)
    client = clients[0]
    data = [np.zeros(3)]
    texts = [repr(client), str(client)]
    other_shapes = Support(Layout.dense([np.zeros(4)], True), [None])
    client.average(1, data)
    message = client.propose(2, data, [np.ones(3)])
    mistakes: list[Callable[[], Any]] = [
        lambda: client.average(1, data),
        lambda: client.average(3, [np.full(3, np.nan)]),
        lambda: client.average(3, "text"),
        lambda: client.upload(Call(3, Operation.AVERAGE, support=other_shapes), data),
        lambda: client.average(3, data, -1, 1, 1),
        lambda: client.propose(3, data, [np.full(3, 2)]),
        lambda: client.settle({**message, "layout": "other"}),
        lambda: client.open({**message, "call": 9}),
        lambda: client.opening(),
        lambda: client.agree(b"short", b"short", b"short"),
        lambda: clients[1].keys.take_group_key({"bob": bytes(60)}),
        lambda: pickle.dumps(client),
    ]
    for mistake in mistakes:
        with pytest.raises(Exception) as caught:  # whatever it is, it must not tell
            mistake()
        texts += [str(caught.value), repr(caught.value)]
    for text in texts:
        assert not any(shows(text, secret) for secret in secrets_of(client) + secrets_of(clients[1]))


def test_no_public_method_gives_a_key_away(
    make_clients: MakeClients, secrets_of: Callable[[Stepwise], list[bytes]]
) -> None:
    first, second = make_clients(2)
    data, mask = [np.ones(3)], [np.ones(3)]
    alone = KeyRing("alice", ["alice", "bob"])
    secret = alone._private_key and alone._private_key.private_bytes_raw()
    returned: dict[str, Any] = {"public_key": alone.public_key()}
    returned["agree"] = alone.agree(returned["public_key"], KeyRing("bob", []).public_key())
    assert secret and not shows(pickle.dumps(returned), secret)
    returned["fingerprint"] = first.keys.fingerprint()
    returned["share_group_key"] = first.keys.share_group_key()
    second.keys.take_group_key(returned["share_group_key"])
    returned["propose"] = first.propose(1, data, mask)
    returned["settle"] = first.settle(add_up([returned["propose"], second.propose(1, data, mask)]))
    second.settle(add_up([returned["propose"], second.propose(2, data, mask) | {"call": 1}]) | {"call": 2})
    returned["upload"] = first.average(3, data)
    returned["opening"] = first.opening()
    other = second.average(3, data)
    first.average(4, data)
    returned["open"] = first.open(add_up([returned["upload"], other]) | {"call": 4})
    first.average(5, data)
    written = [np.zeros(3)]
    assert first.open_into(add_up([returned["upload"], other]) | {"call": 5}, written) is None
    returned["open_into"] = written
    returned["shared_support"] = first.shared_support(data, mask)
    returned["next_call"] = first.next_call()
    returned["name_of"] = first.keys.name_of(Layout.dense(data, True))
    returned["unblinded"] = first.keys.unblinded(add_up([returned["upload"], other]) | {"call": 5})
    public = {
        name
        for owner in (Client, KeyRing)
        for name, _ in inspect.getmembers(owner, inspect.isfunction)
        if name[0] != "_"
    }
    assert returned.keys() | {"confirm", "take_group_key", "number_calls", "pads"} == public, (
        "a new public method: show here that it keeps the keys to itself"
    )
    for name, value in returned.items():
        for secret in secrets_of(first) + secrets_of(second):
            assert not shows(pickle.dumps(value), secret) and not shows(repr(value), secret), name


def test_a_group_key_is_wrapped_only_once(make_clients: MakeClients) -> None:
    with pytest.raises(AggregationError, match="shared already"):
        make_clients(2, blind=True)[0].keys.share_group_key()


def test_an_opening_holds_the_layout_and_nothing_of_a_party(make_clients: MakeClients) -> None:
    """The opening goes to the server: with one layout and one set of weights all openings are equal."""
    clients = make_clients(3)
    masks = [[np.array([1, 1, 1, 0])], [np.array([1, 1, 0, 0])], [np.array([1, 0, 0, 0])]]
    Round(clients, [[np.arange(4.0) + k] for k in range(3)], masks, [1, 2, 3])
    openings = [pickle.dumps(vars(client.opening()) | {"layout": None}) for client in clients]
    assert openings[0] == openings[1] == openings[2]


def test_the_digest_of_a_layout_does_not_depend_on_the_data() -> None:
    assert Layout.dense([np.zeros(3)], True).digest == Layout.dense([np.ones(3)], True).digest


def test_a_blind_server_cannot_confirm_a_guessed_mask_from_the_name_of_a_layout(
    make_clients: MakeClients,
) -> None:
    """It knows shapes and types, and that a mask is one of two; the names of the layouts do not say which."""
    data = [[np.arange(4.0)] for _ in range(2)]
    masks = [[np.array([1, 0, 1, 1])] for _ in range(2)]
    runs = [Round(make_clients(2, blind=True), data, masks) for _ in range(2)]
    guess = Layout.dense(data[0], True).narrowed([np.array([2, 0, 2, 2])], 2, 2).digest
    assert (
        Round(make_clients(2), data, masks).messages[0]["layout"] == guess
    )  # the server is told the average
    for run in runs:
        assert run.messages[0]["layout"] == run.messages[1]["layout"] != guess
        assert run.proposals[0]["layout"] != Layout.dense(data[0], True).digest
    assert runs[0].messages[0]["layout"] != runs[1].messages[0]["layout"]
