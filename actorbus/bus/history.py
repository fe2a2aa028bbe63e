"""The bounded ring of how messages ended.

Theory. The ring turns over with every message, so what it is made of decides what a message
costs. A tuple for each would have the garbage collector visit its every slot, a tenth of the
price of a tell. So the ring is one flat deque, ``WIDTH`` slots an ending: what they are is told
by ``Slots``, and what most endings have in common is one shared tuple, their ``Manner``.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from actorbus.message import (
    Ending,
    MessageId,
    MessageKind,
    Priority,
    Reason,
    Status,
    parse_id,
    type_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from uuid import UUID

Manner = tuple[MessageKind, str | None, int, Status, Reason | None, str | None, Any]
"""(kind, topic, attempt, status, reason, error, payload)"""

Slots = tuple[
    MessageId,
    type[Any] | str,
    str | None,
    str | None,
    int,
    float,
    float | None,
    float,
    MessageId,
    MessageId | None,
    str | None,
    Manner,
]
"""(id, type, sender, recipient, priority, created_at, started_at, ended_at, correlation_id,
causation_id, run_id, manner)"""

WIDTH: Final = 12


_PLAINLY_HANDLED: Final[dict[MessageKind, Manner]] = {
    kind: (kind, None, 1, Status.HANDLED, None, None, None) for kind in MessageKind
}
HANDLED_TELL: Final = _PLAINLY_HANDLED[MessageKind.TELL]
HANDLED_REQUEST: Final = _PLAINLY_HANDLED[MessageKind.REQUEST]
HANDLED_REPLY: Final = _PLAINLY_HANDLED[MessageKind.REPLY]


def handled_as(
    kind: MessageKind, topic: str | None = None, attempt: int = 1, payload: Any = None
) -> Manner:
    """How a message was handled; the same tuple for all that are alike in the usual way."""
    if topic is None and attempt == 1 and payload is None and kind in _PLAINLY_HANDLED:
        return _PLAINLY_HANDLED[kind]
    return (kind, topic, attempt, Status.HANDLED, None, None, payload)


def ending_of(slots: Slots) -> Ending:
    """What the ring keeps as `slots`."""
    (
        message_id,
        payload_type,
        sender,
        recipient,
        priority,
        created_at,
        started_at,
        ended_at,
        correlation_id,
        causation_id,
        run_id,
        (kind, topic, attempt, status, reason, error, payload),
    ) = slots
    return Ending(
        message_id,
        kind,
        payload_type if isinstance(payload_type, str) else type_name(payload_type),
        sender,
        recipient,
        topic,
        Priority(priority),
        created_at,
        started_at,
        ended_at,
        correlation_id,
        causation_id,
        run_id,
        attempt,
        status,
        reason,
        error,
        payload,
    )


class History:
    """The last deliveries that ended, oldest first. Payloads are kept only on request.

    ``append`` takes the slots of an ending: making one is left to whoever reads, because
    everything that happens comes through here.
    """

    __slots__ = ("_ring", "append", "payloads")

    append: Callable[[Slots], None]

    def __init__(self, size: int, *, payloads: bool = False) -> None:
        self._ring: deque[Any] = deque(maxlen=size * WIDTH)
        # Extending a deque by a tuple is one atomic step, also where it pushes out the oldest.
        self.append = self._ring.extend
        self.payloads = payloads

    def __iter__(self) -> Iterator[Ending]:
        return iter([ending_of(slots) for slots in self._entries()])

    def __len__(self) -> int:
        return len(self._ring) // WIDTH

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
        for slots in reversed(self._entries()):
            if len(found) >= limit:
                break
            ending = ending_of(slots)
            if agent is not None and agent not in (ending.sender, ending.recipient):
                continue
            if type is not None and type != ending.type:
                continue
            found.append(ending)
        return found

    def _entries(self) -> Sequence[Slots]:
        """A copy of the ring, oldest first."""
        slots: Iterator[Any] = iter(self._ring.copy())
        return tuple(zip(*[slots] * WIDTH, strict=True))
