"""What the server and colluding parties see, made constructive: views with another explanation, or noise."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from secretflow.security.aggregation.prune import party as party_module
from secretflow.security.aggregation.prune.errors import AggregationError, ChannelClosedError
from secretflow.security.aggregation.prune.frame import Frame
from secretflow.security.aggregation.prune.pads import Pads
from secretflow.security.aggregation.prune.party import Sealer
from secretflow.security.aggregation.prune.payload import Payload, add_up
from secretflow.security.aggregation.prune.server import Adder

MakeSealers = Callable[..., list[Sealer]]
Body = list[np.ndarray]


class Round:
    """One agreement about masks and one average, as bare sealers run them, with all that is uploaded."""

    def __init__(
        self,
        sealers: Sequence[Sealer],
        data: Sequence[list[np.ndarray]],
        masks: Sequence[list[Any]] | None = None,
        weights: Sequence[float] = (),
    ) -> None:
        self.proposals: list[Payload] = []
        if masks is not None:
            self.proposals = [
                sealer.propose(1, x, mask) for sealer, x, mask in zip(sealers, data, masks, strict=True)
            ]
            self.counts = add_up(self.proposals)
            for sealer in sealers:
                sealer.settle(self.counts)
        self.payloads = [
            sealer.seal(2, True, masks is not None, x, *weights)
            for sealer, x in zip(sealers, data, strict=True)
        ]
        self.total = add_up(self.payloads)

    def uploads(self) -> list[Body]:
        """The bodies of everything uploaded, proposals first."""
        return [payload["body"] for payload in (*self.proposals, *self.payloads)]


def bits(bodies: Sequence[Body]) -> list[list[bytes]]:
    return [[part.tobytes() for part in body] for body in bodies]


class NoPads(Pads):
    def draw(self, size: int, dtype: np.dtype) -> np.ndarray:
        return np.zeros(size, dtype)


def without_pads(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Round]) -> Round:
    with monkeypatch.context() as patch:
        patch.setattr(party_module, "Pads", NoPads)
        return run()


@pytest.mark.parametrize("ring_bits", [32, 64])
@pytest.mark.parametrize(
    ("parties", "honest"), [(3, (0, 1)), (3, (0, 2)), (3, (1, 2)), (4, (0, 3)), (5, (1, 2))]
)
def test_n_minus_2_parties_and_the_server_cannot_tell_honest_inputs_of_the_same_sum_apart(
    make_sealers: MakeSealers,
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

    def sealers() -> list[Sealer]:
        return make_sealers(parties, seed=5, ring_bits=ring_bits)

    view = Round(sealers(), data, masks, weights)
    encoded = without_pads(monkeypatch, lambda: Round(sealers(), data, masks, weights))
    other = without_pads(monkeypatch, lambda: Round(sealers(), other_data, other_masks, weights))
    assert bits([other.total["body"]]) == bits([encoded.total["body"]]), "not an alternative: another sum"
    assert bits(other.uploads()) != bits(encoded.uploads()), "not an alternative: the same inputs"

    # What the first of the two must have added instead of its pad, call by call.
    names = [sealer._party for sealer in sealers()]
    hidden_key = sealers()[one]._pad_keys[names[two]]
    alternative: dict[int, bytes] = {}
    for call, before, after in (
        (1, encoded.proposals[one], other.proposals[one]),
        (2, encoded.payloads[one], other.payloads[one]),
    ):
        pad = [np.zeros_like(part) for part in before["body"]]
        drawn = Pads([(hidden_key, False)], call)
        for part in pad:
            drawn.add_to(part)
        alternative[call] = b"".join(
            (p + x - y).tobytes() for p, x, y in zip(pad, before["body"], after["body"], strict=True)
        )

    class Explained(Pads):
        """The honest pair's pad exchanged for the alternative one."""

        def __init__(self, keys: Sequence[tuple[bytes, bool]], call: int) -> None:
            super().__init__([(key, negative) for key, negative in keys if key != hidden_key], call)
            self._hidden = [negative for key, negative in keys if key == hidden_key]
            self._rest = alternative[call]

        def draw(self, size: int, dtype: np.dtype) -> np.ndarray:
            drawn = super().draw(size, dtype)
            pad = np.frombuffer(self._rest, dtype, size)
            self._rest = self._rest[pad.nbytes :]
            for negative in self._hidden:
                drawn = drawn - pad if negative else drawn + pad
            return drawn

    monkeypatch.setattr(party_module, "Pads", Explained)
    explanation = Round(sealers(), other_data, other_masks, weights)
    assert bits(explanation.uploads()) == bits(view.uploads())
    assert explanation.payloads[one].keys() == view.payloads[one].keys()
    for explained_one, seen in zip(
        explanation.payloads + explanation.proposals, view.payloads + view.proposals, strict=True
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
    make_sealers: MakeSealers,
    monkeypatch: pytest.MonkeyPatch,
    looks_uniform: Callable[[Body], bool],
    data: Callable[[int], list[list[np.ndarray]]],
    ring_bits: int,
) -> None:
    masks = [[np.arange(30_000) % 5 != k, None] for k in range(3)]

    def run() -> Round:
        return Round(make_sealers(3, ring_bits=ring_bits), data(3), masks)

    padded = run()
    assert all(looks_uniform(body) for body in padded.uploads())
    # Of two parties together, the pad with the third one is left.
    pairs = [(padded.payloads[j]["body"], padded.payloads[k]["body"]) for j, k in ((0, 1), (0, 2), (1, 2))]
    assert all(looks_uniform([a + b for a, b in zip(*pair, strict=True)]) for pair in pairs)
    bare = without_pads(monkeypatch, run)
    assert not any(looks_uniform(body) for body in bare.uploads())
    assert not looks_uniform(padded.total["body"])


