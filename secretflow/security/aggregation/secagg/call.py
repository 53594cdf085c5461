"""A call: one exchange of numbers with the server, as all parties make it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .fingerprint import Fingerprint
from .support import Support
from .updates import Sending
from .weights import AggregationWeights


class Operation(Enum):
    """What the sum of the uploads is."""

    SUM = "sum"
    AVERAGE = "average"


@dataclass(frozen=True, eq=False, repr=False)  # it holds what is the party's own
class Call:
    """One exchange of numbers, seen from one party.

    Attributes:
        number: in [0, 2^64), larger than that of any call before, the same at all parties.
        operation: what comes out.
        weights: aggregation weights; None for equal ones.
        support: which elements travel; None for all.
        sending: how updates travel instead of numbers; None where all numbers travel whole.
        fingerprint: of the own numbers, taken while they are encoded; None where nobody needs it.
    """

    number: int
    operation: Operation
    weights: AggregationWeights | None = None
    support: Support | None = None
    sending: Sending | None = None
    fingerprint: Fingerprint | None = None
