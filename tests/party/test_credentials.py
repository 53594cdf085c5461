"""A party's keys are its own; what does not fit together is refused before a start, and never shown."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from secretflow.party.address import Address
from secretflow.party.authority import make_authority, sign
from secretflow.party.cluster import Cluster
from secretflow.party.credentials import Credentials
from secretflow.party.errors import SetupError
from secretflow.party.keys import make_party, read_identity

from .clocks import put_authority_ahead

ADDRESSES = {"alice": "127.0.0.1:9001", "bob": "bob.example.org:9002"}


def make(folder: Path, authority: Path, party: str, names: str = "", address: str = "", days: int = 9) -> str:
    """A party's folder with a certificate that names ``names`` at ``address``, by default its own."""
    where = Address.parse("address", address or ADDRESSES[party])
    identity = make_party(folder, names or party, where)
    sign(authority, folder / "request.pem", names or party, where, days)
    return identity


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """``alice`` and ``bob`` with certificates of ``authority``."""
    make_authority(tmp_path / "authority")
    for party in ADDRESSES:
        make(tmp_path / party, tmp_path / "authority", party)
    return tmp_path


def cluster(**identities: str) -> Cluster:
    entries = {
        party: {"address": address, **({"identity": identities[party]} if party in identities else {})}
        for party, address in ADDRESSES.items()
    }
    return Cluster.parse({"parties": entries, "server": "bob", "trainers": ["alice", "bob"]})


def test_what_init_and_the_authority_make_fits(home: Path) -> None:
    for party in ADDRESSES:
        found = Credentials.read(home / party, cluster(**{party: read_identity(home / party)}), party)
        assert found.key == home / party / "key.pem"


def test_secret_files_are_open_to_their_owner_alone(home: Path) -> None:
    for path in home.rglob("*"):
        if path.is_dir() or path.name in ("key.pem", "identity.pem"):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert {path.name for path in home.iterdir()} == {"authority", "alice", "bob"}  # and no drafts


def test_keys_are_never_overwritten(home: Path) -> None:
    before = (home / "alice/key.pem").read_bytes()
    with pytest.raises(SetupError, match="must not be there yet"):
        make_party(home / "alice", "alice", Address("127.0.0.1", 9001))
    with pytest.raises(SetupError, match="must not be there yet"):
        make_authority(home / "authority")
    with pytest.raises(SetupError, match="can be written"):
        make_party(home / "nowhere/alice", "alice", Address("127.0.0.1", 9001))
    assert (home / "alice/key.pem").read_bytes() == before


def refused(home: Path, message: str, known: Cluster | None = None) -> None:
    with pytest.raises(SetupError, match=message) as raised:
        Credentials.read(home / "alice", known or cluster(), "alice")
    shown = f"{raised.value!r} {raised.value.__cause__!r} {raised.value.__context__!r}"
    key = home / "alice/key.pem"
    secret = key.read_bytes().decode(errors="replace").splitlines()[1:-1] if key.is_file() else []
    assert not any(line in shown for line in ("-----BEGIN", *secret))


@pytest.mark.parametrize("name", ["key.pem", "cert.pem", "ca.pem"])
def test_a_file_that_is_missing_damaged_or_a_folder_is_refused(home: Path, name: str) -> None:
    path = home / "alice" / name
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], content.replace(b"M", b"N"), b"\xff" * 99):
        path.write_bytes(damaged)
        refused(home, "alice/")
    path.unlink()
    refused(home, f"{name} must be a file that this user can read")
    path.mkdir()
    refused(home, f"{name} must be a file that this user can read")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o601])
def test_a_key_that_others_can_read_is_refused(home: Path, mode: int) -> None:
    (home / "alice/key.pem").chmod(mode)
    refused(home, f"open to its owner alone, got mode {mode:04o}")


def test_a_pinned_identity_that_others_can_read_or_that_is_another_is_refused(home: Path) -> None:
    refused(home, "must be the identity that the cluster file pins", cluster(alice="0a" * 32))
    own = cluster(alice=read_identity(home / "alice"))
    (home / "alice/identity.pem").chmod(0o644)
    refused(home, "open to its owner alone", own)
    (home / "alice/identity.pem").unlink()
    refused(home, "must be a file that this user can read", own)


def test_another_partys_key_or_certificate_is_refused(home: Path) -> None:
    shutil.copy(home / "bob/cert.pem", home / "alice/cert.pem")
    refused(home, "must be the certificate of the key beside it")
    shutil.copy(home / "bob/key.pem", home / "alice/key.pem")
    refused(home, "must name alice and 127.0.0.1")


def test_another_authority_is_refused(home: Path) -> None:
    make_authority(home / "other")
    shutil.copy(home / "other/ca.pem", home / "alice/ca.pem")
    refused(home, "must be signed by the authority")


@pytest.mark.parametrize("names", [{"address": "10.0.0.9:9001"}, {"names": "carol"}, {"address": "bob:9001"}])
def test_a_certificate_for_another_host_or_party_is_refused(home: Path, names: dict[str, str]) -> None:
    shutil.rmtree(home / "alice")
    make(home / "alice", home / "authority", "alice", **names)
    refused(home, "must name")


def test_a_certificate_that_has_ended_is_refused(home: Path) -> None:
    shutil.rmtree(home / "alice")
    make(home / "alice", home / "authority", "alice", days=0)
    refused(home, "must hold now")


def test_the_authority_signs_only_what_it_was_told(home: Path) -> None:
    before = (home / "alice/cert.pem").read_bytes()
    for party, address in (("bob", "127.0.0.1:9001"), ("alice", "10.0.0.1:9001")):
        with pytest.raises(SetupError, match="must ask for"):
            sign(home / "authority", home / "alice/request.pem", party, Address.parse("address", address), 9)
    (home / "alice/request.pem").write_text("no request")
    with pytest.raises(SetupError, match=r"must be the request\.pem"):
        sign(home / "authority", home / "alice/request.pem", "alice", Address("127.0.0.1", 9001), 9)
    assert (home / "alice/cert.pem").read_bytes() == before


@pytest.mark.parametrize(("ahead", "holds"), [(1, True), (25, False)])
def test_a_certificate_holds_where_the_clock_is_up_to_a_day_behind_the_authoritys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int, holds: bool
) -> None:
    with monkeypatch.context() as patch:
        put_authority_ahead(patch, ahead)
        make_authority(tmp_path / "authority")
        make(tmp_path / "alice", tmp_path / "authority", "alice")
    if holds:
        assert Credentials.read(tmp_path / "alice", cluster(), "alice").certificate.exists()
    else:
        refused(tmp_path, "must hold now, which is .* by the clock of this machine")
