"""The agents of the fault tests: each run of a message is a line in a ledger."""

from __future__ import annotations

import os
import signal
from functools import cache

from actorbus import Agent, handles


class Worker(Agent):
    failover = True

    @handles
    def work(self, text: str) -> None:
        os.write(_ledger(), f"{self.name} {text}\n".encode())
        if text.startswith("poison"):
            os.kill(os.getpid(), signal.SIGKILL)


@cache
def _ledger() -> int:
    return os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
