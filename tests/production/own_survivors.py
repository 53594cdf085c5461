"""The training of the guide, which writes down what the driver is told of it."""

from __future__ import annotations

import json
from typing import Any

from experiments import production
from secretflow.ml.nn.callbacks import Callback
from secretflow.party.training import Run


class Told(Callback):
    """Keeps the history of a fit."""

    history: Any = None

    def on_train_end(self, logs: Any = None) -> None:
        self.history = self.params["history"]


def train(run: Run) -> None:
    told = Told()
    production.train(run, [told])
    columns = {name: list(told.history[name]) for name in ("global_history", "local_history")}
    (run.out / "told.json").write_text(json.dumps(columns))