@pytest.mark.parametrize("data", [constant_zeros, real_weights])
@pytest.mark.parametrize("parties", [2, 4])
def test_in_blind_mode_all_that_the_server_sees_is_uniform(
    make_sealers: MakeSealers,
    looks_uniform: Callable[[Body], bool],
    data: Callable[[int], list[list[np.ndarray]]],
    parties: int,
) -> None:
    masks = [[np.arange(30_000) % 5 != k, None] for k in range(parties)]
    sealers = make_sealers(parties, blind=True)
    blind = Round(sealers, data(parties), masks)
    assert all(looks_uniform(body) for body in blind.uploads())
    assert looks_uniform(blind.counts["body"])
    assert looks_uniform(blind.total["body"])
    opened = [sealer.open(blind.total) for sealer in sealers]
    kept = np.stack([mask[0] for mask in masks])
    values = np.stack([arrays[0] for arrays in data(parties)])
    expected = (values * kept).sum(axis=0) / np.maximum(kept.sum(axis=0), 1)
    travels = kept.sum(axis=0) >= 2
    for arrays in opened:
        np.testing.assert_allclose(arrays[0][travels], expected[travels], atol=parties * 2.0**-20)


@pytest.mark.parametrize("parties", [3, 4, 5, 6])
def test_no_element_of_too_few_contributors_is_in_any_payload(
    make_sealers: MakeSealers, parties: int
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
            sealers = make_sealers(parties, at_least=at_least, seed=trial)  # noqa: B023
            return [payload["body"] for payload in Round(sealers, data, masks).payloads]  # noqa: B023

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
def secrets_of() -> Callable[[Sealer], list[bytes]]:
    """Everything about a sealer that nobody else may ever see."""

    def collect(sealer: Sealer) -> list[bytes]:
        keys = [sealer._private_key.private_bytes_raw(), *sealer._pad_keys.values()]
        if sealer._group_key is not None:
            keys.append(sealer._group_key)
        return keys

    return collect


def shows(text: str | bytes, secret: bytes) -> bool:
    """Whether a secret is somewhere in a text, raw or in a form that people print."""
    raw = text if isinstance(text, bytes) else text.encode("latin-1", "backslashreplace")
    number = str(int.from_bytes(secret, "big")), str(int.from_bytes(secret, "little"))
    forms = [secret, secret.hex().encode(), repr(secret)[2:-1].encode(), str(list(secret)).encode()]
    return any(form in raw for form in (*forms, *(n.encode() for n in number)))


def test_nothing_secret_is_in_a_repr_or_an_exception(
    make_sealers: MakeSealers, secrets_of: Callable[[Sealer], list[bytes]]
) -> None:
    sealers = make_sealers(3, blind=True)
    sealer = sealers[0]
    data = [np.zeros(3)]
    texts = [repr(sealer), str(sealer)]
    sealer.seal(1, True, False, data)
    payload = sealer.propose(2, data, [np.ones(3)])
    mistakes: list[Callable[[], Any]] = [
        lambda: sealer.seal(1, True, False, data),
        lambda: sealer.seal(3, True, False, [np.full(3, np.nan)]),
        lambda: sealer.seal(3, True, False, "text"),
        lambda: sealer.seal(3, True, True, data),
        lambda: sealer.seal(3, True, False, data, -1, 1, 1),
        lambda: sealer.propose(3, data, [np.full(3, 2)]),
        lambda: sealer.settle({**payload, "frame": "other"}),
        lambda: sealer.open({**payload, "call": 9}),
        lambda: sealer.opening(),
        lambda: sealer.agree(b"short", b"short", b"short"),
        lambda: sealers[1].take_group_key({"bob": bytes(60)}),
        lambda: pickle.dumps(sealer),
    ]
    for mistake in mistakes:
        with pytest.raises(Exception) as caught:  # whatever it is, it must not tell
            mistake()
        texts += [str(caught.value), repr(caught.value)]
    for text in texts:
        assert not any(shows(text, secret) for secret in secrets_of(sealer) + secrets_of(sealers[1]))


def test_no_public_method_gives_a_key_away(
    make_sealers: MakeSealers, secrets_of: Callable[[Sealer], list[bytes]]
) -> None:
    first, second = make_sealers(2)
    data, mask = [np.ones(3)], [np.ones(3)]
    keys = [first.public_key(), second.public_key()]
    returned: dict[str, Any] = {"public_key": keys[0]}
    returned["share_group_key"] = first.share_group_key()
    second.take_group_key(returned["share_group_key"])
    returned["propose"] = first.propose(1, data, mask)
    returned["settle"] = first.settle(add_up([returned["propose"], second.propose(1, data, mask)]))
    second.settle(add_up([returned["propose"], second.propose(2, data, mask) | {"call": 1}]) | {"call": 2})
    returned["seal"] = first.seal(3, True, False, data)
    returned["opening"] = first.opening()
    other = second.seal(3, True, False, data)
    first.seal(4, True, False, data)
    returned["open"] = first.open(add_up([returned["seal"], other]) | {"call": 4})
    first.seal(5, True, False, data)
    written = [np.zeros(3)]
    assert first.open_into(add_up([returned["seal"], other]) | {"call": 5}, written) is None
    returned["open_into"] = written
    returned["settle_same"] = first.settle_same(data, mask)
    returned["payload_bytes"] = first.payload_bytes()
    returned["round_bytes"] = first.round_bytes(0)
    returned["take_seconds"] = first.take_seconds()
    adder = Adder()
    address = adder.listen()
    returned["connect"] = [sealer.connect(address) for sealer in (first, second)]
    adder.accept(2)
    with ThreadPoolExecutor() as thread:
        serving = thread.submit(adder.serve, 2)
        for sealer in (first, second):
            sealer.send(sealer.seal(6, True, False, data))
        returned["receive"] = first.receive()
        first.hang_up()
        assert isinstance(serving.exception(), ChannelClosedError)
    public = {name for name, _ in inspect.getmembers(Sealer, inspect.isfunction) if name[0] != "_"}
    assert returned.keys() | {"agree", "take_group_key", "send", "hang_up"} == public, (
        "a new public method: show here that it keeps the keys to itself"
    )
    for name, value in returned.items():
        for secret in secrets_of(first) + secrets_of(second):
            assert not shows(pickle.dumps(value), secret) and not shows(repr(value), secret), name


def test_a_group_key_is_wrapped_only_once(make_sealers: MakeSealers) -> None:
    with pytest.raises(AggregationError, match="shared already"):
        make_sealers(2, blind=True)[0].share_group_key()


def test_an_opening_holds_the_frame_and_nothing_of_a_party(make_sealers: MakeSealers) -> None:
    """The opening goes to the server: with the same frame and weights, all parties' openings are the same."""
    sealers = make_sealers(3)
    masks = [[np.array([1, 1, 1, 0])], [np.array([1, 1, 0, 0])], [np.array([1, 0, 0, 0])]]
    Round(sealers, [[np.arange(4.0) + k] for k in range(3)], masks, [1, 2, 3])
    openings = [pickle.dumps(vars(sealer.opening()) | {"frame": None}) for sealer in sealers]
    assert openings[0] == openings[1] == openings[2]


def test_the_digest_of_a_frame_does_not_depend_on_the_data() -> None:
    assert Frame.dense([np.zeros(3)], True).digest == Frame.dense([np.ones(3)], True).digest


def test_a_blind_server_cannot_confirm_a_guessed_mask_from_the_name_of_a_frame(
    make_sealers: MakeSealers,
) -> None:
    """It knows shapes and types, and that a mask is one of two; the names of the frames do not say which."""
    data = [[np.arange(4.0)] for _ in range(2)]
    masks = [[np.array([1, 0, 1, 1])] for _ in range(2)]
    runs = [Round(make_sealers(2, blind=True), data, masks) for _ in range(2)]
    guess = Frame.dense(data[0], True).narrowed([np.array([2, 0, 2, 2])], 2, 2).digest
    assert Round(make_sealers(2), data, masks).payloads[0]["frame"] == guess  # the server is told the average
    for run in runs:
        assert run.payloads[0]["frame"] == run.payloads[1]["frame"] != guess
        assert run.proposals[0]["frame"] != Frame.dense(data[0], True).digest
    assert runs[0].payloads[0]["frame"] != runs[1].payloads[0]["frame"]
