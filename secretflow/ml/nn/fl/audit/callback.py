"""A callback that audits a running training, at the party whose rows are attacked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secretflow import _validate
from secretflow.device import PYUObject, reveal, wait
from secretflow.errors import ArgumentError
from secretflow.ml.nn.callbacks import Callback
from secretflow.ml.nn.fl.audit.report import AuditReport
from secretflow.ml.nn.fl.audit.rows import Rows
from secretflow.ml.nn.fl.audit.run import audit
from secretflow.ml.nn.fl.audit.settings import AuditSettings
from secretflow.ml.nn.fl.party_paths import path_of


class LeakageAudit(Callback):
    """Audits the model as it is after every so many rounds, on rows that one party names.

    The party attacks itself: model and rows stay with it, and so does the report,
    ``<out>/round-<n>/report.html`` (in a simulation below a folder of the party's name). What comes back to
    the driver, and by that to all parties, are the counts: no row, no weight. Rounds are then run one at a
    time, which is slower, and training waits while an audit runs.

    Args:
        model: as for :func:`~.run.audit`; the function or ``TorchModel`` that is trained.
        rows: at the party: what a function that returns :class:`~.rows.Rows` gave there, such as
            ``alice(read_csv)("patients.csv", label="died")``.
        every: rounds from one audit to the next, at least 1.
        out: folder of the reports.
        settings: of each audit; ``minutes`` is how long training waits at most, about.
        loss: as for :func:`~.run.audit`.

    Attributes:
        reports: by number of rounds trained what was found, in the order of the rounds.

    Raises:
        TypeError: ``rows`` are at no party, or a value is of the wrong type.
        ValueError: a number is out of its range; when training begins, ``rows`` are of no party that trains.

    Examples:
        >>> watch = LeakageAudit(net, alice(read_csv)("patients.csv", label="died"), every=100)
        >>> model.fit(x, y, epochs=10, callbacks=[watch])
        >>> watch.reports[100].answer()
    """

    needs_model_each_round = True

    def __init__(
        self,
        model: Any,
        rows: PYUObject,
        every: int,
        out: str = "leakage",
        settings: AuditSettings = AuditSettings(minutes=1.0),  # noqa: B008 - frozen
        loss: str | None = None,
    ) -> None:
        super().__init__()
        _validate.instance("rows", rows, PYUObject, "at a party, as alice(read_csv)(...) gives them")
        _validate.integer("every", every, 1)
        _validate.instance("out", out, str, "a folder")
        _validate.instance("settings", settings, AuditSettings, "AuditSettings")
        self.reports: dict[int, AuditReport] = {}
        self._model, self._rows, self._every = model, rows, every
        self._out, self._settings, self._loss = out, settings, loss
        self._rounds = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Looks whether the party trains."""
        parties = [device.party for device in self._workers]
        if self._rows.device not in self._workers:
            raise ArgumentError(
                f"rows must be at a party that trains, {parties}, got them at {self._rows.device.party!r}"
            )

    def on_train_batch_end(self, batch: int | None = None, logs: Any = None) -> None:
        """Audits, if it is time."""
        self._rounds += 1
        if self._rounds % self._every:
            return
        device = self._rows.device
        folder = path_of(device, f"{self._out}/round-{self._rounds}", False)
        checkpoint = f"{folder}/model"
        wait(self._workers[device].save_model(checkpoint))
        content = device(_audit_checkpoint)(
            self._model, self._rows, self._settings, self._loss, checkpoint, folder
        )
        self.reports[self._rounds] = AuditReport(reveal(content), Path(folder))


def _audit_checkpoint(
    model: Any, rows: Rows, settings: AuditSettings, loss: str | None, checkpoint: str, folder: str
) -> Mapping[str, Any]:
    """Audits at the party; the checkpoint, which holds the optimiser's state, is not kept."""
    try:
        report = audit(model, rows, settings, loss=loss, weights=checkpoint, out=folder, verbose=False)
    finally:
        Path(checkpoint).unlink(missing_ok=True)
    return report.content
