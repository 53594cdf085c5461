"""The command line says what is wrong before it starts anything, and never what is secret."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from secretflow.party.__main__ import main, make_parser
from secretflow.party.errors import SetupError
from secretflow.party.training import find_function

ADDRESSES = {"alice": "127.0.0.1:9001", "bob": "127.0.0.1:9002"}
OUTSIDE = "10.0.0.2:9002"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A folder with ``alice-keys``, ``bob-keys``, the ``authority`` and a cluster file for them."""
    monkeypatch.chdir(tmp_path)
    assert main(["authority", "authority"]) == 0
    parties = {}
    for party, address in ADDRESSES.items():
        who = ["--party", party, "--address", address]
        assert main(["init", *who]) == 0
        identity = capsys.readouterr().out.split()[-1]
        assert main(["sign", f"{party}-keys/request.pem", "--authority", "authority", *who]) == 0
        parties[party] = {"address": address, "identity": identity}
    write(tmp_path, parties=parties)
    capsys.readouterr()
    return tmp_path


def write(home: Path, **changes: Any) -> None:
    path = home / "cluster.json"
    before = (
        json.loads(path.read_text()) if path.exists() else {"server": "bob", "trainers": ["alice", "bob"]}
    )
    path.write_text(json.dumps({**before, **changes}))


def call(*arguments: str, command: str = "run", party: str = "alice") -> int:
    return main([command, "--party", party, "--cluster", "cluster.json", *arguments])


def test_help_names_all_commands_and_flags_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from secretflow.party.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(*({'torch', 'ray', 'numpy', 'fed', 'jax', 'cryptography'} & set(sys.modules)))"
    )
    for name in ("init", "authority", "sign", "check", "run"):
        done = subprocess.run(
            [sys.executable, "-c", code, name, "--help"], capture_output=True, text=True, check=True
        )
        *shown, heavy = done.stdout.split("\n")[:-1]
        assert heavy == "" and len(shown) > 3
    commands = make_parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    assert commands is not None and set(commands) == {"init", "authority", "sign", "check", "run"}
    for parser in commands.values():
        assert all(action.help for action in parser._actions)


def test_check_shows_the_fingerprint_that_all_share(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for party in ADDRESSES:
        assert call("--tls", f"{party}-keys", command="check", party=party) == 0
        shown.append(capsys.readouterr().out.splitlines())
    assert shown[0][0] == shown[1][0] and shown[0][-1].startswith("TLS: key, certificate and authority fit")
    assert call(command="check") == 0 and capsys.readouterr().out.splitlines()[-1] == "no TLS"


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tls", "nowhere"], "must be a file that this user can read"),
        (["--tls", "bob-keys"], "must name alice"),
        (["--tls", "alice-keys", "--insecure"], "--insecure must not be given together with --tls"),
        (["--listen", "0.0.0.0:9001"], "--tls FOLDER must be given where an address is not loopback"),
        (["--listen", "9001"], "--listen must be host:port"),
    ],
)
def test_what_does_not_fit_is_said_before_a_start(
    home: Path, capsys: pytest.CaptureFixture[str], command: str, arguments: list[str], message: str
) -> None:
    assert call(*arguments, command=command) == 2
    assert message in capsys.readouterr().err


