"""A conversation laid out as a sequence diagram: pure decisions, which the formats then draw.

Agents are lanes from left to right, time goes down. A message is an arrow on a row of its own,
however close to others it was sent, so no two labels share a row. A handling is a bar on its
agent's lane from when it began until it ended, and encloses what was sent meanwhile.

Down the page only the order of time is kept, not its scale: ten quiet minutes take no room and
ten busy microseconds stay readable. What happened strictly before is strictly above. A message
stands below the one that caused it even where the clocks of two nodes say otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from actorbus.message import MessageKind, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from actorbus.message import Reason
    from actorbus.persistence.answers import Delivery, MessageView

ROW: Final = 1.0
"""The least distance between two arrows: the unit of all ``y``."""
_STEP: Final = 0.125
"""Between two beginnings or ends of bars, and down to either from an arrow."""
_CLEAR: Final = 0.5625
"""Above an arrow, kept free of them for its label. Like all steps exact in binary: sums of
them round nowhere, and two arrows are never the least bit too close."""

_ARROW: Final = 0
_TOP: Final = 1
_BOTTOM: Final = 2
"""What a step down the page is."""

_ANSWERS: Final = frozenset({MessageKind.REPLY, MessageKind.ERROR})
_TO_MANY: Final = frozenset({MessageKind.BROADCAST, MessageKind.EVENT})
_WRONG: Final = frozenset({Status.FAILED, Status.DEAD})


@dataclass(frozen=True, slots=True)
class End:
    """Where an arrow arrives, and what became of the message there."""

    lane: int
    status: Status
    reason: Reason | None

    @property
    def wrong(self) -> bool:
        return self.status in _WRONG


@dataclass(frozen=True, slots=True)
class Arrow:
    """A message. One to many has an end per recipient, and none where nobody took it."""

    view: MessageView
    source: int
    ends: tuple[End, ...]
    y: float
    sent: datetime
    """As the sender's clock said, but not before the message that caused it."""
    depth: int
    """How many messages led to this one, one causing the next."""
    after: float
    """Seconds since the first message."""

    @property
    def answer(self) -> bool:
        return self.view.kind in _ANSWERS

    @property
    def to_many(self) -> bool:
        return self.view.kind in _TO_MANY

    @property
    def wrong(self) -> bool:
        """It failed everywhere, or says that something else did."""
        if self.view.kind == MessageKind.ERROR:
            return True
        if self.ends:
            return all(end.wrong for end in self.ends)
        return self.view.status in _WRONG

    @property
    def waits(self) -> bool:
        """Nobody has handled it yet, as far as history knows."""
        return self.view.status == Status.ACCEPTED and not (self.to_many and self.ends)


@dataclass(frozen=True, slots=True)
class Bar:
    """An agent at work on a message. Bars of a lane that overlap in time have other slots."""

    arrow: int
    lane: int
    slot: int
    top: float
    bottom: float
    delivery: Delivery
    begins: datetime
    ends: datetime

    @property
    def wrong(self) -> bool:
        return self.delivery.status in _WRONG


@dataclass(frozen=True, slots=True)
class Diagram:
    """``lanes`` are names in order of first appearance; None is all that is no agent."""

    lanes: tuple[str | None, ...]
    arrows: tuple[Arrow, ...]
    bars: tuple[Bar, ...]
    height: float


def lay_out(views: Sequence[MessageView]) -> Diagram:
    """The diagram of a conversation. `views` may be in any order, and some may be missing."""
    places = _places(views)
    told = sorted(range(len(views)), key=lambda index: places[index])
    handlings = _handlings(views, places, told)
    rows, spans, height = _down([places[index] for index in told], handlings)
    lanes: dict[str | None, int] = {}
    arrows = []
    for number, index in enumerate(told):
        view, place = views[index], places[index]
        source = lanes.setdefault(view.sender, len(lanes))
        ends = tuple(
            End(lanes.setdefault(name, len(lanes)), status, reason)
            for name, status, reason in _ends(view)
        )
        after = (view.created_at - views[told[0]].created_at).total_seconds()
        arrows.append(Arrow(view, source, ends, rows[number], place.moment, place.depth, after))
    return Diagram(tuple(lanes), tuple(arrows), _bars(handlings, spans, lanes), height)


