"""Ctrl-C, as a wish and not as an exception."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Self

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """While entered, the first SIGINT or SIGTERM sets ``asked``; the next one raises.

    The handler only sets a flag: it runs in the middle of whatever the main thread does, which
    may hold any lock that sending a message takes.

    Raises:
        KeyboardInterrupt: in the main thread, at the second signal.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        self._before = [(number, signal.signal(number, self._receive)) for number in _SIGNALS]
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
