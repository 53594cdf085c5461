"""Starts a party: its private Ray, its end of the channels to the others, and the wait for them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from secretflow.party.address import Address
from secretflow.party.cluster import Cluster
from secretflow.party.credentials import Credentials
from secretflow.party.errors import SetupError

if TYPE_CHECKING:
    from secretflow.security.aggregation.secagg.dropouts.survival import Streams
    from secretflow.security.aggregation.secagg.identity import Identities

_SECONDS_BETWEEN_TRIES = 1.0


@dataclass(frozen=True)
class Place:
    """How a party takes part.

    Attributes:
        cluster: that it belongs to.
        party: its name.
        listen: where it listens.
        credentials: for TLS with client certificates; None does without.
        wait: seconds until all other parties must have started; who cannot be reached for as long later on
            has ended.
        folder: the party's own, for what it keeps; it need not be there.
    """

    cluster: Cluster
    party: str
    listen: Address
    credentials: Credentials | None
    wait: float
    folder: Path

    @property
    def others(self) -> dict[str, Address]:
        """Where the other parties are reached."""
        members = self.cluster.members.items()
        return {party: member.address for party, member in members if party != self.party}


def check_protection(
    cluster: Cluster, listen: Address, credentials: Credentials | None, insecure: bool
) -> None:
    """Checks that messages are protected wherever they leave the machine.

    Args:
        cluster: with all addresses.
        listen: where this party listens.
        credentials: for TLS; None does without.
        insecure: whether the user wants to do without.

    Raises:
        SetupError: they are not, or TLS is both given and refused.
    """
    if credentials is not None and insecure:
        raise SetupError("--insecure must not be given together with --tls")
    addresses = [listen, *(member.address for member in cluster.members.values())]
    addresses += [cluster.streams] if cluster.streams else []
    outside = dict.fromkeys(str(address) for address in addresses if not address.is_loopback)
    if credentials is None and outside and not insecure:
        raise SetupError(
            f"--tls FOLDER must be given where an address is not loopback, got {', '.join(outside)}; "
            "--insecure lets everybody on the way read and change all messages"
        )


@contextmanager
def started(place: Place, ray_options: Mapping[str, Any]) -> Iterator[None]:
    """Has SecretFlow run for this party; ends it with the context, whether that ends well or not.

    Args:
        place: how the party takes part.
        ray_options: arguments of ``ray.init``, from :func:`~secretflow.party.private_ray.private_ray`.

    Raises:
        SetupError: the port is taken, or another party did not come in time.
    """
    import secretflow as sf
    from secretflow.party.ending import Ending
    from secretflow.security.aggregation.secagg.dropouts.survival import set_streams
    from secretflow.security.aggregation.secagg.identity import set_identities

    try:
        with _strict_channels(place):
            _init(place, ray_options)
        with Ending().watched():
            _meet(place)
            set_identities(_identities(place))
            set_streams(_streams(place))
            yield
    except BaseException:
        # No barrier: the others may be waiting for what will not come.
        sf.shutdown(barrier_on_shutdown=False, on_error=True)
        raise
    sf.shutdown(barrier_on_shutdown=place.cluster.streams is None)


def _identities(place: Place) -> Identities | None:
    """Who the trainers are, for the aggregation to check; None where one of them is not pinned."""
    from secretflow.security.aggregation.secagg.identity import Identities

    cluster, credentials = place.cluster, place.credentials
    pinned = {party: cluster.members[party].identity for party in cluster.trainers}
    known = {party: identity for party, identity in pinned.items() if identity is not None}
    if credentials is None or len(known) < len(pinned):
        print(
            "the public keys of the aggregation are not signed: pin every trainer's identity in the cluster "
            "file and give --tls, or compare the fingerprint that each party logs",
            file=sys.stderr,
        )
        return None
    return Identities(known, credentials.identity)


def _streams(place: Place) -> Streams | None:
    """Where the streams run of a training that goes on when it loses a party."""
    from secretflow.security.aggregation.secagg.dropouts.survival import Streams
    from secretflow.security.aggregation.secagg.transport.network.tls import Tls

    cluster, credentials, address = place.cluster, place.credentials, place.cluster.streams
    if address is None:
        return None
    own = cluster.members[place.party].address
    # Who listens on another address than the others use does so for streams as well.
    host = address.host if place.listen == own else place.listen.host
    tls = None
    if credentials is not None:
        tls = Tls(credentials.key, credentials.certificate, credentials.authority)
    listen = f"{host}:{address.port}"
    return Streams(
        place.party, str(address), listen, cluster.server, tls, place.wait, place.folder.absolute()
    )


def _init(place: Place, ray_options: Mapping[str, Any]) -> None:
    import secretflow as sf

    # In one order at all parties: SecretFlow goes through them in this order at the end.
    addresses = {
        party: {"address": str(place.listen if party == place.party else member.address)}
        for party, member in place.cluster.members.items()
    }
    try:
        sf.init(
            address="local",
            cluster_config={"parties": addresses, "self_party": place.party},
            cross_silo_comm_options={
                # Should RayFed's own receiver ever take the place of ours, it lets nothing through.
                "serializing_allowed_list": {},
                "expose_error_trace": False,  # an exception may quote private data
            },
            job_name=place.cluster.fingerprint,
            enable_waiting_for_other_parties_ready=False,  # RayFed's wait takes a refusal for a welcome
            logging_level="warning",
            **ray_options,
        )
    except AssertionError as error:  # RayFed's word for a port that is taken
        raise SetupError(str(error)) from None


@contextmanager
def _strict_channels(place: Place) -> Iterator[None]:
    """Gives RayFed our ends of the channels and the paths of the files for TLS.

    SecretFlow passes no proxies on to ``fed.init``, which takes them; and given the paths itself, it would
    keep the private key's text in a global.
    """
    import fed

    from secretflow.party.proxies import Receiver, Sender

    init, credentials = fed.init, place.credentials
    ours: dict[str, Any] = {
        "sender_proxy_cls": Sender,
        "receiver_proxy_cls": partial(Receiver, others=place.others, patience=place.wait),
    }
    if credentials is not None:
        ours["tls_config"] = {
            "key": str(credentials.key),
            "cert": str(credentials.certificate),
            "ca_cert": str(credentials.authority),
        }

    def with_ours(**given: Any) -> None:
        init(**{**given, **ours})

    with mock.patch.object(fed, "init", with_ours):
        yield


def _meet(place: Place) -> None:
    """Waits for all other parties where all are needed; else ``fit`` does."""
    if place.cluster.streams is None:
        _wait_for(place)
        return
    print(
        f"{place.party} meets the others at {place.cluster.streams}: fit waits for all of them, for "
        f"--wait {place.wait:g} seconds, and then for as many as it needs",
        file=sys.stderr,
        flush=True,
    )


def _wait_for(place: Place) -> None:
    """Waits until all other parties have taken a message.

    Raises:
        SetupError: one has not in time.
    """
    import ray
    from fed.proxy.barriers import send

    end = time.monotonic() + place.wait
    for party, address in place.others.items():
        print(f"{place.party} waits for {party} at {address}", file=sys.stderr, flush=True)
        while not address.answers():  # RayFed's sender would try again ever more rarely
            _pause(
                end, f"{party} must start within --wait {place.wait:g} seconds, got no answer at {address}"
            )
        while not ray.get(send(party, None, "start", place.party, check_sending=False)):
            _pause(
                end,
                f"{party} must take messages of {place.party}, got a refusal at {address}: both need the "
                f"same cluster file (fingerprint here {place.cluster.fingerprint}) and certificates of one "
                "authority that name them",
            )


def _pause(end: float, error: str) -> None:
    if time.monotonic() > end:
        raise SetupError(error)
    time.sleep(_SECONDS_BETWEEN_TRIES)
