"""The pruned training of the main job, callbacks, progress bar and report included, as its recorder times it.

::

    python benchmarks/main_job.py '{"images": "", "rounds": 200, "epochs": 3}' report.json
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

# As the main job does: it runs from any directory, and the parties find the nets.
sys.path[0] = str(Path(__file__).resolve().parent.parent)
os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], os.environ.get("PYTHONPATH", "")])

from experiments.data import SPLIT, load_images  # noqa: E402
from experiments.report import Report  # noqa: E402
from experiments.settings import make_parser, parse_settings  # noqa: E402


def run(rounds: int, epochs: int, out: str) -> dict[str, Any]:
    """Trains as ``experiments/test_h_nn_prune.py --prune`` does, on rows for so many rounds an epoch.

    Args:
        rounds: rounds of an epoch.
        epochs: epochs.
        out: folder for its report.

    Returns:
        ``epochs``: seconds of each epoch as its recorder has them, without those of ``evaluation``, in which
        the test rows were evaluated; ``history``: what was recorded, by epoch.
    """
    import secretflow as sf
    from experiments import training

    class TimedFLModel(training.FLModel):
        """Takes the time of each evaluation."""

        seconds: list[float] = []  # noqa: RUF012 - shared on purpose: the training keeps its model to itself

        def evaluate(self, *args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            metrics = super().evaluate(*args, **kwargs)
            self.seconds.append(time.perf_counter() - began)
            return metrics

    vars(training)["FLModel"] = TimedFLModel  # an assignment, which mypy refuses for a class
    parser = make_parser()
    settings = parse_settings(parser, ["--prune", "--epochs", str(epochs), "--out", out])
    images = load_images(settings.data).first(round(rounds * settings.batch_size / SPLIT["alice"]))
    report = Report(settings, {})
    sf.init(list(training.Parties._fields), address="local", logging_level="warning", log_to_driver=False)
    try:
        parties = training.Parties(*map(sf.PYU, training.Parties._fields))
        recorded = training.train_pruned(
            settings,
            parties,
            training.share_out_all(images, parties),
            lambda done: report.training("pruned", epochs=done),
            training.secure_aggregator(parties),
        )
    finally:
        sf.shutdown()
    spent = TimedFLModel.seconds
    return {
        "epochs": [epoch["seconds"] - aside for epoch, aside in zip(recorded, spent, strict=True)],
        "evaluation": spent,
        "history": {name: [epoch[name] for epoch in recorded] for name in recorded[0]},
    }


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    result = run(job["rounds"], job["epochs"], str(Path(sys.argv[2]).with_suffix("")))
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")
