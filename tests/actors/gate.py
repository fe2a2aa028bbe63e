"""A gate that a test opens."""

from __future__ import annotations

import threading
from typing import Final

DEADLINE: Final = 10.0


class Gate:
    """Holds an agent in one handler until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def hold(self) -> None:
        self.entered.set()
        assert self.opened.wait(DEADLINE)
