"""Where senders put messages: the way into an agent's log, and into that of topics."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.bus.mailbox import Offered
    from actorbus.bus.transports.redis.sender import Sender
    from actorbus.bus.transports.redis.stays import Stays
    from actorbus.message import Message, PlainEntry, Priority

_REMEMBERED: Final = 100_000
"""Agents of other nodes that are known here without asking."""


class Entrance:
    """An agent's inbox as its senders see it."""

    __slots__ = ("_sender", "name", "owner", "policy")

    def __init__(self, sender: Sender, name: str, owner: Any) -> None:
        self._sender = sender
        self.name = name
        self.owner = owner
        self.policy = sender.policy

    def offer(self, message: Message[Any]) -> Offered:
        return self._sender.send(message, self.name)

    def put_tell(self, entry: PlainEntry, priority: Priority) -> Offered:
        """``offer`` for a tell that needs no envelope."""
        return self._sender.send_plainly(entry, self.name)

    def offer_later(self, message: Message[Any], seconds: float) -> Offered:
        return self._sender.send(message, self.name, seconds)

    def when_room(self, waiter: Callable[[], object]) -> bool:
        return self._sender.when_room(waiter)

    def forget(self, waiter: Callable[[], object]) -> None:
        self._sender.forget(waiter)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entrance) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)


class LogEntrance(Entrance):
    """The log of topics, as those who publish see it."""

    __slots__ = ()

    def __init__(self, sender: Sender) -> None:
        super().__init__(sender, "the log of topics", None)

    def offer(self, message: Message[Any]) -> Offered:
        return self._sender.publish(message)


class Entrances:
    """The ways to those that this node knows of. Safe from any thread."""

    def __init__(self, sender: Sender, stays: Stays) -> None:
        self._sender = sender
        self._here = stays.here
        self._lock = threading.Lock()
        self._known: dict[str, Entrance] = {}

    def get(self, name: str) -> Entrance | None:
        return self._known.get(name)

    def to(self, name: str) -> Entrance:
        """The way to it, whether it is there or not."""
        return self._known.get(name) or Entrance(self._sender, name, None)

    def begin(self, name: str, owner: Any) -> None:
        """It runs here now."""
        with self._lock:
            self._known[name] = Entrance(self._sender, name, owner)

    def learn(self, name: str) -> Entrance:
        """It is there, here or elsewhere."""
        with self._lock:
            if len(self._known) >= _REMEMBERED:
                self._known = {name: one for name, one in self._known.items() if name in self._here}
            return self._known.setdefault(name, Entrance(self._sender, name, None))

    def forget(self, name: str) -> None:
        """Nobody knows it any more, unless it runs here."""
        with self._lock:
            if name not in self._here:
                self._known.pop(name, None)
