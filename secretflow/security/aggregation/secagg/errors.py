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
