"""A process that records messages at a steady pace until it is killed, and never flushes.

Each line on its output says at once that recording a message returned: its number, and when.
"""

from __future__ import annotations

import os
import sys
import time
from itertools import count

from actorbus.clock import SystemClock
from actorbus.message import IdSource
from actorbus.persistence.audit import Audit
from actorbus.settings import Settings
from actorbus.telemetry import Telemetry

_PAUSE = 0.0005


def main(url: str) -> None:
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


if __name__ == "__main__":
    main(sys.argv[1])
