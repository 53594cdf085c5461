"""The leakage audit: what gradient-inversion attackers get back, under which defence.

``python experiments/leakage_audit.py --help`` says what can be chosen. Rows that are finished are kept in
``rows.jsonl`` and not measured again, so an audit that was stopped goes on with the same command.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

if __name__ == "__main__":  # so that it runs from any directory
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from experiments.audit import report
from experiments.audit.attack_cell import SAME_AS, filled_in
from experiments.audit.code import digest_of_code
from experiments.audit.command_line import make_parser, parse_effort
from experiments.audit.data import Dataset
from experiments.audit.effort import Effort
from experiments.audit.scoring import baselines
from experiments.audit.tasks import Task, load_datasets, run, tasks_of
from experiments.report import versions
from secretflow.ml.nn.fl.audit.finished import Finished
from secretflow.ml.nn.fl.audit.scores import SUCCESS_MSE

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the audit and writes its report.

    Args:
        arguments: the command line without the program's name; None is ``sys.argv``.

    Returns:
        The exit code: 0, or 130 if it was broken off with Ctrl-C; what was measured so far is then kept.
    """
    parser = make_parser()
    chosen = parser.parse_args(arguments)
    effort = parse_effort(parser, chosen)
    try:
        datasets = [dataset for dataset in load_datasets(chosen.data) if dataset.name in chosen.datasets]
        if not datasets:
            raise ValueError(
                f"argument --datasets: must have another than CIFAR-100 without --data, got {chosen.datasets}"
            )
        chosen.out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    digests = {
        dataset.name: hashlib.sha256(dataset.x.numpy().tobytes() + dataset.y.numpy().tobytes()).hexdigest()
        for dataset in datasets
    }
    tasks = tasks_of(datasets, effort, chosen, digests)
    rows = Finished(chosen.out / "rows.jsonl")
    started, exit_code = time.monotonic(), 0
    try:
        run(tasks, effort, rows, chosen)
    except KeyboardInterrupt:
        print("\nBroken off; the same command goes on from here.", file=sys.stderr)
        exit_code = INTERRUPTED
    write_report(tasks, datasets, effort, rows, chosen.out, time.monotonic() - started)
    return exit_code


def write_report(
    tasks: Sequence[Task],
    datasets: Sequence[Dataset],
    effort: Effort,
    rows: Finished,
    out: Path,
    seconds: float,
) -> None:
    """Writes the report from the rows that are there."""
    measured = [(task, rows.get(task.key)) for task in tasks]
    known = [row for _, row in measured if row is not None and SAME_AS not in row]
    found = [(task, None if row is None else filled_in(row, known)) for task, row in measured]
    attacks = [row for task, row in found if row is not None and task.kind == "attack"]
    content = {
        "complete": all(row is not None for _, row in found),
        "missing": [task.cell.as_dict() for task, row in found if row is None],
        "success_is_mse_below": SUCCESS_MSE,
        "settings": asdict(effort),
        "code": digest_of_code(),
        "versions": versions(),
        "seconds_of_this_run": round(seconds, 1),
        "rows": [
            {name: value for name, value in row.items() if name not in ("examples", "example_shape", "kind")}
            for row in attacks
        ],
        "baselines": [row for dataset in datasets for row in baselines(dataset, effort)],
        "accuracies": [
            {name: value for name, value in row.items() if name != "kind"}
            for task, row in found
            if row is not None and task.kind == "accuracy"
        ],
    }
    report.write(content, attacks, out)
    print(f"{'Done' if content['complete'] else 'Not complete yet'}: {out / report.PAGE}")


if __name__ == "__main__":
    sys.exit(main())
