"""An average as the server has it, for those who were not there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class LastAverage(NamedTuple):
    """The numbers of an average.

    Attributes:
        arrays: its numbers, 0 where nothing travelled.
        whole: for each array whether all of it travelled.
    """

    arrays: list[np.ndarray]
    whole: list[bool]
