"""``Following``: history as it is written."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from actorbus.persistence import cursors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from actorbus.persistence.answers import MessageView
    from actorbus.persistence.filters import Filter
    from actorbus.persistence.queries import Reader


class Following:
    """Iterates over messages as their records are committed, each once, with no gap.

    Messages of one node come in the order of their commits; those of several nodes are not
    ordered between them. A message comes as it stands then: its outcome may not be known yet.

    It ends when it is closed, by any thread, or when nothing was new for `idle` seconds. After
    an ``AuditUnavailable`` it can be gone on with: it knows its place.
    """

    def __init__(
        self,
        reader: Callable[[], Reader],
        wanted: Filter,
        *,
        after: str | None,
        last: int,
        poll: float,
        idle: float | None,
    ) -> None:
        self._reader = reader
        self._wanted = wanted
        self._poll = poll
        self._idle = idle
        self._stopped = threading.Event()
        self._ready: deque[tuple[int, int, MessageView]] = deque()
        self._read: tuple[int, int] | None = None
        # Heads first: what is committed after them and is among the last ones comes once only.
        self._places = reader().heads() if after is None else cursors.places(after)
        self._last: deque[MessageView] = deque()
        if last:
            self._last.extend(reversed(reader().messages(wanted, None, last)))
        self._shown = {view.id for view in self._last}

    @property
    def cursor(self) -> str:
        """The place behind the message that came last, for ``after``."""
        return cursors.of_places(self._places)

    def close(self) -> None:
        """End it; whoever waits for the next message gets none. Idempotent."""
        self._stopped.set()

    def __iter__(self) -> Iterator[MessageView]:
        return self

    def __next__(self) -> MessageView:
        if self._last and not self._stopped.is_set():
            return self._last.popleft()
        quiet_since = time.monotonic()
        while not self._stopped.is_set():
            if self._ready:
                chain, seq, view = self._ready.popleft()
                self._places[chain] = seq
                if view.id in self._shown:
                    self._shown.remove(view.id)
                    continue
                return view
            if self._look():
                quiet_since = time.monotonic()
            elif self._idle is not None and time.monotonic() - quiet_since >= self._idle:
                break
            else:
                self._stopped.wait(self._poll)
        raise StopIteration

    def _look(self) -> bool:
        """Read on; whether there was something to read."""
        if self._read is not None:
            chain, place = self._read
            self._places[chain] = place
            self._read = None
        news = self._reader().news(self._wanted, self._places)
        if news is None:
            return False
        self._ready.extend((news.chain, seq, view) for seq, view in news.found)
        self._read = (news.chain, news.read)
        return True

    def __enter__(self) -> Following:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
