"""The errors of the aggregation."""

from secretflow.errors import PruneError


class AggregationError(PruneError, ValueError, AssertionError):
    """The input of an aggregation, or a message between its actors, is not what the protocol allows.

    It is an ``AssertionError`` too because upstream's aggregators raise that for the same mistakes.
    """


class DisagreementError(AggregationError):
    """The parties were not told the same, or what they were told was changed on the way."""


class ChannelClosedError(AggregationError):
    """The process at the other end of a channel has gone or given up; its own error says why."""


class RoundLostError(AggregationError):
    """A party was lost after the others had agreed on who is there: this call has no result.

    What was uploaded for it is never to be uploaded again, see :mod:`.dropouts.protocol`.
    """


class TooFewSurvivorsError(AggregationError):
    """Fewer parties are left than a call needs; says who is gone."""


class RegroupError(AggregationError):
    """The parties agree on keys anew; whoever is told says hello again."""


class DroppedOutError(AggregationError):
    """The others have gone on without this party: it was too slow, or was thought gone."""


def wrong_sum(call: int, came: int) -> AggregationError:
    """The error of a sum that is of another call than the one that was made.

    Args:
        call: number of that call.
        came: number of the sum's.
    """
    return AggregationError(f"the sum must be that of call {call}, got that of call {came}")


def wrong_weight(k: int, shape: tuple[int, ...], came: tuple[int, ...]) -> AggregationError:
    """The error of a weight that does not broadcast to the data.

    Args:
        k: number of the array.
        shape: of the array.
        came: shape of the weight.
    """
    return AggregationError(f"weights must fit data[{k}] of shape {shape}, got one of shape {came}")
