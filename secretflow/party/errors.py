"""The error of a party's set-up."""


class SetupError(ValueError):
    """A file, an option or a certificate is not what a party needs; the message says what must hold.

    It never holds the content of a file.
    """
