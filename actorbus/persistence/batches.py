"""What the writer of history makes of what waited together: batches, one transaction each.

A message and its ending become one row, an ending that comes later becomes an event.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from actorbus.errors import AuditUnavailable
from actorbus.message import Entry, Message, MessageId, MessageKind, envelope
from actorbus.persistence.payloads import encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actorbus.clock import Clock
    from actorbus.message import IdSource
    from actorbus.persistence.frames import Happening, Pair
    from actorbus.persistence.rows import Outcome

_SAMPLE: Final = 128
_TO_MANY: Final = frozenset({MessageKind.BROADCAST, MessageKind.EVENT})


class Ticket:
    """A message whose sender waits until it is committed."""

    __slots__ = ("committed", "message")

    def __init__(self, message: Message[Any]) -> None:
        self.message = message
        self.committed: Future[None] = Future()

    def begin(self) -> bool:
        """Whether its sender still waits; from then on it must hear how it went."""
        return not self.committed.done() and self.committed.set_running_or_notify_cancel()

    def refuse(self, why: str) -> None:
        self.committed.set_exception(
            AuditUnavailable(f"the message was not sent, because of its record: {why}")
        )


Waiting: TypeAlias = "Entry | Ticket"


class Batch(NamedTuple):
    """What goes into one transaction, and the tickets of those who wait for it."""

    pairs: Sequence[Pair]
    events: Sequence[Happening]
    tickets: Sequence[Ticket] = ()

    @property
    def records(self) -> int:
        endings = sum(outcome is not None for _, outcome in self.pairs)
        return len(self.pairs) + endings + len(self.events)

    def commit(self) -> None:
        """Let its senders go on."""
        for ticket in self.tickets:
            ticket.committed.set_result(None)

    def refuse(self, why: str) -> Batch:
        """Fail the sends that wait for it; what is left goes on without them."""
        if not self.tickets:
            return self
        for ticket in self.tickets:
            ticket.refuse(why)
        refused = {ticket.message.id for ticket in self.tickets}
        return Batch(
            [pair for pair in self.pairs if envelope(pair[0]).id not in refused], self.events
        )


class Sorter:
    """Sorts records into batches of at most `size` rows."""

    def __init__(self, size: int, *, ids: IdSource, clock: Clock) -> None:
        self._size = size
        self._ids = ids
        self._clock = clock

    def batches(self, sent: Sequence[Waiting], endings: Sequence[Outcome]) -> Iterator[Batch]:
        """The batches of what waited together, in the order they are to be written."""
        messages, outcomes, happenings, tickets = self._sorted(sent, endings)
        size = self._size
        keys = list(messages)
        # Paired batch by batch: fewer objects for the garbage collector to go round meanwhile.
        for start in range(0, len(keys), size):
            chosen = keys[start : start + size]
            pairs = [(messages[key], outcomes.get(key)) for key in chosen]
            waiting = [tickets[key] for key in chosen if key in tickets] if tickets else []
            yield Batch(pairs, (), waiting)
        for start in range(0, len(happenings), size):
            yield Batch((), happenings[start : start + size])

    def _sorted(
        self, sent: Sequence[Waiting], endings: Sequence[Outcome]
    ) -> tuple[
        dict[MessageId, Entry], dict[MessageId, Outcome], list[Happening], dict[MessageId, Ticket]
    ]:
        """Messages, the endings that go into their rows, all other endings, who waits."""
        messages: dict[MessageId, Entry] = {}
        tickets: dict[MessageId, Ticket] = {}
        for record in sent:
            if isinstance(record, tuple):
                messages[record[0]] = record
            elif not isinstance(record, Ticket):
                messages.setdefault(record.id, record)
            elif record.begin():
                messages[record.message.id] = record.message
                tickets[record.message.id] = record
        outcomes: dict[MessageId, Outcome] = {}
        happenings: list[Happening] = []
        now = self._clock.now()
        for ending in endings:
            key = ending[0]
            if key not in outcomes and key not in tickets and _fits_its_row(messages.get(key)):
                outcomes[key] = ending
            else:
                happenings.append((self._ids.make(now), ending))
        return messages, outcomes, happenings, tickets


class Measure:
    """How many records may wait: at most `records`, and such as fit `size` bytes.

    The bytes are an estimate: one payload in 128 is measured, by the writer. Measuring each at
    the sender would cost it something for every message, and miss what is inside an object.
    """

    def __init__(self, records: int, size: int) -> None:
        self._records = records
        self._size = size
        self._typical = 0.0
        """Bytes of a payload, of late."""

    def fit(self, pairs: Sequence[Pair]) -> int:
        """How many records such as these, and those before, may wait."""
        sample = pairs[::_SAMPLE]
        size = 0
        for entry, _ in sample:
            size += len(encode(entry[2] if isinstance(entry, tuple) else entry.payload))
        self._typical += (size / len(sample) - self._typical) / 4
        fit = int(self._size / max(1.0, self._typical))
        return max(1, min(self._records, fit))


def _fits_its_row(message: Entry | None) -> bool:
    """Whether an ending that waits together with its message can be written into its row."""
    if message is None or isinstance(message, tuple):
        return message is not None
    # A second attempt's row may exist already, and then its ending would go unwritten.
    return message.attempt == 1 and message.kind not in _TO_MANY
