"""Watches: who wants to hear of changes, and how far they have heard.

A watch is a cursor in the log of its namespace. A change rings a bell on the thread that wrote,
the bell posts one turn to the watch thread, and the turn reads what is new and calls back. So
nothing waits anywhere but in the log, which is bounded; what comes is in order and comes once;
and a watch that the log has left behind knows it, and says so.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from actorbus.errors import AccessDenied, BusClosed
from actorbus.telemetry import WatcherFailed, WatcherLagged

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from actorbus.context.store import Change, Changes, Store
    from actorbus.telemetry import Telemetry

    Post: TypeAlias = Callable[[Callable[[], None]], None]

_READS_A_TURN: Final = 32
"""After so many reads a busy watch goes to the end of the line, so that it starves no other."""


@dataclass(frozen=True, slots=True)
class Lagged:
    """The watcher was too far behind and missed the changes `first` to `last`, both included.

    The numbers count all changes of the namespace, whatever their prefix. Take a snapshot: it is
    at least as new as `last`, and everything after `last` will be told.
    """

    first: int
    last: int

    @property
    def count(self) -> int:
        return self.last - self.first + 1


class Watch:
    """Calls back with the changes after it was made. Goes on until it is cancelled.

    Use it as a context manager to have it cancelled at the end of a block.
    """

    __slots__ = (
        "_after",
        "_callback",
        "_cancelled",
        "_lock",
        "_rung",
        "_stop",
        "_turn_posted",
        "_watches",
        "namespace",
        "prefix",
        "principal",
    )

    def __init__(
        self,
        watches: Watches,
        namespace: str,
        prefix: str,
        principal: str | None,
        callback: Callable[[Change | Lagged], object],
    ) -> None:
        self.namespace = namespace
        self.prefix = prefix
        self.principal = principal
        self._watches = watches
        self._callback = callback
        self._lock = threading.Lock()
        self._rung = False
        self._turn_posted = False
        self._cancelled = False
        with self._lock:  # a bell that rings at once waits until the cursor is known
            listening = watches.store.listen(namespace, self._ring, principal)
            self._after = listening.revision
            self._stop = listening.stop

    def cancel(self) -> None:
        """Call back no more; a call under way ends. Idempotent, also from within the callback."""
        self._cancelled = True
        self._stop()
        self._watches.forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    def __repr__(self) -> str:
        return f"<Watch {self._name}{' cancelled' if self._cancelled else ''}>"

    @property
    def _name(self) -> str:
        return f"{self.namespace}:{self.prefix}*"

    def _ring(self) -> None:
        with self._lock:
            self._rung = True
            if self._turn_posted:
                return
            self._turn_posted = True
        self._watches.post(self._turn)

    def _turn(self) -> None:
        for _ in range(_READS_A_TURN):
            with self._lock:
                if self._cancelled or not self._rung:
                    self._turn_posted = False
                    return
                self._rung = False
            self._tell_news()
        self._watches.post(self._turn)

    def _tell_news(self) -> None:
        try:
            news = self._read()
        except AccessDenied as error:  # the right to read was taken back: nothing will come
            self._report(error)
            self.cancel()
            return
        except Exception as error:  # noqa: BLE001 - the next bell reads from the same cursor
            self._report(error)
            return
        first, self._after = self._after + 1, news.revision
        if not news.complete:
            self._tell_lag(Lagged(first, news.revision))
        for change in news.changes:
            self._tell(change)

    def _read(self) -> Changes:
        watches = self._watches
        return watches.store.changes(
            self.namespace, self.prefix, self._after, watches.backlog, self.principal
        )

    def _tell_lag(self, lagged: Lagged) -> None:
        if self._watches.telemetry.active:
            self._watches.telemetry.emit(WatcherLagged(self._name, lagged.count))
        self._tell(lagged)

    def _tell(self, news: Change | Lagged) -> None:
        if self._cancelled:
            return
        try:
            self._callback(news)
        except BaseException as error:  # noqa: BLE001 - a watcher must not end the others
            self._report(error)

    def _report(self, error: BaseException) -> None:
        if self._watches.telemetry.active:
            self._watches.telemetry.emit(WatcherFailed(self._name, error))


class Watches:
    """The watches of one node, and what they have in common.

    `post` takes callables and never raises; they run in order on one thread. `backlog` is how many
    changes a watch may be behind before it lags.
    """

    def __init__(self, store: Store, *, post: Post, telemetry: Telemetry, backlog: int) -> None:
        self.store = store
        self.post = post
        self.telemetry = telemetry
        self.backlog = backlog
        self._open: dict[int, Watch] = {}
        self._stopped = False

    def check_open(self) -> None:
        """
        Raises:
            BusClosed: the node has stopped.
        """
        if self._stopped:
            raise BusClosed("the node has stopped: its shared state is not written any more")

    def add(
        self,
        namespace: str,
        prefix: str,
        principal: str | None,
        callback: Callable[[Change | Lagged], object],
    ) -> Watch:
        self.check_open()
        watch = Watch(self, namespace, prefix, principal, callback)
        self._open[id(watch)] = watch
        return watch

    def forget(self, watch: Watch) -> None:
        self._open.pop(id(watch), None)

    def stop(self) -> None:
        """Cancel every watch; there will be no other."""
        self._stopped = True
        self.cancel(None)

    def cancel(self, principal: str | None) -> None:
        """Cancel the watches of an agent, or every watch where the principal is None."""
        for watch in list(self._open.values()):
            if principal is None or watch.principal == principal:
                watch.cancel()
