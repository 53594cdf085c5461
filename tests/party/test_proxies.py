"""The ends of the channels between parties: who may send what to whom, over real connections."""

from __future__ import annotations

import asyncio
import itertools
import logging
import pickle
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import cloudpickle
import grpc
import pytest
from fed.proxy.grpc.grpc_proxy import fed_pb2, fed_pb2_grpc

from secretflow.party import proxies
from secretflow.party.address import Address
from secretflow.party.authority import make_authority, sign
from secretflow.party.errors import UnreachableError
from secretflow.party.keys import make_party
from secretflow.party.messages import MessageError
from secretflow.party.proxies import Receiver, Sender

JOB = "job"
PARTIES = frozenset(("alice", "bob", "carol"))
SECONDS = 10.0
NOBODY = Address("127.0.0.9", 9)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of the parties and ``mallory`` of one authority, and of ``stranger`` of another."""
    home = tmp_path_factory.mktemp("parties")
    for authority, parties in (("authority", (*sorted(PARTIES), "mallory")), ("other", ("stranger",))):
        make_authority(home / authority)
        for party in parties:
            name = "bob" if party == "stranger" else party
            make_party(home / party, name, Address("127.0.0.1", 9001))
            sign(home / authority, home / party / "request.pem", name, Address("127.0.0.1", 9001), 1)
    return home


def tls(folder: Path) -> dict[str, str]:
    return {
        "key": str(folder / "key.pem"),
        "cert": str(folder / "cert.pem"),
        "ca_cert": str(folder / "ca.pem"),
    }


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as one:
        one.bind((host, 0))
        return int(one.getsockname()[1])


class Party:
    """Alice's receiver, and what others send to it."""

    def __init__(self, receiver: Receiver, address: str) -> None:
        self.receiver, self.address = receiver, address

    async def send(self, credentials: dict[str, str], value: Any, where: tuple[str, str] = ("1", "2")) -> str:
        sender = Sender({"alice": self.address}, "bob", JOB, credentials, {"timeout_in_ms": 2000})
        return await asyncio.wait_for(sender.send("alice", value, *where), SECONDS)

    async def get(self, source: str, where: tuple[str, str] = ("1", "2")) -> Any:
        return await asyncio.wait_for(self.receiver.get_data(source, *where), SECONDS)


@asynccontextmanager
async def alice(
    credentials: dict[str, str], host: str = "127.0.0.1", others: Address = NOBODY, patience: float = 600
) -> AsyncIterator[Party]:
    """Alice's receiver; Bob and Carol are reached at one address."""
    address = f"{host}:{free_port(host)}"
    receiver = Receiver(
        address, "alice", JOB, credentials, {}, others={"bob": others, "carol": others}, patience=patience
    )
    serving = asyncio.create_task(receiver.start())
    assert (await receiver.is_ready())[0]
    try:
        yield Party(receiver, address)
    finally:
        serving.cancel()
        await asyncio.wait([serving])


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


def test_a_partys_message_arrives(folders: Path) -> None:
    async def test() -> None:
        async with alice(tls(folders / "alice")) as party:
            assert await party.send(tls(folders / "bob"), {"a": (1, [2.5])}) == "OK"
            assert await party.get("bob") == {"a": (1, [2.5])}

    run(test)


@pytest.mark.parametrize("who", ["stranger", None])
def test_without_a_certificate_of_the_authority_nothing_is_taken(folders: Path, who: str | None) -> None:
    async def test() -> None:
        async with alice(tls(folders / "alice")) as party:
            for credentials in (
                ({}, {**tls(folders / who), "ca_cert": tls(folders / "bob")["ca_cert"]}) if who else ({},)
            ):
                with pytest.raises((grpc.RpcError, asyncio.TimeoutError)):
                    await party.send(credentials, "poison")
            assert not party.receiver._messages

    run(test)


def test_tls_without_a_client_certificate_is_refused(folders: Path) -> None:
    async def test() -> None:
        async with alice(tls(folders / "alice")) as party:
            trusted = grpc.ssl_channel_credentials((folders / "bob/ca.pem").read_bytes())
            options = (("grpc.ssl_target_name_override", "alice"),)
            async with grpc.aio.secure_channel(party.address, trusted, options) as channel:
                with pytest.raises(grpc.RpcError):
                    await fed_pb2_grpc.GrpcServiceStub(channel).SendData(
                        fed_pb2.SendDataRequest(data=b"", job_name=JOB), timeout=3
                    )
            assert not party.receiver._messages

    run(test)


def test_a_member_of_the_authority_that_is_no_party_is_refused(folders: Path) -> None:
    async def test() -> None:
        async with alice(tls(folders / "alice")) as party:
            with pytest.raises(RuntimeError, match="a certificate that names one party"):
                await party.send(tls(folders / "mallory"), 1)
            assert not party.receiver._messages

    run(test)


def test_a_party_cannot_send_in_anothers_name(folders: Path) -> None:
    async def test() -> None:
        async with alice(tls(folders / "alice")) as party:
            await party.send(tls(folders / "carol"), "of carol")
            waiting = asyncio.create_task(party.get("bob"))
            await party.send(tls(folders / "bob"), "of bob")
            assert await waiting == "of bob" and await party.get("carol") == "of carol"

    run(test)


class Heard(logging.Handler):
    """What is logged without a logger's name, as the receiver does, and a word that something was."""

    def __init__(self) -> None:
        super().__init__()
        self.said, self.something = list[str](), asyncio.Event()
        self.addFilter(lambda record: record.name == "root")  # others' servers that have ended speak up late

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())
        self.something.set()


