"""What somebody does who is no party.

Usage: stranger.py reach HOST PORT..., or stranger.py poison ADDRESS FILE FOLDER plain|without|with
"""

from __future__ import annotations

import pickle
import socket
import sys
from pathlib import Path
from typing import Any

import grpc


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(self.path),))


def reach(host: str, *ports: str) -> str:
    """The ports where somebody answers."""
    found = []
    for port in ports:
        try:
            socket.create_connection((host, int(port)), timeout=3).close()
            found.append(port)
        except OSError:
            continue
    return " ".join(found)


def poison(address: str, path: str, folder: str, how: str) -> str:
    """Sends poisoned messages; ``with`` shows the certificate of the party whose folder it is."""
    from fed.proxy.grpc.grpc_proxy import fed_pb2, fed_pb2_grpc

    key, certificate, authority = (
        Path(folder, name).read_bytes() for name in ("key.pem", "cert.pem", "ca.pem")
    )
    own = (key, certificate) if how == "with" else (None, None)
    options = (("grpc.ssl_target_name_override", "alice"),)
    channel = (
        grpc.insecure_channel(address)
        if how == "plain"
        else grpc.secure_channel(address, grpc.ssl_channel_credentials(authority, *own), options)
    )
    stub = fed_pb2_grpc.GrpcServiceStub(channel)
    for k in range(3):
        message = fed_pb2.SendDataRequest(
            data=pickle.dumps(Touch(path)),
            upstream_seq_id=f"poison-{k}",
            downstream_seq_id="0",
            job_name="any",
        )
        try:
            stub.SendData(message, timeout=5)
        except grpc.RpcError:
            return "refused"
    return "taken"


if __name__ == "__main__":
    print({"reach": reach, "poison": poison}[sys.argv[1]](*sys.argv[2:]))
