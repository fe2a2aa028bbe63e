"""What goes wrong between a node and Redis: that it is away, and why, and that it is back.

Each reason is told once until it is back, however often and by whom it is met: a server that
refused connections and now refuses the password is not the trouble that it was.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from actorbus.errors import TransportUnavailable
from actorbus.telemetry import TransportAway, TransportBack, TransportTrouble

if TYPE_CHECKING:
    from actorbus.telemetry import Telemetry


class Trouble:
    """Safe from any thread. Nothing is told before ``open``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._telemetry: Telemetry | None = None
        self._away_since: float | None = None
        self._told: set[str] = set()

    def open(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def report(self, error: Exception) -> None:
        telemetry = self._telemetry
        if telemetry is None:
            return
        if not isinstance(error, TransportUnavailable):
            if telemetry.active:
                telemetry.emit(TransportTrouble(error))
            return
        with self._lock:
            if error.why in self._told:
                return
            self._told.add(error.why)
            if self._away_since is None:
                self._away_since = time.monotonic()
        if telemetry.active:
            telemetry.emit(TransportAway(str(error)))

    def over(self) -> None:
        """The server has answered."""
        with self._lock:
            since, self._away_since = self._away_since, None
            self._told.clear()
        telemetry = self._telemetry
        if since is not None and telemetry is not None and telemetry.active:
            telemetry.emit(TransportBack(time.monotonic() - since))
