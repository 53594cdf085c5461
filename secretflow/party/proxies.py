"""RayFed's ends of the channels between parties, made strict.

RayFed's own receiver listens on all addresses, takes a message for anybody's whatever certificate it came
with, and unpickles it. The ends here listen on one address, take from each party its own messages alone, and
read :mod:`~secretflow.party.messages`.
"""

from __future__ import annotations

import asyncio
import io
import logging
import pickle
import time
from collections.abc import Mapping
from typing import Any

import grpc
from fed.proxy.grpc.grpc_proxy import GrpcReceiverProxy, GrpcSenderProxy, fed_pb2, fed_pb2_grpc
from fed.utils import dict2tuple, load_cert_config

from secretflow.party.address import Address
from secretflow.party.errors import UnreachableError
from secretflow.party.messages import MessageError, pack, unpack

_REFUSED = 403
_SECONDS_UNTIL_SAID = 60.0
"""How long a party waits for another's value before it says so."""

_SECONDS_BETWEEN_LOOKS = 10.0


class Sender(GrpcSenderProxy):
    """Sends to a party only if the certificate at the other end names this party."""

    async def send(self, dest_party: str, data: Any, upstream_seq_id: str, downstream_seq_id: str) -> str:
        """Sends a value and returns the answer.

        Raises:
            MessageError: it must not travel.
        """
        packed = pack(data)
        answer: str = await super().send(dest_party, packed, upstream_seq_id, downstream_seq_id)
        return answer

    def get_grpc_config_by_party(self, dest_party: str) -> tuple[Any, tuple[tuple[str, Any], ...]]:
        """gRPC's metadata and options of the channel to a party."""
        metadata, options = super().get_grpc_config_by_party(dest_party)
        # The host alone would not do: several parties may share one.
        return metadata, (*options, ("grpc.ssl_target_name_override", dest_party))


