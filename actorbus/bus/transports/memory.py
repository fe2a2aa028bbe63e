"""Messages within one process: a table of mailboxes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from actorbus.bus.routing import Route, Router
from actorbus.bus.transport import Guarantee, Guarantees
from actorbus.errors import NameTaken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actorbus.bus.mailbox import Inbox
    from actorbus.bus.transport import Home
    from actorbus.message import Message

MEMORY: Final = Guarantees(
    transport="memory",
    delivery="started at most once, plus the retries asked for; ends exactly once"
    " while the process lives",
    survives="-",
    order="yes",
    bounded="yes",
    unknown_recipient="error at once",
    fanout="to each mailbox",
    given=frozenset(
        {
            Guarantee.ORDERED,
            Guarantee.BOUNDED,
            Guarantee.REFUSED_AT_ONCE,
            Guarantee.PRIORITIZED,
            Guarantee.KNOWN_RECIPIENTS,
            Guarantee.FANOUT,
        }
    ),
)


class MemoryTransport:
    """One table of inboxes. Several nodes of a process may share it."""

    guarantees = MEMORY

    def __init__(self) -> None:
        self.shared: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._inboxes: dict[str, Inbox] = {}
        self._everyone: tuple[Inbox, ...] | None = ()
        self._router = Router()
        self.route = self._inboxes.get

    def open(self, home: Home) -> None:
        pass

    def entrance(self, inbox: Inbox) -> Inbox:
        return inbox

    def attach(self, inbox: Inbox, subscriptions: Sequence[Route] = ()) -> None:
        with self._lock:
            if self._inboxes.setdefault(inbox.name, inbox) is not inbox:
                raise NameTaken(inbox.name)
            self._everyone = None
        for route in subscriptions:
            self._router.add(route)

    def detach(self, inbox: Inbox, *, gone: bool = True) -> None:
        with self._lock:
            if self._inboxes.get(inbox.name) is not inbox:
                return
            del self._inboxes[inbox.name]
            self._everyone = None
        self._router.forget(inbox.name)

    def audience(self, message: Message[Any]) -> Sequence[Inbox]:
        sender = message.sender
        if message.topic is None:
            if sender is None:
                return self._all()
            return [inbox for inbox in self._all() if inbox.name != sender]
        found = (self.route(name) for name in self._router.names(message.topic, message.payload))
        return [inbox for inbox in found if inbox is not None and inbox.name != sender]

    def names(self) -> list[str]:
        with self._lock:
            return list(self._inboxes)

    def subscribe(self, route: Route) -> None:
        self._router.add(route)

    def unsubscribe(self, route: Route) -> None:
        self._router.remove(route)

    def pending(self) -> int:
        return 0

    def leave(self) -> None:
        pass

    def flush(self, timeout: float) -> int:
        return 0

    def close(self) -> None:
        pass

    def _all(self) -> tuple[Inbox, ...]:
        everyone = self._everyone
        if everyone is None:
            with self._lock:
                everyone = self._everyone = tuple(self._inboxes.values())
        return everyone
