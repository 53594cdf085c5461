"""The cluster file: all that the parties must agree on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secretflow.party.address import Address
from secretflow.party.errors import SetupError

_PARTY = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_IDENTITY = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"parties", "server", "streams", "trainers", "train", "settings"}


def check_party_name(name: object) -> str:
    """Checks the name of a party; certificates carry it as a DNS name.

    Raises:
        SetupError: it is none.
    """
    if not isinstance(name, str) or not _PARTY.fullmatch(name) or name == "localhost":
        raise SetupError(
            "the name of a party must be 1 to 63 of a-z, 0-9 and '-', from a letter to a letter or digit, "
            f"and not 'localhost', got {name!r}"
        )
    return name


@dataclass(frozen=True)
class Member:
    """One party as the others know it.

    Attributes:
        address: where the others reach it.
        identity: its raw Ed25519 public key as 64 hexadecimal digits; None if it is not pinned.
    """

    address: Address
    identity: str | None

    @classmethod
    def parse(cls, party: str, content: object) -> Member:
        """Reads the entry of one party.

        Raises:
            SetupError: it is none.
        """
        if not isinstance(content, dict) or not {"address"} <= content.keys() <= {"address", "identity"}:
            raise SetupError(
                f'parties.{party} must hold "address", may hold "identity", and nothing else, got {content!r}'
            )
        address = Address.parse(f"parties.{party}.address", content["address"])
        if address.is_unspecified:
            raise SetupError(
                f"parties.{party}.address must be where the others reach {party}, got {address}; "
                "--listen names another address to listen on"
            )
        identity = content.get("identity")
        if identity is not None and not (isinstance(identity, str) and _IDENTITY.fullmatch(identity)):
            raise SetupError(
                f"parties.{party}.identity must be 64 hex digits, as init prints them, got {identity!r}"
            )
        return cls(address, identity)


@dataclass(frozen=True)
class Cluster:
    """Who takes part, where, and in what.

    Attributes:
        members: the parties by name, two at least, in the order of the names.
        server: the party that adds up.
        trainers: the parties that train, two at least; may hold the server.
        train: the training function as ``module:function``; None leaves it to the command line.
        settings: the training function's own, as JSON has them.
        fingerprint: 16 hexadecimal digits of the SHA-256 of all of these. Parties with different ones do not
            take each other's messages.
        streams: where the server takes the streams of a training that goes on when it loses a party; None
            for a training that needs all.
    """

    members: Mapping[str, Member]
    server: str
    trainers: tuple[str, ...]
    train: str | None
    settings: Mapping[str, Any]
    fingerprint: str
    streams: Address | None = None

    @classmethod
    def read(cls, path: Path) -> Cluster:
        """Reads a cluster file.

        Raises:
            SetupError: it is none; the message says what must hold.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_repetition)
        except (OSError, ValueError) as error:
            raise SetupError(f"the cluster file {path} must be readable JSON: {error}") from None
        try:
            return cls.parse(content)
        except SetupError as error:
            raise SetupError(f"{path}: {error}") from None

    @classmethod
    def parse(cls, content: object) -> Cluster:
        """Checks what a cluster file holds.

        Raises:
            SetupError: it is not what parties can agree on.
        """
        if not isinstance(content, dict) or not {"parties", "server"} <= content.keys() <= _FIELDS:
            raise SetupError(
                f"a cluster file must hold parties and server and nothing but {sorted(_FIELDS)}, got "
                f"{sorted(content) if isinstance(content, dict) else content!r}"
            )
        parties = content["parties"]
        if not isinstance(parties, dict) or len(parties) < 2:
            raise SetupError(f"parties must be two parties or more by name, got {parties!r}")
        members = {
            check_party_name(party): Member.parse(party, entry) for party, entry in sorted(parties.items())
        }
        _check_differ(members)
        server = content["server"]
        trainers = content.get("trainers", [party for party in members if party != server])
        if server not in list(members):
            raise SetupError(f"server must be one of {sorted(members)}, got {server!r}")
        if not isinstance(trainers, list) or len(trainers) < 2 or not _are_distinct(trainers, members):
            raise SetupError(
                f"trainers must be two or more of {sorted(members)}, each named once, got {trainers!r}"
            )
        train, settings = content.get("train"), content.get("settings", {})
        if train is not None and not isinstance(train, str):
            raise SetupError(f"train must be 'module:function', got {train!r}")
        if not isinstance(settings, dict):
            raise SetupError(f"settings must be a JSON object, got {settings!r}")
        canonical = json.dumps({**content, "trainers": trainers}, sort_keys=True).encode()
        fingerprint = hashlib.sha256(canonical).hexdigest()[:16]
        streams = None
        if "streams" in content:
            streams = Address.parse("streams", content["streams"])
            _check_streams(streams, members)
        return cls(members, server, tuple(trainers), train, settings, fingerprint, streams)

    def member(self, party: str) -> Member:
        """The entry of a party.

        Raises:
            SetupError: it has none.
        """
        if party not in self.members:
            raise SetupError(f"--party must be one of {sorted(self.members)}, got {party!r}")
        return self.members[party]


def _without_repetition(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    pairs = list(pairs)
    if len(dict(pairs)) < len(pairs):
        raise ValueError(f"every name must stand once in its object, got {[name for name, _ in pairs]}")
    return dict(pairs)


def _are_distinct(trainers: list[object], members: Mapping[str, Member]) -> bool:
    return all(trainers.count(party) == 1 and party in list(members) for party in trainers)


def _check_streams(streams: Address, members: Mapping[str, Member]) -> None:
    taken = [party for party, member in members.items() if member.address == streams]
    if streams.is_unspecified or taken:
        raise SetupError(
            "streams must be a host and a port of the server for streams alone, where all parties reach it, "
            f"got {streams}"
        )


def _check_differ(members: Mapping[str, Member]) -> None:
    """Checks that no two parties can be taken for each other."""
    for what in ("address", "identity"):
        seen: dict[Any, str] = {}
        for party, member in members.items():
            value = getattr(member, what)
            if value is not None and (other := seen.setdefault(value, party)) != party:
                raise SetupError(
                    f"the {what} of each party must be its own, got {value} for {other} and {party}"
                )
    for party, member in members.items():
        if member.address.host.lower() in members.keys() - {party}:
            raise SetupError(
                f"parties.{party}.address must not have another party's name as host, got {member.address}"
            )
