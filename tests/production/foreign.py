"""A stranger: looks into the Ray at an address, and runs a task there that makes a file if one is named.

Usage: foreign.py ADDRESS [FILE]
"""

from __future__ import annotations

import sys
from pathlib import Path

import ray
from ray._private import services
from ray._raylet import GcsClient

services.resolve_ip_for_localhost = lambda address: address  # a stranger need not do what Ray does for users


@ray.remote
def touch(path: str) -> None:
    Path(path).touch()


def main(address: str, *files: str) -> None:
    GcsClient(address=address, nums_reconnect_retry=0).internal_kv_keys(b"", None, timeout=10)
    print("looked", flush=True)
    for file in files:
        ray.init(address=address, _node_ip_address="127.0.0.1", log_to_driver=False)
        ray.get(touch.remote(file))


if __name__ == "__main__":
    main(*sys.argv[1:])
