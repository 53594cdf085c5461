"""The error of the aggregation."""


class AggregationError(ValueError, AssertionError):
    """The input of an aggregation, or a message between its actors, is not what the protocol allows.

    It is an ``AssertionError`` too because upstream's aggregators raise that for the same mistakes.
    """
