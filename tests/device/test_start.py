"""What a start changes in the driver's process, it gives back at the end."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import gc
import secretflow as sf

for own in (gc.get_threshold(), (900, 5, 5)):
    gc.set_threshold(*own)
    sf.init(["alice", "bob"], address="local", log_to_driver=False, logging_level="error")
    print(gc.get_threshold())
    sf.shutdown()
    print(gc.get_threshold() == own)
"""


def test_garbage_is_looked_for_less_often_until_shutdown_unless_the_user_has_said_how_often() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(50000, 10, 10)", "True", "(900, 5, 5)", "True"]
