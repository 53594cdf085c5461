"""No key, mask or number of a party is in a message, a repr, an exception or a layout."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from secretflow.security.aggregation.secagg.call import Call, Operation
from secretflow.security.aggregation.secagg.client import Client
from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.keyring import KeyRing
from secretflow.security.aggregation.secagg.layout import Layout
from secretflow.security.aggregation.secagg.message import add_up
from secretflow.security.aggregation.secagg.support import Support
from tests.security.aggregation.stepwise import Stepwise

from .views import MakeClients, Round


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


def test_no_repr_of_a_stage_of_a_call_shows_a_number_of_a_party(make_clients: MakeClients) -> None:
    """A log, a debugger or an exception may show any of them."""
    client, *_ = make_clients(3)
    data, mask, weight = [np.full(3, 0.31415)], [np.array([1.0, 0.0, 1.0])], 27182
    held: list[Any] = [client.weights_of([weight, 30000, 30000])]
    held.append(Call(1, Operation.AVERAGE, held[0]))
    client.propose(2, data, mask)
    held.append(client._pending)
    client.upload(Call(3, Operation.AVERAGE, held[0]), data)
    held.append(client._pending)
    for one in held:
        assert not any(shown in repr(one) for shown in ("27182", "0.31415", "True", "False", "array")), one


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
    pair = [KeyRing(name, ["alice", "bob"]) for name in ("alice", "bob")]
    keys = [ring.public_key() for ring in pair]
    confirmations = [ring.agree(*keys) for ring in pair]
    for ring in pair:
        ring.confirm(*confirmations)
    returned["share_group_key"] = pair[0].share_group_key()
    returned["propose"] = first.propose(1, data, mask)
    counts = add_up([returned["propose"], second.propose(1, data, mask)])
    returned["settle"], _ = first.settle(counts), second.settle(counts)
    returned["weights_of"] = first.weights_of([1, 2])
    returned["checksum"] = first.keys.checksum(np.arange(3, dtype="u1"))
    returned["upload"] = first.average(3, data)
    returned["opening"] = first.opening()
    total = add_up([first.average(4, data), second.average(4, data)])
    returned["open"], _ = first.open(total), second.open(total)
    total = add_up([first.average(5, data), second.average(5, data)])
    written = [np.zeros(3)]
    assert first.open_into(total, written) is None
    returned["open_into"] = written
    returned["shared_support"] = first.shared_support(data, mask)
    returned["next_call"], returned["present"] = first.next_call(), first.present()
    second.open(total)
    returned["upload_integers"] = first.upload_integers(6, np.arange(3))
    total = add_up([returned["upload_integers"], second.upload_integers(6, np.arange(3))])
    returned["open_integers"], _ = first.open_integers(total), second.open_integers(total)
    returned["name_of"] = first.keys.name_of(Layout.dense(data, True), 6)
    returned["unblinded"] = first.keys.unblinded(total)
    public = {
        name
        for owner in (Client, KeyRing)
        for name, _ in inspect.getmembers(owner, inspect.isfunction)
        if name[0] != "_"
    }
    silent = {"confirm", "take_group_key", "number_calls", "pads"}
    assert returned.keys() | silent == public, (
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


@pytest.mark.parametrize("blind", [False, True])
def test_a_blind_server_does_not_see_that_a_mask_has_come_again(
    make_clients: MakeClients, blind: bool
) -> None:
    clients, data = make_clients(2, blind=blind), [np.arange(4.0)]
    names = []
    for call, mask in ((1, [1, 0, 1, 1]), (3, [1, 0, 1, 1]), (5, [1, 1, 0, 1])):
        counts = add_up([client.propose(call, data, [np.array(mask)]) for client in clients])
        for client in clients:
            client.settle(counts)
        names.append(clients[0].sparse_average(call + 1, data)["layout"])
    assert len({*names}) == (3 if blind else 2)


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
