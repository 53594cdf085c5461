"""A server that lies gets no sums but those that the parties have agreed on, each number in one at most."""

from __future__ import annotations

import random

import pytest

from secretflow.security.aggregation.secagg.dropouts.client import SurvivingClient
from secretflow.security.aggregation.secagg.dropouts.keys import SurvivorKeys
from secretflow.security.aggregation.secagg.dropouts.protocol import Steps
from secretflow.security.aggregation.secagg.dropouts.rules import SurvivorRules
from secretflow.security.aggregation.secagg.dropouts.server import Outgoing, SurvivorServer
from secretflow.security.aggregation.secagg.dropouts.wire import (
    Again,
    Announcement,
    Codes,
    Lost,
    ToServer,
    Total,
    Upload,
)
from secretflow.security.aggregation.secagg.errors import AggregationError, DisagreementError

from .active import ActiveServer, forged
from .network import Network, openable
from .parties import Outcome, clients_of, names_of, steps

NAMES = names_of(5)
RULES = SurvivorRules.make(5, 3, 2)


def fuzz(seed: int) -> bool:
    """One run with a lying server; returns whether a party has found a lie out."""
    chance = random.Random(seed)
    parties = chance.randint(3, 6)
    names = names_of(parties)
    rules = SurvivorRules.make(parties, chance.randint(parties // 2 + 1, parties), 2)
    outcomes: dict[str, list[Outcome]] = {name: [] for name in names}
    clients = clients_of(names, rules, blind=chance.random() < 0.3)
    network = Network(
        ActiveServer(
            names, rules, chance, lies=chance.choice([0.02, 0.1, 0.4]), sums_ahead=chance.random() < 0.5
        ),
        {
            name: steps(client, name, 4, False, outcomes[name])
            for name, client in zip(names, clients, strict=True)
        },
        outcomes,
    )
    for _ in range(chance.randint(0, 200)):
        waiting = [(queues, name) for queues in (network.up, network.down) for name in names if queues[name]]
        if not waiting or chance.random() < 0.02:
            network.time_out()
            continue
        queues, name = chance.choice(waiting)
        (network.deliver_up if queues is network.up else network.deliver_down)(name)
    network.drain()
    for parts in openable(network.said).values():
        assert len(parts) <= 1
        assert all(len(part) >= rules.min_survivors for part in parts)
    assert all(len(calls) == 1 for calls in network.released.values())
    errors = [error for error in network.ended.values() if error is not None]
    assert all(isinstance(error, AggregationError) for error in errors), errors
    return bool(errors)


def test_a_lying_server_opens_nothing_that_was_not_agreed_on() -> None:
    assert any([fuzz(seed) for seed in range(60)])


@pytest.mark.faults
def test_a_lying_server_opens_nothing_that_was_not_agreed_on_in_a_thousand_runs() -> None:
    assert sum(fuzz(seed) for seed in range(1000)) > 500


def begun(
    clients: list[SurvivingClient], names: list[str]
) -> tuple[dict[str, Steps[None]], dict[str, Upload]]:
    running = {name: steps(client, name, 2, False, []) for name, client in zip(names, clients, strict=True)}
    uploads = {name: next(step) for name, step in running.items()}
    assert all(isinstance(upload, Upload) for upload in uploads.values())
    return running, uploads  # type: ignore[return-value]


def codes_for(name: str, said: dict[str, Codes]) -> dict[str, bytes]:
    return {other: codes.codes[name] for other, codes in said.items() if name in codes.codes}


def test_parties_that_were_told_different_sets_release_nothing() -> None:
    """Each has codes of all others, but about another set."""
    running, _ = begun(clients_of(NAMES, RULES), NAMES)
    sets = {name: tuple(NAMES[:4] if k < 3 else NAMES) for k, name in enumerate(NAMES[:4])}
    sets[NAMES[4]] = tuple(NAMES)
    said = {name: step.send(Announcement(1, sets[name])) for name, step in running.items()}
    for name, step in running.items():
        with pytest.raises(AggregationError, match="does not agree with"):
            step.send(Codes(1, codes_for(name, said)))  # type: ignore[arg-type]


def test_released_keys_do_not_forge_an_agreement_with_the_party_that_was_left_out() -> None:
    """The server leaves one out who is there, gets the keys of its pads, and forges that all are with it."""
    clients = clients_of(NAMES, RULES)
    running, uploads = begun(clients, NAMES)
    *others, victim = NAMES
    said = {name: running[name].send(Announcement(1, tuple(others))) for name in others}
    with_first = clients[1].keys._survivor_keys[NAMES[0]]
    right = forged(with_first, NAMES[1], NAMES[0], uploads[NAMES[1]], NAMES, others, RULES)
    assert said[NAMES[1]].codes[NAMES[0]] == right  # type: ignore[union-attr]  # so it fails for its key alone
    released = {name: running[name].send(Codes(1, codes_for(name, said))) for name in others}  # type: ignore[arg-type]
    running[victim].send(Announcement(1, tuple(NAMES)))
    made = {
        name: forged(release.keys[victim], name, victim, uploads[victim], NAMES, NAMES, RULES)  # type: ignore[union-attr]
        for name, release in released.items()
    }
    with pytest.raises(AggregationError, match="does not agree with"):
        running[victim].send(Codes(1, made))


def carried(running: dict[str, Steps[None]], said: dict[str, ToServer], server: SurvivorServer) -> Outgoing:
    """What an honest server answers when all have sent their next message."""
    return [answer for name in running for answer in server.receive(name, said[name])]


def test_codes_of_an_earlier_call_do_not_count() -> None:
    running, uploads = begun(clients_of(NAMES, RULES), NAMES)
    server, said = SurvivorServer(NAMES, RULES), dict[str, ToServer](uploads)
    said = {name: running[name].send(answer) for name, answer in carried(running, said, server)}  # type: ignore[misc]
    first = dict(said)
    for _ in range(2):
        said = {name: running[name].send(answer) for name, answer in carried(running, said, server)}  # type: ignore[misc]
    for name, step in running.items():
        assert isinstance(said[name], Upload)
        step.send(Announcement(2, tuple(NAMES)))
    for name, step in running.items():
        with pytest.raises(DisagreementError, match="does not agree with"):
            step.send(Codes(2, codes_for(name, first)))  # type: ignore[arg-type]


def test_parties_that_were_sent_different_sums_open_nothing_in_the_next_call() -> None:
    """The server adds noise for one of them; the padded zero and the weight it leaves as they are."""
    running, uploads = begun(clients_of(NAMES, RULES), NAMES)
    server, said = SurvivorServer(NAMES, RULES), dict[str, ToServer](uploads)
    for _ in range(2):
        said = {name: running[name].send(answer) for name, answer in carried(running, said, server)}  # type: ignore[misc]
    totals = dict(carried(running, said, server))
    total = totals[NAMES[0]]
    assert isinstance(total, Total)
    noisy = [part.copy() for part in total.message["body"]]
    noisy[0][0] += 1
    totals[NAMES[0]] = Total({**total.message, "body": noisy})
    for name, step in running.items():
        assert isinstance(step.send(totals[name]), Upload)
    codes = {name: step.send(Announcement(2, tuple(NAMES))) for name, step in running.items()}
    for name, step in running.items():
        with pytest.raises(DisagreementError, match="does not agree with"):
            step.send(Codes(2, codes_for(name, codes)))  # type: ignore[arg-type]


def test_a_party_agrees_to_one_set_in_a_call() -> None:
    running, _ = begun(clients_of(NAMES, RULES), NAMES)
    step = running[NAMES[0]]
    step.send(Announcement(1, tuple(NAMES)))
    with pytest.raises(AggregationError, match="out of its turn"):
        step.send(Announcement(1, tuple(NAMES[:4])))


def test_a_call_that_some_have_released_and_others_begin_anew_is_closed_for_ever() -> None:
    running, _ = begun(clients_of(NAMES, RULES), NAMES)
    everybody = tuple(NAMES)
    said = {name: step.send(Announcement(1, everybody)) for name, step in running.items()}
    log: list[tuple[str, ToServer]] = [(name, Upload(_message(1))) for name in NAMES]
    for name in NAMES[:3]:
        log.append((name, running[name].send(Codes(1, codes_for(name, said)))))  # type: ignore[arg-type]
    for name in NAMES[3:]:
        log.append(
            (name, running[name].send(Again(1, tuple(NAMES[:4]) if name == NAMES[3] else everybody[1:])))
        )  # type: ignore[arg-type]
    assert openable(log)[1] == []
    with pytest.raises(AggregationError, match="out of its turn"):
        running[NAMES[0]].send(Again(1, everybody[:4]))


@pytest.mark.parametrize(
    "survivors", [NAMES[1:], NAMES[:2], [*NAMES, "mallory"], NAMES[::-1], [NAMES[0], *NAMES]]
)
def test_a_set_that_is_not_allowed_is_refused(survivors: list[str]) -> None:
    running, _ = begun(clients_of(NAMES, RULES), NAMES)
    with pytest.raises(AggregationError, match="must be"):
        running[NAMES[0]].send(Announcement(1, tuple(survivors)))


@pytest.mark.parametrize("answer", [Again(1, tuple(NAMES)), Lost(1, tuple(NAMES[:3]))])
def test_a_call_is_given_up_for_fewer_parties_and_lost_after_releases_only(answer: Again | Lost) -> None:
    running, _ = begun(clients_of(NAMES, RULES), NAMES)
    running[NAMES[0]].send(Announcement(1, tuple(NAMES)))
    with pytest.raises(AggregationError):
        running[NAMES[0]].send(answer)


def test_pads_are_taken_off_once() -> None:
    keys = SurvivorKeys("alice", ["alice", "bob"])
    with pytest.raises(AggregationError, match="has released or forgotten"):
        keys.release([], seal=False)


def _message(call: int):  # type: ignore[no-untyped-def]
    return {"call": call, "layout": "", "encoding": "", "body": []}
