"""``actorbus``, and ``python -m actorbus``.

The command line takes a while to import, and Ctrl-C may come meanwhile: so it is imported only once
an interrupt has somewhere to go.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress
from typing import Final

_INTERRUPTED: Final = 130


def main() -> None:
    """Run the command line and exit; with 130 and without a traceback where Ctrl-C ends it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as under nohup: nothing to take over
        _run()
        return
    signal.signal(signal.SIGINT, _end)
    # What is registered first runs last: all is done by then, and Python is about to put back the
    # handler of the system, which kills.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    try:
        try:
            _run(signal.default_int_handler)
        finally:
            signal.signal(signal.SIGINT, _end)
    except KeyboardInterrupt:
        _end()


def _run(on_interrupt: signal._HANDLER = signal.SIG_IGN) -> None:
    from actorbus.cli import main as run

    signal.signal(signal.SIGINT, on_interrupt)
    run()


def _end(*_: object) -> None:
    """Leave at once: an exception would be reported by whatever is being imported or closed."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
