"""What a party's raylet runs in place of Ray's agents: nothing, on no port, until the raylet is gone.

It is run by its path and imports next to nothing.
"""

from __future__ import annotations

import os
import time

_SECONDS_BETWEEN_LOOKS = 1.0


def main() -> None:
    """Waits for the end of the process that has started this one."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)


if __name__ == "__main__":
    main()
