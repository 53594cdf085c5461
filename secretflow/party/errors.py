"""The error of a party's set-up."""

from secretflow.errors import PruneError


class SetupError(PruneError, ValueError):
    """A file, an option or a certificate is not what a party needs; the message says what must hold.

    It never holds the content of a file.
    """
