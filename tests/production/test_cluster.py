"""A cluster file is checked before any party opens a connection."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.production import Cluster

GOOD: dict[str, Any] = {
    "parties": {"alice": "10.0.0.1:9001", "bob": "10.0.0.2:9001", "carol": "10.0.0.3:9001"},
    "server": "carol",
}


def read(path: Path, **changes: Any) -> Cluster:
    path.write_text(json.dumps({**GOOD, **changes}))
    return Cluster.read(path)


def test_all_parties_but_the_server_train_unless_it_is_said(tmp_path: Path) -> None:
    cluster = read(tmp_path / "cluster.json", settings={"rows": 64, "server_blind": True})
    assert cluster.trainers == ["alice", "bob"] and cluster.settings.rows == 64
    assert read(tmp_path / "cluster.json", trainers=["carol", "bob"]).trainers == ["carol", "bob"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parties": {**GOOD["parties"], "bob": "10.0.0.2:99999999"}}, "from 1 to 65535"),
        ({"parties": {**GOOD["parties"], "bob": "10.0.0.1:9001"}}, "different addresses"),
        ({"parties": 3}, "not a cluster file"),
        ({"server": ["bob"]}, "has no address"),
        ({"trainers": ["alice"]}, "two parties at least"),
        ({"trainers": ["alice", "alice"]}, "each once"),
        ({"trainers": ["alice", "dave"]}, "'dave' has no address"),
        ({"settings": {"rows": "many"}}, "rows='many' is not allowed"),
        ({"settings": {"epochs": 0}}, "epochs=0 is not allowed"),
        ({"settings": {"rows": 8, "batch_size": 9}}, "batch_size=9 is not allowed"),
        ({"settings": {"prune_end_rate": 7}}, "prune_end_rate=7 is not allowed"),
        ({"settings": {"server_blind": "yes"}}, "server_blind='yes' is not allowed"),
        ({"settings": {"rounds": 3}}, "rounds"),
        ({"settings": {"server_blind": True}, "trainers": ["alice", "carol"]}, "server_blind is not allowed"),
    ],
)
def test_what_is_not_allowed_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "cluster.json", **changes)
