"""What a node could run for others: agents that move between nodes, and how they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from actorbus.actors.cell import Cell
from actorbus.errors import Undecodable

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.actors.agent import Agent
    from actorbus.actors.runtime import Runtime
    from actorbus.bus.mailbox import Inbox, MailboxPolicy


class Packs(Protocol):
    """What carries an agent's arguments from one process to another."""

    def encode_payload(self, payload: Any) -> bytes: ...

    def decode_payload(self, data: bytes) -> Any: ...


class Crew:
    """The agents of a runtime that any node may run which knows their class.

    Such an agent is recorded as its class's name and the arguments it was made with; a new
    instance begins from those. No class is ever imported because somebody named it: a node makes
    agents of classes that it has loaded or spawned itself.
    """

    def __init__(
        self,
        runtime: Runtime,
        packs: Packs,
        offer: Callable[[str, MailboxPolicy, bytes], None],
        comes_back: Callable[[str], bool],
        *,
        muster: Callable[[str, float], tuple[int, int]],
        nobodys: Callable[[list[str]], set[str]],
    ) -> None:
        self._runtime = runtime
        self._packs = packs
        self._offer = offer
        self.comes_back = comes_back
        """Whether an agent that runs nowhere will run again."""
        self.muster = muster
        """This node's place among those that start with it, and how many they are."""
        self.nobodys = nobodys
        """Which of these agents no node has."""
        self._classes: dict[str, type[Agent]] = {}

    def know(self, cls: type[Agent]) -> None:
        """From now on this node can make agents of that class."""
        self._classes[cls.agent_type] = cls

    def stand_by(self, name: str, cls: type[Agent]) -> None:
        """Let others send to an agent that runs nowhere until somebody does.

        Raises:
            TransportUnavailable: nobody could be told.
        """
        self.know(cls)
        self._offer(name, cls.mailbox, self._pack(cls, (), {}))

    def spec(self, inbox: Inbox) -> bytes:
        """How another node makes the agent of `inbox`; nothing if none may.

        Raises:
            UnsupportedPayload, PayloadTooLarge: its arguments cannot be carried.
        """
        cell = inbox.owner
        if not isinstance(cell, Cell):
            return b""
        self.know(cell.agent_class)
        if not cell.failover:
            return b""
        args, kwargs = cell.arguments
        return self._pack(cell.agent_class, args, dict(kwargs))

    def can_make(self, name: str, spec: bytes) -> bool:
        try:
            return self._read(spec)[0] in self._classes
        except Undecodable:
            return False

    def make(self, name: str, spec: bytes) -> None:
        agent_type, args, kwargs = self._read(spec)
        self._runtime.spawn(
            self._classes[agent_type], tuple(args), kwargs, name=name, failover=True
        )

    def _pack(self, cls: type[Agent], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        return self._packs.encode_payload([cls.agent_type, list(args), kwargs])

    def _read(self, spec: bytes) -> tuple[str, list[Any], dict[str, Any]]:
        match self._packs.decode_payload(spec):
            case [str() as agent_type, list() as args, dict() as kwargs]:
                return agent_type, args, kwargs
            case _:
                raise Undecodable("that does not say how an agent is made")
