"""Where senders put messages: the way into an agent's log, and into that of topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.bus.mailbox import Offered
    from actorbus.bus.transports.redis.sender import Sender
    from actorbus.message import Message


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
