"""What goes wrong between a node and Redis, told once: that it is away, and that it is back."""

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

    def open(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def report(self, error: Exception) -> None:
        telemetry = self._telemetry
        if telemetry is None:
            return
        away = isinstance(error, TransportUnavailable)
        if away:
            with self._lock:
                if self._away_since is not None:
                    return
                self._away_since = time.monotonic()
        if telemetry.active:
            telemetry.emit(TransportAway(str(error)) if away else TransportTrouble(error))

    def over(self) -> None:
        """The server has answered."""
        with self._lock:
            since, self._away_since = self._away_since, None
        telemetry = self._telemetry
        if since is not None and telemetry is not None and telemetry.active:
            telemetry.emit(TransportBack(time.monotonic() - since))