def _ends(view: MessageView) -> Iterable[tuple[str | None, Status, Reason | None]]:
    """Whom a message reached, each once, with the last that became of it there."""
    if view.kind not in _TO_MANY:
        return [(view.recipient, view.status, view.reason)]
    last = {one.recipient: one for one in view.deliveries if one.recipient is not None}
    return [(name, one.status, one.reason) for name, one in last.items()]


class _Place(NamedTuple):
    """Where a message stands in the order of telling, which is that of the fields."""

    moment: datetime
    late: bool
    """Sent by a handling that began at this very moment: after what ended at it."""
    position: int
    depth: int


def _places(views: Sequence[MessageView]) -> list[_Place]:
    """By the time of sending, but never before the message that caused it."""
    at = {view.id: index for index, view in enumerate(views)}
    found: dict[int, _Place] = {}
    for index in range(len(views)):
        chain: dict[int, None] = {}
        step: int | None = index
        # A broken history could hold a ring; it is opened where it was entered.
        while step is not None and step not in found and step not in chain:
            chain[step] = None
            cause = views[step].causation_id
            step = None if cause is None else at.get(cause)
        above = None if step in chain else step
        for member in reversed(chain):
            if above is None:
                found[member] = _Place(views[member].created_at, False, member, 0)
            else:
                found[member] = _below(found[above], views[above], views[member], member)
            above = member
    return [found[index] for index in range(len(views))]


def _below(above: _Place, cause: MessageView, view: MessageView, position: int) -> _Place:
    moment = max(view.created_at, above.moment)
    begun = any(
        one.recipient == view.sender and one.started_at is not None and one.started_at >= moment
        for one in cause.deliveries
    )
    late = begun or (above.late and above.moment == moment)
    return _Place(moment, late, max(position, above.position), above.depth + 1)


class _Handling(NamedTuple):
    """``begins`` and ``ends`` as the clocks said, but not before the message was sent."""

    number: int
    recipient: str
    delivery: Delivery
    begins: datetime
    ends: datetime


def _handlings(
    views: Sequence[MessageView], places: Sequence[_Place], told: Sequence[int]
) -> list[_Handling]:
    found = []
    for number, index in enumerate(told):
        if views[index].kind in _ANSWERS:
            continue
        for one in views[index].deliveries:
            if one.recipient is not None and one.started_at is not None:
                begins = max(one.started_at, places[index].moment)
                ends = max(one.ended_at, begins)
                found.append(_Handling(number, one.recipient, one, begins, ends))
    return found


def _down(
    places: Sequence[_Place], handlings: Sequence[_Handling]
) -> tuple[list[float], list[tuple[float, float]], float]:
    """The y of every arrow, the y from and to of every handling, and the height of it all.

    At one instant go first what was sent by those at work before, then their ends, the inner
    first, then who begins, each with what it sends.
    """
    steps: list[tuple[tuple[datetime, int, int, int], int, int]] = []
    for number, place in enumerate(places):
        steps.append(((place.moment, 2 if place.late else 0, number, 0), _ARROW, number))
    for index, (number, _, _, begins, ends) in enumerate(handlings):
        steps.append(((begins, 2, number, 1), _TOP, index))
        end = (ends, 1, -number, 0) if begins < ends else (ends, 2, number, 2)
        steps.append((end, _BOTTOM, index))
    placed: tuple[dict[int, float], dict[int, float], dict[int, float]] = ({}, {}, {})
    row = y = 0.0
    for _, what, which in sorted(steps):
        if what == _ARROW:
            row = y = max(row + ROW, y + _CLEAR)
        else:
            y += _STEP
        placed[what][which] = y
    rows, tops, bottoms = placed
    spans = [(tops[index], bottoms[index]) for index in range(len(handlings))]
    return [rows[number] for number in range(len(places))], spans, y + ROW / 2


def _bars(
    handlings: Sequence[_Handling],
    spans: Sequence[tuple[float, float]],
    lanes: dict[str | None, int],
) -> tuple[Bar, ...]:
    """Each in the first slot of its lane that is free over its whole length."""
    busy: dict[int, list[float]] = {}
    bars = []
    for index in sorted(range(len(handlings)), key=lambda index: spans[index]):
        number, recipient, delivery, begins, ends = handlings[index]
        top, bottom = spans[index]
        lane = lanes[recipient]
        until = busy.setdefault(lane, [])
        slot = next((slot for slot, end in enumerate(until) if end <= top), len(until))
        until[slot : slot + 1] = [bottom]
        bars.append(Bar(number, lane, slot, top, bottom, delivery, begins, ends))
    return tuple(bars)