class Receiver(GrpcReceiverProxy, fed_pb2_grpc.GrpcServiceServicer):
    """Listens on one address and keeps each message until it is asked for, under the name of its sender.

    With TLS the sender is who the certificate names, which must be exactly one party of the cluster. Without
    it nobody knows.

    Args:
        listen_addr: host and port.
        party: own name.
        job_name: messages of other jobs are refused.
        tls_config: paths of ``key``, ``cert`` and ``ca_cert``; empty without TLS.
        proxy_config: RayFed's.
        others: where the other parties are reached.
        patience: seconds after which a party of whom a value is waited for, and that cannot be reached, has
            ended.
    """

    def __init__(
        self,
        listen_addr: str,
        party: str,
        job_name: str,
        tls_config: dict[str, str],
        proxy_config: dict[str, Any],
        *,
        others: Mapping[str, Address],
        patience: float,
    ) -> None:
        super().__init__(listen_addr, party, job_name, tls_config, proxy_config)
        self._others = others
        self._parties = frozenset((party, *others))
        self._patience = patience
        self._messages: dict[tuple[str, str, str], asyncio.Future[bytes]] = {}
        self._named: set[str] = set()  # of whom it is said that they are late
        self._watches: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Listens until the process ends."""
        server = grpc.aio.server(options=dict2tuple(self._grpc_options))
        fed_pb2_grpc.add_GrpcServiceServicer_to_server(self, server)
        try:
            if self._listen(server) == 0:
                raise RuntimeError("the port is taken")
            await server.start()
            self._server_ready_future.set_result((True, ""))
            await server.wait_for_termination()
        except (RuntimeError, OSError) as error:
            self._server_ready_future.set_result((False, f"cannot listen on {self._listen_addr}: {error}"))
        finally:
            await server.stop(None)

    def _listen(self, server: grpc.aio.Server) -> int:
        if not self._tls_config:
            return int(server.add_insecure_port(self._listen_addr))
        authority, key, certificate = load_cert_config(self._tls_config)
        return int(
            server.add_secure_port(
                self._listen_addr,
                grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=True),
            )
        )

    async def SendData(  # noqa: N802, the name is RayFed's
        self, request: fed_pb2.SendDataRequest, context: grpc.aio.ServicerContext
    ) -> fed_pb2.SendDataResponse:
        """Takes a message."""
        sender = self._sender(context)
        if sender is None or request.job_name != self._job_name:
            what = "a certificate that names one party" if sender is None else "the same cluster file"
            return fed_pb2.SendDataResponse(code=_REFUSED, result=f"{self._party} wants {what}")
        message = self._message(sender, request.upstream_seq_id, request.downstream_seq_id)
        if not message.done():  # a repetition changes nothing
            message.set_result(request.data)
        return fed_pb2.SendDataResponse(code=200, result="OK")

    async def get_data(self, src_party: str, upstream_seq_id: str, curr_seq_id: str) -> Any:
        """Waits for a message of a party.

        Raises:
            MessageError: what came is none.
            UnreachableError: nothing came, and the party cannot be reached any more.
        """
        sender = src_party if self._tls_config else ""
        message = self._message(sender, upstream_seq_id, curr_seq_id)
        data = await self._arrived(src_party, message)
        del self._messages[sender, str(upstream_seq_id), str(curr_seq_id)]
        return unpack(_unwrap(data))

    async def _arrived(self, src_party: str, message: asyncio.Future[bytes]) -> bytes:
        """Waits, says for whom if that is long, and ends with a party that has: it sends nothing, ever."""
        either: set[asyncio.Future[Any]] = {message, self._watch(src_party)}
        late = not (await _first_of(either, _SECONDS_UNTIL_SAID))
        if late and src_party not in self._named:
            self._named.add(src_party)
            logging.warning(
                "%s has waited %g seconds for a value of %s, which is at work, is stuck, or has ended: "
                "its log says which",
                self._party,
                _SECONDS_UNTIL_SAID,
                src_party,
            )
        await _first_of(either)
        if not message.done():
            raise UnreachableError(
                f"{src_party} must send a value to {self._party}, got none, and for {self._patience:g} "
                f"seconds no answer at {self._others[src_party]}: it has ended or is cut off"
            )
        self._named.discard(src_party)
        return message.result()

    def _watch(self, party: str) -> asyncio.Task[None]:
        """What ends when a party cannot be reached; one for all that wait for it."""
        watch = self._watches.get(party)
        if watch is None or watch.done():
            watch = asyncio.create_task(_until_unreachable(self._others[party], self._patience))
            self._watches[party] = watch
        return watch

    def _message(self, sender: str, upstream: object, downstream: object) -> asyncio.Future[bytes]:
        return self._messages.setdefault((sender, str(upstream), str(downstream)), asyncio.Future())

    def _sender(self, context: grpc.aio.ServicerContext) -> str | None:
        """Who sends; None if the certificate does not say it."""
        if not self._tls_config:
            return ""
        names = context.auth_context().get("x509_subject_alternative_name", ())
        named = [*self._parties.intersection(name.decode(errors="replace") for name in names)]
        return named[0] if len(named) == 1 else None


async def _first_of(
    events: set[asyncio.Future[Any]], seconds: float | None = None
) -> set[asyncio.Future[Any]]:
    """Those of several that have come about, as soon as one has or time is over."""
    done, _ = await asyncio.wait(events, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    return done


async def _until_unreachable(address: Address, patience: float) -> None:
    """Waits until every try for so many seconds has failed to reach an address."""
    failing_since = None
    while True:
        # Only tries count, not the clock alone: this process may have stood still itself.
        if await asyncio.to_thread(address.answers):
            failing_since = None
        else:
            failing_since = failing_since or time.monotonic()
            if time.monotonic() - failing_since >= patience:
                return
        await asyncio.sleep(min(_SECONDS_BETWEEN_LOOKS, patience))


class _Unwrapper(pickle.Unpickler):
    """Reads the bytes that RayFed's sender pickles; with no name allowed, pickle can call nothing."""

    def find_class(self, module: str, name: str) -> Any:
        raise MessageError("what arrives must be a message, got a pickle that names something to call")

    def persistent_load(self, pid: Any) -> Any:
        raise MessageError("what arrives must be a message, got a pickle that refers to something")


def _unwrap(data: bytes) -> bytes:
    try:
        content = _Unwrapper(io.BytesIO(data)).load()
    except MessageError:
        raise
    except Exception as error:  # whatever hostile bytes bring about
        raise MessageError(
            f"what arrives must be a message, got bytes that end in {type(error).__name__}"
        ) from None
    if type(content) is not bytes:
        raise MessageError(f"what arrives must be a message, got a pickled {type(content).__name__}")
    return content
