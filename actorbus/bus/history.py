"""The bounded ring of how messages ended."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from actorbus.message import Ending, MessageId, parse_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID


class History:
    """The last deliveries that ended, oldest first. Payloads are kept only on request.

    ``append`` takes the fields of an ``Ending`` as a plain tuple: making one is left to
    whoever reads, because everything that happens comes through here.
    """

    __slots__ = ("_ring", "append", "payloads")

    append: Callable[[tuple[Any, ...]], None]

    def __init__(self, size: int, *, payloads: bool = False) -> None:
        self._ring: deque[tuple[Any, ...]] = deque(maxlen=size)
        self.append = self._ring.append
        self.payloads = payloads

    def __iter__(self) -> Iterator[Ending]:
        return iter([Ending.of(fields) for fields in self._ring.copy()])

    def __len__(self) -> int:
        return len(self._ring)

    def conversation(self, message_id: str | int | UUID) -> list[Ending]:
        """Everything in the conversation that this message is part of, in the order sent."""
        wanted: MessageId = parse_id(message_id)
        endings = list(self)
        conversation = next(
            (ending.correlation_id for ending in endings if ending.id == wanted), wanted
        )
        return sorted(
            (ending for ending in endings if ending.correlation_id == conversation),
            key=lambda ending: ending.id,
        )

    def list(
        self, *, agent: str | None = None, type: str | None = None, limit: int = 1000
    ) -> list[Ending]:
        """The newest endings, newest first: of messages an agent sent or got, of a type."""
        found: list[Ending] = []
        for fields in reversed(self._ring.copy()):
            if len(found) >= limit:
                break
            ending = Ending.of(fields)
            if agent is not None and agent not in (ending.sender, ending.recipient):
                continue
            if type is not None and type != ending.type:
                continue
            found.append(ending)
        return found
