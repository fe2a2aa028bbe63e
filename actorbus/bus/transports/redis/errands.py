"""Work that takes round trips and that nobody waits for."""

from __future__ import annotations

import random
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from actorbus.errors import TransportUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[list[Any]], object]

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 1.0
_TOGETHER: Final = 500


class Errands:
    """In order, on a thread of its own; like work that waits goes together.

    What cannot be done because Redis is away is tried until it is back: nobody else will do it.

    Args:
        broke: called with whatever an errand raises.
    """

    def __init__(self, name: str, broke: Callable[[Exception], object]) -> None:
        self._broke = broke
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Work, Any]] = deque()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many are not begun."""
        return len(self._waiting)

    def put(self, work: Work, what: Any) -> None:
        """Call `work` with a list of what waits for it."""
        with self._changed:
            self._waiting.append((work, what))
            self._changed.notify()

    def close(self, timeout: float) -> None:
        """Do what waits, for at most `timeout` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                work, first = self._waiting.popleft()
                some = [first]
                while self._waiting and self._waiting[0][0] == work and len(some) < _TOGETHER:
                    some.append(self._waiting.popleft()[1])
            self._do(work, some)

    def _do(self, work: Work, some: list[Any]) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                work(some)
            except TransportUnavailable as error:
                self._broke(error)
                with self._changed:
                    if self._changed.wait_for(lambda: self._closing, random.uniform(0, pause)):
                        return
                pause = min(2 * pause, _LONGEST_PAUSE)
            except Exception as error:  # noqa: BLE001 - one errand must not end all others
                self._broke(error)
                return
            else:
                return
