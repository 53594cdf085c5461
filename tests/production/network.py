"""Where three parties of a test are: on loopback, or each in a network namespace of its own."""

from __future__ import annotations

import os
import random
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

PARTIES = ("alice", "bob", "carol")
PORT = 20001
_LISTENS = "0A"  # in /proc/net/tcp


@dataclass(frozen=True)
class Network:
    """A network of three parties and of a stranger.

    Attributes:
        addresses: of the parties, host and port.
        namespaces: of the parties and of ``stranger``; empty on loopback.
    """

    addresses: dict[str, str]
    namespaces: dict[str, str] = field(default_factory=dict)

    def inside(self, name: str, command: list[str]) -> list[str]:
        """A command as it is run at a party or by the stranger."""
        return ["ip", "netns", "exec", self.namespaces[name], *command] if self.namespaces else command


def loopback() -> Network:
    """Three free ports of this machine."""
    ports = free_ports(len(PARTIES))
    return Network({party: f"127.0.0.1:{port}" for party, port in zip(PARTIES, ports, strict=True)})


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 on which nobody listens, below those that systems give to whoever asks for any."""
    found: list[int] = []
    for port in random.sample(range(10000, 30000), 1000):
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            break
    return found


@contextmanager
def namespaces() -> Iterator[Network]:
    """Four namespaces on one bridge, whose addresses exist nowhere else.

    Raises:
        PermissionError: this user, or this machine, may not make them.
    """
    names = {name: f"sf{os.getpid()}-{name}" for name in (*PARTIES, "stranger")}
    with ExitStack() as stack:
        for name in names.values():
            _ip("netns", "add", name)
            stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False, capture_output=True)
            _ip("-n", name, "link", "set", "lo", "up")
        hub = names["stranger"]
        _ip("-n", hub, "link", "add", "hub", "type", "bridge")
        _ip("-n", hub, "addr", "add", "10.77.0.254/24", "dev", "hub")
        _ip("-n", hub, "link", "set", "hub", "up")
        for k, party in enumerate(PARTIES, 1):
            _ip("-n", hub, "link", "add", party, "type", "veth", "peer", "eth0", "netns", names[party])
            _ip("-n", hub, "link", "set", party, "master", "hub", "up")
            _ip("-n", names[party], "addr", "add", f"10.77.0.{k}/24", "dev", "eth0")
            _ip("-n", names[party], "link", "set", "eth0", "up")
        yield Network({party: f"10.77.0.{k}:{PORT}" for k, party in enumerate(PARTIES, 1)}, names)


def _ip(*arguments: str) -> None:
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    except FileNotFoundError as error:
        raise PermissionError("the program ip (iproute2) is not installed") from error
    if done.returncode != 0:
        raise PermissionError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def processes(mark: str) -> dict[int, str]:
    """Command lines, by number, of all processes with a word in their environment."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                if mark.encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it has gone
                continue
    return found


def listening(pids: list[int], *, all_of_namespace: bool) -> dict[tuple[str, int], str]:
    """Addresses and ports that processes listen on, with the names of the processes.

    Args:
        pids: of one network namespace.
        all_of_namespace: whether to give those of all processes of the namespace.
    """
    owner = {}
    for pid in pids:
        try:
            links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            continue
        owner.update({link: name for link in links if link.startswith("socket:")})
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pids[0]}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            process = owner.get(f"socket:[{inode}]")
            if state == _LISTENS and (process or all_of_namespace):
                host, port = local.split(":")
                found[_host(host), int(port, 16)] = process or "?"
    return found


def _host(digits: str) -> str:
    words = [bytes.fromhex(digits[k : k + 8])[::-1] for k in range(0, len(digits), 8)]
    if len(words) == 1 or words[:3] == [bytes(4), bytes(4), b"\0\0\xff\xff"]:
        return socket.inet_ntop(socket.AF_INET, words[-1])
    return socket.inet_ntop(socket.AF_INET6, b"".join(words))
