"""The server of calls that lose parties, as an actor: it serves a fit in a thread of its own."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import AggregationError, TooFewSurvivorsError
from ..transport.network.hub import Hub
from ..transport.network.tls import Tls
from .joining import Session
from .rules import SurvivorRules
from .wire import Ended

_MOST_REPORT_BYTES = 1 << 20  # what is longer is a model for who comes back, and no report of an epoch


class Host:
    """Serves one fit after the other."""

    def __init__(self) -> None:
        self._hub: Hub | None = None
        self._thread: threading.Thread | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._ended: Ended | None = None
        self._error: BaseException | None = None
        self._reports: list[dict[str, bytes]] = []

    def open(
        self,
        names: Sequence[str],
        rules: SurvivorRules,
        address: str | None,
        tls: Tls | None,
        round_deadline: float,
        wait: float,
    ) -> str:
        """Begins to serve.

        Args:
            names: see :class:`~..transport.network.hub.Hub`, as well as ``tls``, ``round_deadline`` and
                ``wait``.
            rules: which sets of parties a call may end with.
            address: to listen on; None for a socket that only this user reaches.

        Returns:
            Where the parties reach it.
        """
        self.close()
        sums_ahead = address is not None  # else all parties' work is done on this machine
        if address is None:
            self._folder = tempfile.TemporaryDirectory(prefix="secretflow-")
            address = f"unix:{Path(self._folder.name, 'socket')}"
        self._ended, self._error, self._reports = None, None, []
        hub = self._hub = Hub(
            address,
            names,
            Session(names, rules, sums_ahead=sums_ahead),
            tls,
            round_deadline=round_deadline,
            wait=wait,
            on_reports=self._take_reports,
        )
        self._thread = threading.Thread(target=self._serve, args=(hub,), daemon=True, name="hub")
        self._thread.start()
        return hub.address

    def wait(self, seconds: float) -> bool:
        """Waits for the end.

        Args:
            seconds: how long at most.

        Returns:
            Whether it has come; it has where nothing was begun.

        Raises:
            TooFewSurvivorsError: too few parties were left.
            AggregationError: there could be no further call.
        """
        if self._thread is None:
            return True
        self._thread.join(seconds)
        if self._thread.is_alive():
            return False
        if self._error is not None:
            raise self._error
        if self._ended is not None:
            raise (TooFewSurvivorsError if self._ended.too_few else AggregationError)(self._ended.reason)
        return True

    def take_reports(self) -> list[dict[str, bytes]]:
        """What parties have told each other since this was asked last; sealed if the server is blind."""
        reports, self._reports = self._reports, []
        return reports

    def close(self) -> None:
        """Ends serving, whatever the parties do."""
        if self._hub is not None and self._thread is not None:
            self._hub.stop()
            self._thread.join()
        self._hub = self._thread = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _serve(self, hub: Hub) -> None:
        try:
            self._ended = hub.serve()
        except BaseException as error:  # whoever waits is told
            self._error = error

    def _take_reports(self, reports: Mapping[str, bytes]) -> None:
        short = {name: body for name, body in reports.items() if len(body) <= _MOST_REPORT_BYTES}
        if len(short) == len(reports):
            self._reports.append(short)
