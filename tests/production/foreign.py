"""A stranger: joins the Ray at an address and runs a task there that makes a file.

Usage: foreign.py ADDRESS FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

import ray
from ray._private import services

services.resolve_ip_for_localhost = lambda address: address  # a stranger need not do what Ray does for users


@ray.remote
def touch(path: str) -> None:
    Path(path).touch()


ray.init(address=sys.argv[1], _node_ip_address="127.0.0.1", log_to_driver=False)
ray.get(touch.remote(sys.argv[2]))
