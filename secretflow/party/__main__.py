"""The command line of a party."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from secretflow.party.address import Address
from secretflow.party.cluster import Cluster, check_party_name
from secretflow.party.errors import SetupError

if TYPE_CHECKING:
    from secretflow.party.start import Place

_MOST_DAYS = 36500


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status, 2 for what the user can mend."""
    options = make_parser().parse_args(arguments)
    os.umask(0o077)  # what a party writes is its own
    try:
        options.command(options)
    except SetupError as error:
        print(f"{options.name}: {error}", file=sys.stderr)
        return 2
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="python -m secretflow.party", description="One party of a training over the network."
    )
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")

    def add(name: str, command: object, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        return sub

    init = add("init", _init, "make a party's keys and its request for a certificate")
    authority = add("authority", _authority, "make a private authority that signs the parties' certificates")
    sign = add("sign", _sign, "sign a party's certificate as the authority")
    check = add("check", _check, "check a cluster file, and with --tls a party's key and certificate")
    run = add("run", _run, "take part in a training until it is over")

    authority.add_argument("folder", type=Path, help="new folder for key.pem and ca.pem")
    sign.add_argument("request", type=Path, help="request.pem of the party; cert.pem and ca.pem go beside it")
    sign.add_argument("--authority", required=True, type=Path, help="folder of the authority")
    sign.add_argument("--days", type=int, default=365, help="how long the certificate holds (default: 365)")
    for one in (init, sign):
        one.add_argument("--party", required=True, help="name of the party")
        one.add_argument("--address", required=True, help="host:port where the other parties reach it")
    init.add_argument("--folder", type=Path, help="new folder for the keys (default: NAME-keys)")
    for one in (check, run):
        one.add_argument("--party", required=True, help="own name, one of those in the cluster file")
        one.add_argument("--cluster", required=True, type=Path, help="the cluster file")
        one.add_argument("--tls", type=Path, help="folder with key.pem, cert.pem and ca.pem")
        one.add_argument("--listen", help="host:port to listen on, if it is not the one that others use")
        one.add_argument("--insecure", action="store_true", help="do without TLS beyond this machine")
    run.add_argument("--train", help="module:function to run (default: train in the cluster file)")
    run.add_argument("--out", type=Path, help="folder for what the party keeps (default: its name)")
    run.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="the training function's own"
    )
    run.add_argument(
        "--wait",
        type=float,
        default=600,
        help="seconds until all must be there, and for who is not reached later on (default: 600)",
    )
    return parser


def _init(options: argparse.Namespace) -> None:
    from secretflow.party.keys import make_party

    party, address = check_party_name(options.party), Address.parse("--address", options.address)
    folder = options.folder or Path(f"{party}-keys")
    identity = make_party(folder, party, address)
    print(f"made {folder}: identity.pem and key.pem stay secret, request.pem goes to the authority")
    print(f"identity of {party} for the cluster file: {identity}")


def _authority(options: argparse.Namespace) -> None:
    from secretflow.party.authority import make_authority

    make_authority(options.folder)
    print(f"made {options.folder}: key.pem stays secret")


def _sign(options: argparse.Namespace) -> None:
    from secretflow.party.authority import sign

    if not 1 <= options.days <= _MOST_DAYS:
        raise SetupError(f"--days must be from 1 to {_MOST_DAYS}, got {options.days}")
    party, address = check_party_name(options.party), Address.parse("--address", options.address)
    certificate = sign(options.authority, options.request, party, address, options.days)
    print(f"signed {certificate} for {party} at {address.host}; ca.pem is beside it")


def _check(options: argparse.Namespace) -> None:
    from secretflow.party.training import parse_name

    place = _place(options, Path(options.party), wait=0)
    if place.cluster.train is not None:
        parse_name(place.cluster.train)
    print(f"fingerprint of the cluster, the same at all parties: {place.cluster.fingerprint}")
    for party, member in place.cluster.members.items():
        print(f"{party} at {member.address}: identity {member.identity or 'not pinned'}")
    if place.credentials is None:
        print("no TLS")
    else:
        print(f"TLS: key, certificate and authority fit, until {place.credentials.valid_until:%Y-%m-%d}")


def _run(options: argparse.Namespace) -> None:
    if not options.wait > 0:
        raise SetupError(f"--wait must be above 0 seconds, got {options.wait}")
    if malformed := [option for option in options.option if "=" not in option]:
        raise SetupError(f"--option must be NAME=VALUE, got {malformed[0]!r}")
    from secretflow.party.training import Run, find_function, parse_name

    place = _place(options, options.out or Path(options.party), options.wait)
    name = parse_name(options.train or place.cluster.train)
    place.listen.check_free("--listen" if options.listen else "the party's address")

    from secretflow.party.private_ray import private_ray
    from secretflow.party.start import started

    own = dict(option.split("=", 1) for option in options.option)
    run = Run(place.cluster, place.party, place.folder, own)
    with private_ray() as ray_options:  # around the import, for the user's module may import Ray
        train = find_function(*name)
        with started(place, ray_options):
            train(run)


def _place(options: argparse.Namespace, folder: Path, wait: float) -> Place:
    """Checks all that can be before a start."""
    from secretflow.party.credentials import Credentials
    from secretflow.party.start import Place, check_protection

    cluster = Cluster.read(options.cluster)
    member = cluster.member(options.party)
    listen = Address.parse("--listen", options.listen) if options.listen else member.address
    credentials = Credentials.read(options.tls, cluster, options.party) if options.tls else None
    check_protection(cluster, listen, credentials, options.insecure)
    return Place(cluster, options.party, listen, credentials, wait, folder)


if __name__ == "__main__":
    sys.exit(main())
