"""A node as a process: it runs ``front``, and dies the moment it has recorded an order's end.

Its record is committed by then, and the message not acknowledged: another node runs it again.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from cast import Front  # type: ignore[import-not-found]

from actorbus import Node, Settings
from actorbus.telemetry import MessageEnded

if TYPE_CHECKING:
    from actorbus.telemetry import Event


def main(redis: str, audit: str, namespace: str) -> None:
    settings = Settings(
        namespace=namespace, beat=0.2, suspect_after=0.5, dead_after=1.0, log_level="off"
    )
    node = Node(redis, name="dying", audit=audit, settings=settings).start()

    def die(event: Event) -> None:
        if isinstance(event, MessageEnded) and event.ending.recipient == "front":
            node.flush(10)
            node.audit.counts()  # a question is answered once all is written
            os.kill(os.getpid(), signal.SIGKILL)

    node.spawn(Front, name="front")
    node.telemetry.listen(die)
    sys.stdout.write("up\n")
    sys.stdout.flush()
    node.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