def test_a_malformed_training_function_is_said_by_the_check(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(home, train="ward.train")
    assert call("--tls", "alice-keys", command="check") == 2
    assert "must be module:function, got 'ward.train'" in capsys.readouterr().err


@pytest.mark.parametrize("days", ["0", "36501", "99999999"])
def test_days_that_no_certificate_can_hold_are_refused(
    home: Path, capsys: pytest.CaptureFixture[str], days: str
) -> None:
    request = ["sign", "alice-keys/request.pem", "--authority", "authority", "--days", days]
    assert main([*request, "--party", "alice", "--address", ADDRESSES["alice"]]) == 2
    assert f"--days must be from 1 to 36500, got {days}" in capsys.readouterr().err


def test_tls_is_wanted_for_every_address_that_is_not_loopback(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parties = json.loads((home / "cluster.json").read_text())["parties"]
    write(home, parties={**parties, "bob": {**parties["bob"], "address": OUTSIDE}})
    assert call(command="check") == 2
    assert f"not loopback, got {OUTSIDE}; --insecure lets everybody" in capsys.readouterr().err
    assert call(command="check", party="bob") == 2  # who listens there, too
    assert f"not loopback, got {OUTSIDE}; --insecure lets everybody" in capsys.readouterr().err
    assert call("--insecure", command="check") == 0
    assert call("--tls", "alice-keys", command="check") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--party", "dave"], "--party must be one of"),
        (["--cluster", "nowhere.json"], "nowhere.json must be readable JSON"),
        (["--wait", "0"], "--wait must be above 0"),
        (["--wait", "nan"], "--wait must be above 0"),
        (["--option", "data"], "--option must be NAME=VALUE"),
        ([], "must be module:function, got None"),
        (["--train", "module"], "must be module:function, got 'module'"),
        (["--train", "json:tool:main"], "must be module:function, got 'json:tool:main'"),
        (["--train", "train.py:main()"], "must be module:function, got 'train.py:main()'"),
    ],
)
def test_what_a_run_needs_is_said(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert call(*arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "function", "message"),
    [
        ("nowhere.at_all", "train", "must name a module that Python finds"),
        ("json.nowhere", "train", "must name a module that Python finds"),
        ("json", "train", "must name a function of json"),
        ("json", "__name__", "must name a function of json"),
    ],
)
def test_a_training_function_that_is_not_there_is_said(module: str, function: str, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        find_function(module, function)


def test_what_a_users_module_lacks_is_not_taken_for_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lacking_module.py").write_text("import nowhere_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        find_function("lacking_module", "train")


def test_a_port_that_is_taken_or_another_machines_is_said(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ("--train", "json:dumps")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert call(*train, "--listen", f"127.0.0.1:{taken.getsockname()[1]}") == 2
    assert "--listen must be a free port of this machine" in capsys.readouterr().err
    assert call(*train, "--insecure", "--listen", "192.0.2.77:9001") == 2
    assert "--listen must be a free port of this machine" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["key.pem", "identity.pem"])
@pytest.mark.parametrize("harm", ["open", "damaged", "missing", "another"])
def test_failing_runs_show_no_secret(
    home: Path, capsys: pytest.CaptureFixture[str], name: str, harm: str
) -> None:
    path = home / "alice-keys" / name
    content = path.read_text()
    secrets = [*content.splitlines()[1:-1], *(home / "bob-keys" / name).read_text().splitlines()[1:-1]]
    if harm == "open":
        path.chmod(0o644)
    elif harm == "damaged":
        path.write_text(content.replace("-----END", content.splitlines()[1][:9] + "\n-----END"))
    elif harm == "missing":
        path.unlink()
    else:
        shutil.copy(home / "bob-keys" / name, path)
    assert call("--tls", "alice-keys") == 2
    shown = "".join(capsys.readouterr())
    assert f"alice-keys/{name}" in shown or "alice-keys/cert.pem must be the certificate of the key" in shown
    assert "-----BEGIN" not in shown and not any(line in shown for line in secrets)


def test_no_file_is_there_that_others_can_write_or_whose_secret_they_can_read(home: Path) -> None:
    for path in home.rglob("*.pem"):
        forbidden = 0o077 if path.name in ("key.pem", "identity.pem") else 0o022
        assert path.stat().st_mode & forbidden == 0, path


@pytest.mark.slow
def test_a_party_whose_others_do_not_come_ends_in_time_and_leaves_nothing(home: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "secretflow.party",
        "run",
        "--party",
        "alice",
        "--cluster",
        "cluster.json",
    ]
    command += ["--tls", "alice-keys", "--train", "json:dumps", "--wait", "1"]
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:  # short enough for Ray's sockets
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "TMPDIR": temporary}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 2, done.stderr[-3000:]
        assert "bob must start within --wait 1 seconds, got no answer at 127.0.0.1:9002" in done.stderr
        assert not list(Path(temporary).glob("secretflow-*")) and not (home / "alice").exists()


def test_a_folder_too_deep_for_rays_sockets_is_said(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = home / ("d" * 60)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    assert call("--train", "json:dumps", "--listen", address) == 2
    assert "TMPDIR must be a path short enough" in capsys.readouterr().err
    assert list(deep.iterdir()) == []
