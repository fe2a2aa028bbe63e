"""Processes that record messages at a steady pace until they are killed, and never flush.

For each URL on its input, this one forks a writer: importing it all takes longer than a writer
lives. Its lines say its process, then at once that recording a message returned, which and when,
and in the end that it is dead.
"""

from __future__ import annotations

import os
import sys
import time
from itertools import count
from typing import NoReturn

from actorbus.clock import SystemClock
from actorbus.message import IdSource
from actorbus.persistence.audit import Audit
from actorbus.persistence.recorder import Recorder  # noqa: F401 - so that no writer has to
from actorbus.settings import Settings
from actorbus.telemetry import Telemetry

_PAUSE = 0.0005


def main() -> None:
    for line in sys.stdin:
        writer = os.fork()
        if not writer:
            write(line.strip())
        os.waitpid(writer, 0)
        os.write(1, b"dead\n")


def write(url: str) -> NoReturn:
    os.write(1, b"%d\n" % os.getpid())
    clock = SystemClock()
    recorder = Audit(url).record(
        node="writer", settings=Settings(), telemetry=Telemetry(), clock=clock
    )
    recorder.start()
    ids = IdSource()
    for number in count(1):
        now = clock.now()
        made = ids.make(now)
        recorder.sent((made, "a", number, 2, now, made, None, None, 0, None, None, "bob"))
        recorder.handled(made, now, now)
        os.write(1, b"%d %.6f\n" % (number, time.time()))
        time.sleep(_PAUSE)
    raise AssertionError


if __name__ == "__main__":
    main()
