"""The errors of a party's set-up and of its channels to others."""

from secretflow.errors import PruneError


class SetupError(PruneError, ValueError):
    """A file, an option or a certificate is not what a party needs; the message says what must hold.

    It never holds the content of a file.
    """


class UnreachableError(PruneError, ConnectionError):
    """Another party, of whom a value is waited for, cannot be reached any more."""
