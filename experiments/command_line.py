"""Command lines from frozen dataclasses: each option is declared once, as a field.

Not tyro: it draws help and errors in boxes of its own, so that neither would stay as it is documented.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import MISSING, field, fields
from typing import Any, NoReturn


def option(read: Callable[[str], Any], default: Any, told: str, metavar: str | None = None) -> Any:
    """A field of a dataclass that is an option of the command line.

    Args:
        read: makes the value of the text that the user gave.
        default: the value without the option.
        told: what ``--help`` says.
        metavar: what ``--help`` calls the value; None is the option's name.
    """
    return field(default=default, metadata={"read": read, "help": told, "metavar": metavar})


def add_options(parser: argparse.ArgumentParser, settings: type) -> None:
    """Adds an option for each field of a dataclass that :func:`option` made, ``--like-this``.

    Args:
        parser: what they are added to.
        settings: the dataclass.
    """
    for each in fields(settings):
        if each.metadata and each.default is not MISSING:
            parser.add_argument(
                f"--{each.name.replace('_', '-')}",
                type=each.metadata["read"],
                default=each.default,
                help=each.metadata["help"],
                metavar=each.metadata["metavar"],
            )


def refuse(parser: argparse.ArgumentParser, settings: type, error: Exception) -> NoReturn:
    """Ends the program with the message of an error, the argument named as the user wrote it.

    Args:
        parser: the command line.
        settings: the dataclass that refused a value, "NAME must be ...".
        error: what it raised.

    Raises:
        SystemExit: with code 2.
    """
    name, _, rest = str(error).partition(" ")
    known = name in {each.name for each in fields(settings)}
    parser.error(f"argument --{name.replace('_', '-')}: {rest}" if known else str(error))
