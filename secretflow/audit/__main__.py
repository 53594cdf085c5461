"""The command line of the leakage audit."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from secretflow.ml.nn.fl.audit.settings import AuditSettings

INTERRUPTED = 130

_EXAMPLES = """examples:
  python -m secretflow.audit --model net.py:net --csv patients.csv --label died
  python -m secretflow.audit --model resnet.py:ResNet --images pictures --size 32 --batch-size 8
  python -m secretflow.audit --model net.py:net --csv patients.csv --label died --captures run/round-3
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs an audit; returns the exit status, 2 for what the user can mend, 130 if it was broken off.

    Args:
        arguments: the command line without the program's name; None is ``sys.argv``.
    """
    parser = make_parser()
    options = parser.parse_args(arguments)
    os.umask(0o077)  # what an audit writes may show private rows
    from secretflow.ml.nn.fl.audit.files import read_arrays, read_csv, read_images
    from secretflow.ml.nn.fl.audit.run import audit

    def read(csv: Path | None, images: Path | None, arrays: Path | None) -> object:
        if csv is not None:
            if options.label is None:
                parser.error("--label is needed with --csv: the column that the net predicts")
            return read_csv(csv, options.label, options.drop, options.scale)
        if images is not None:
            return read_images(images, options.size, options.grey)
        return read_arrays(arrays or "")

    try:
        settings = AuditSettings(
            batch_size=options.batch_size,
            parties=tuple(options.parties),
            density=options.density,
            bits=options.bits,
            local_steps=options.local_steps,
            learning_rate=options.learning_rate,
            rows=options.rows,
            candidates=options.candidates,
            public=options.public,
            minutes=options.minutes,
            seed=options.seed,
            show_rows=not options.hide_rows,
        )
        rows = read(options.csv, options.images, options.arrays)
        report = audit(
            options.model,
            rows,  # type: ignore[arg-type]
            settings,
            loss=options.loss,
            weights=options.weights,
            captures=options.captures,
            out=options.out,
        )
    except KeyboardInterrupt:
        print("\nBroken off; the same command goes on from here.", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"audit: {error}", file=sys.stderr)
        return 2
    print(report.answer(options.language))
    print(report.tried(options.language))
    print(report.html)
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The parser of all options."""
    default = AuditSettings()
    parser = argparse.ArgumentParser(
        prog="python -m secretflow.audit",
        description="Attacks what a training of your net on your rows uploads, and says what comes back.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--model",
        required=True,
        help="what builds the net, file.py:function or module:function; it may take inputs, channels, size, "
        "steps, vocabulary and classes, by these names",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--csv", type=Path, help="a table with a line of names")
    source.add_argument("--images", type=Path, help="a folder of pictures, one folder for each class in it")
    source.add_argument("--arrays", type=Path, help="an .npz file with x and y; integers are tokens")
    add("--label", help="the column of the CSV file that the net predicts")
    add("--drop", nargs="+", default=[], metavar="COLUMN", help="columns that the net does not get")
    add(
        "--scale",
        choices=("standard", "minmax", "none"),
        default="standard",
        help="of numbers in the CSV file (default: standard)",
    )
    add("--size", type=int, help="height and width to which pictures are brought")
    add("--grey", action="store_true", help="pictures of one channel")
    add("--loss", help="cross_entropy, nll, bce_with_logits or bce (default: cross_entropy)")
    add("--weights", type=Path, help="a state_dict or a checkpoint of FLModel (default: fresh weights)")
    add("--captures", type=Path, nargs="+", default=[], help="folders of captured steps, to attack these")
    add("--batch-size", type=int, default=default.batch_size, help="of a party (default: %(default)s)")
    add(
        "--parties",
        type=int,
        nargs="*",
        default=list(default.parties),
        help="behind an average, several numbers are allowed (default: 8)",
    )
    add("--density", type=float, default=default.density, help="weights that live (default: all, 1.0)")
    add("--bits", type=int, help="round uploads to so many bits (default: no rounding)")
    add("--local-steps", type=int, default=default.local_steps, help="before an upload (default: 1)")
    add("--learning-rate", type=float, default=default.learning_rate, help="of local steps (default: 0.1)")
    add("--rows", type=int, default=default.rows, help="to attack at most (default: %(default)s)")
    add("--candidates", type=int, default=default.candidates, help="to identify among (default: 10000)")
    add("--public", type=int, default=default.public, help="rows of the attacker at most (default: 20000)")
    add("--minutes", type=float, default=default.minutes, help="after which no attack starts (default: 8)")
    add("--seed", type=int, default=default.seed, help="of everything that is drawn (default: 0)")
    add("--hide-rows", action="store_true", help="show no private row in the report")
    add("--language", choices=("en", "zh"), default="en", help="of what is printed (default: en)")
    add("--out", type=Path, default=Path("leakage"), help="folder of the report (default: leakage)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