def test_who_is_waited_for_long_is_named_once(
    folders: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)  # whatever a start of SecretFlow has set
    monkeypatch.setattr(proxies, "_SECONDS_UNTIL_SAID", 0.0)

    async def test() -> None:
        heard = Heard()
        logging.getLogger().addHandler(heard)
        try:
            async with alice(tls(folders / "alice")) as party:
                waiting = [asyncio.create_task(party.get("carol", ("1", k))) for k in "23"]
                await heard.something.wait()
                for k in "23":
                    await party.send(tls(folders / "carol"), k, ("1", k))
                assert [await one for one in waiting] == ["2", "3"]
        finally:
            logging.getLogger().removeHandler(heard)
        assert len(heard.said) == 1 and "alice has waited 0 seconds for a value of carol" in heard.said[0]

    run(test)


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxies, "_SECONDS_BETWEEN_LOOKS", 0.01)


def test_the_wait_for_a_party_that_has_ended_ends_with_its_name(quick_looks: None) -> None:
    async def test() -> None:
        async with alice({}, patience=0.2) as party:
            await party.send({}, "in time", ("1", "3"))
            waiting = [asyncio.create_task(party.get("carol", ("1", k))) for k in "234"]
            for one in (waiting[0], waiting[2]):
                with pytest.raises(UnreachableError, match=f"carol must send .* at {NOBODY}: it has ended"):
                    await one
            assert await waiting[1] == "in time"

    run(test)


class Flickering(Address):
    """Answers every other time; ``looks`` counts."""

    looks: ClassVar[Iterator[int]]
    seen_often: ClassVar[threading.Event]

    def answers(self) -> bool:
        look = next(Flickering.looks)
        if look == 100:
            Flickering.seen_often.set()
        return look % 2 == 1


def test_a_party_that_is_reached_again_is_waited_for(quick_looks: None) -> None:
    async def test() -> None:
        Flickering.looks, Flickering.seen_often = itertools.count(), threading.Event()
        async with alice({}, others=Flickering("127.0.0.9", 9), patience=0.5) as party:
            waiting = asyncio.create_task(party.get("bob"))
            assert await asyncio.to_thread(Flickering.seen_often.wait, SECONDS)
            await party.send({}, "late")
            assert await waiting == "late"

    run(test)


def test_a_sender_refuses_a_receiver_whose_certificate_names_another_party(folders: Path) -> None:
    async def test() -> None:
        async with alice(tls(folders / "carol")) as carol:
            with pytest.raises((grpc.RpcError, asyncio.TimeoutError)):
                await carol.send(tls(folders / "bob"), "for alice alone")
            assert not carol.receiver._messages

    run(test)


def test_parties_with_other_cluster_files_do_not_understand_each_other(folders: Path) -> None:
    async def test() -> None:
        async with alice(tls(folders / "alice")) as party:
            sender = Sender({"alice": party.address}, "bob", "another job", tls(folders / "bob"), {})
            with pytest.raises(RuntimeError, match="the same cluster file"):
                await sender.send("alice", 1, "1", "2")

    run(test)


@pytest.mark.parametrize("with_tls", [True, False])
def test_a_poisoned_message_runs_nothing(folders: Path, tmp_path: Path, with_tls: bool) -> None:
    target = tmp_path / "made"

    class Touch:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (target,))

    async def test() -> None:
        async with alice(tls(folders / "alice") if with_tls else {}) as party:
            key, certificate = ((folders / "bob" / name).read_bytes() for name in ("key.pem", "cert.pem"))
            credentials = grpc.ssl_channel_credentials(
                (folders / "bob/ca.pem").read_bytes(), key, certificate
            )
            options = (("grpc.ssl_target_name_override", "alice"),)
            channel = (
                grpc.aio.secure_channel(party.address, credentials, options)
                if with_tls
                else grpc.aio.insecure_channel(party.address)
            )
            async with channel:
                for k, poisoned in enumerate(
                    (cloudpickle.dumps(Touch()), pickle.dumps(cloudpickle.dumps(Touch())))
                ):
                    request = fed_pb2.SendDataRequest(
                        data=poisoned, upstream_seq_id="1", downstream_seq_id=str(k), job_name=JOB
                    )
                    await fed_pb2_grpc.GrpcServiceStub(channel).SendData(request, timeout=SECONDS)
                    with pytest.raises(MessageError):
                        await party.get("bob", ("1", str(k)))

    run(test)
    assert not target.exists()
    pickle.loads(cloudpickle.dumps(Touch()))
    assert target.exists()  # it is a poison


def test_a_receiver_listens_on_its_address_alone() -> None:
    async def test() -> None:
        async with alice({}, host="127.0.0.2") as party:
            host, port = party.address.split(":")
            socket.create_connection((host, int(port)), timeout=SECONDS).close()
            for other in ("127.0.0.1", "127.0.0.3", socket.gethostbyname(socket.gethostname())):
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection((other, int(port)), timeout=SECONDS)

    run(test)


def test_a_port_that_is_taken_is_said() -> None:
    async def test() -> None:
        async with alice({}) as party:
            second = Receiver(party.address, "alice", JOB, {}, {}, others={}, patience=600)
            await second.start()
            is_ready, why = await second.is_ready()
            assert not is_ready and party.address in why

    run(test)
