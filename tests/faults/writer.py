"""A process that records messages until it is killed, and says which are safe.

Each line on its output is the number of a message. ``sent N``: recording it returned, at the
time that follows. ``flushed N``: all up to it are written.
"""

from __future__ import annotations

import sys
import time
from itertools import count

from actorbus.clock import SystemClock
from actorbus.message import IdSource, Message, MessageKind, Priority
from actorbus.persistence.audit import Audit
from actorbus.settings import Settings
from actorbus.telemetry import Telemetry

_A_WHILE = 500


def main(url: str, ring: int) -> None:
    clock = SystemClock()
    recorder = Audit(url).record(
        node="writer", settings=Settings(audit_ring=ring), telemetry=Telemetry(), clock=clock
    )
    recorder.start()
    ids = IdSource()
    say = sys.stdout.write
    for number in count(1):
        now = clock.now()
        made = ids.make(now)
        message = Message(
            made,
            MessageKind.TELL,
            "alice",
            "bob",
            None,
            number,
            Priority.NORMAL,
            now,
            None,
            made,
            None,
            None,
            1,
            0,
            None,
        )
        recorder.sent(message)
        recorder.handled(made, now, now)
        if number % 10 == 0:
            say(f"sent {number} {time.time()}\n")
        if number % _A_WHILE == 0:
            recorder.flush(30)
            say(f"flushed {number}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
