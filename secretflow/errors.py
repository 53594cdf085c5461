"""The errors of this package. Each is also the built-in error that a Python user expects.

======================== ================================== ===============================================
error                    is also                            when
======================== ================================== ===============================================
:class:`PruneError`      ``Exception``                      the base of all
:class:`ArgumentError`   ``ValueError``                     an argument or data are not what they must be
:class:`WrongTypeError`  ``TypeError``                      they are of another type
:class:`StateError`      ``RuntimeError``                   a call comes at the wrong time
``AggregationError``     ``ValueError``, ``AssertionError`` a round cannot be averaged
``SetupError``           ``ValueError``                     a party's files, keys or addresses do not fit
======================== ================================== ===============================================

The last two are in :mod:`secretflow.security.aggregation.secagg.errors` and :mod:`secretflow.party.errors`.
What a party's worker raises arrives at the driver as an error of the same classes.
"""

from __future__ import annotations


class PruneError(Exception):
    """The base of this package's errors, whose messages say what must hold, what came and what to do."""


class ArgumentError(PruneError, ValueError):
    """An argument, or a party's data, is not what it must be."""


class WrongTypeError(PruneError, TypeError):
    """An argument, or a party's data, is of another type than it must be."""


class StateError(PruneError, RuntimeError):
    """A call comes at the wrong time: before ``sf.init``, or within a fit."""
