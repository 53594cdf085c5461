"""A cluster file is checked before any party opens a connection."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from secretflow.party.address import Address
from secretflow.party.cluster import Cluster
from secretflow.party.errors import SetupError

IDENTITIES = {"alice": "0a" * 32, "bob": "0b" * 32}
PARTIES: dict[str, Any] = {
    "alice": {"address": "10.0.0.1:9001", "identity": IDENTITIES["alice"]},
    "bob": {"address": "bob.example.org:9001", "identity": IDENTITIES["bob"]},
    "carol": {"address": "10.0.0.3:9001"},
}
GOOD: dict[str, Any] = {"parties": PARTIES, "server": "carol"}


def parties(**changes: Any) -> dict[str, Any]:
    return {"parties": {**PARTIES, **changes}}


def read(path: Path, **changes: Any) -> Cluster:
    path.write_text(json.dumps({**GOOD, **changes}))
    return Cluster.read(path)


def test_all_parties_but_the_server_train_unless_it_is_said(tmp_path: Path) -> None:
    cluster = read(tmp_path / "cluster.json", settings={"rows": 64}, train="experiments.production:train")
    assert cluster.trainers == ("alice", "bob") and cluster.settings == {"rows": 64}
    assert cluster.train == "experiments.production:train"
    assert cluster.member("alice").identity == IDENTITIES["alice"]
    assert cluster.member("carol").address == Address("10.0.0.3", 9001)
    assert read(tmp_path / "cluster.json", trainers=["carol", "bob"]).trainers == ("carol", "bob")


def test_streams_have_a_port_of_their_own(tmp_path: Path) -> None:
    assert read(tmp_path / "cluster.json").streams is None
    cluster = read(tmp_path / "cluster.json", streams="10.0.0.3:9002")
    assert cluster.streams == Address("10.0.0.3", 9002)
    assert cluster.fingerprint != read(tmp_path / "cluster.json").fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parties": 3}, "parties must be two parties or more"),
        ({"parties": {"alice": PARTIES["alice"]}}, "parties must be two parties or more"),
        (parties(bob="10.0.0.2:9001"), 'parties.bob must hold "address"'),
        (parties(bob={"address": "10.0.0.2:9001", "key": "x"}), 'parties.bob must hold "address"'),
        (parties(bob={"address": "10.0.0.2:99999999"}), "a port from 1 to 65535"),
        (parties(bob={"address": "10.0.0.2:0"}), "a port from 1 to 65535"),
        (parties(bob={"address": "10.0.0.2"}), "must be host:port"),
        (parties(bob={"address": "10.0.0.2:٣"}), "must be host:port"),
        (parties(bob={"address": "::1:9001"}), "must be host:port"),
        (parties(bob={"address": "127.1:9001"}), "must be host:port"),
        (parties(bob={"address": "a b:9001"}), "must be host:port"),
        (parties(bob={"address": ["10.0.0.2", 9001]}), "must be host:port"),
        (parties(bob={"address": "0.0.0.0:9001"}), "must be where the others reach bob"),
        (parties(bob={"address": "10.0.0.1:9001"}), "the address of each party must be its own"),
        (parties(bob={"address": "carol:9001"}), "must not have another party's name"),
        (
            parties(carol={"address": "10.0.0.3:9001", "identity": IDENTITIES["bob"]}),
            "identity of each party",
        ),
        (parties(carol={"address": "10.0.0.3:9001", "identity": "0c"}), "must be 64 hex digits"),
        (parties(Dave={"address": "10.0.0.4:9001"}), "the name of a party must be"),
        (parties(localhost={"address": "10.0.0.4:9001"}), "the name of a party must be"),
        ({"server": "dave"}, "server must be one of"),
        ({"server": ["bob"]}, "server must be one of"),
        ({"trainers": "alice"}, "trainers must be two or more"),
        ({"trainers": ["alice"]}, "trainers must be two or more"),
        ({"trainers": ["alice", "alice"]}, "each named once"),
        ({"trainers": ["alice", "dave"]}, "trainers must be two or more"),
        ({"trainers": ["alice", ["bob"]]}, "trainers must be two or more"),
        ({"settings": 3}, "settings must be a JSON object"),
        ({"train": 3}, "train must be 'module:function'"),
        ({"rounds": 3}, "nothing but"),
        ({"streams": 9002}, "streams must be host:port"),
        ({"streams": "0.0.0.0:9002"}, "streams must be a host and a port of the server"),
        ({"streams": "10.0.0.3:9001"}, "streams must be a host and a port of the server"),
    ],
)
def test_what_must_hold_is_said(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SetupError, match=message) as raised:
        read(tmp_path / "cluster.json", **changes)
    assert "cluster.json" in str(raised.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "3", '{"parties": {}', '{"parties": {"alice": {}, "alice": {}}, "server": "alice"}']
)
def test_a_file_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cluster.json"
    with pytest.raises(SetupError, match=r"cluster\.json"):
        Cluster.read(path)
    path.write_text(text)
    with pytest.raises(SetupError, match=r"cluster\.json"):
        Cluster.read(path)


def test_the_fingerprint_is_that_of_what_is_agreed_on_and_not_of_how_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    first = read(path).fingerprint
    path.write_text(json.dumps({"server": "carol", **GOOD, "trainers": ["alice", "bob"]}, indent=3))
    assert Cluster.read(path).fingerprint == first
    path.write_text(json.dumps({**GOOD, "parties": dict(reversed(PARTIES.items()))}))
    turned = Cluster.read(path)
    assert turned.fingerprint == first and list(turned.members) == ["alice", "bob", "carol"]
    assert turned.trainers == ("alice", "bob")
    others = (parties(bob={"address": "10.0.0.2:9001"}), {"server": "bob", "trainers": ["alice", "bob"]})
    for changes in (*others, {"settings": {"rows": 1}}, {"train": "job:train"}):
        assert read(path, **changes).fingerprint != first


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [("127.0.0.1", True), ("127.8.0.1", True), ("localhost", True), ("10.0.0.1", False), ("bob", False)],
)
def test_loopback_is_what_stays_on_the_machine(host: str, is_loopback: bool) -> None:
    assert Address.parse("address", f"{host}:1").is_loopback is is_loopback
