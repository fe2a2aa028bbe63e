"""The conversation on a time scale, as a trace that Perfetto and chrome://tracing open.

The JSON Object Format: a process per node, a thread per agent, a slice per handling, an arrow
per delivery, and beside the threads how long messages waited. Times are microseconds since the
first message.

An arrow binds to slices, so what was sent or came outside of any handling gets a slice of 1 us.
Its id is a number in hexadecimal: Perfetto leaves out an arrow whose id is any other text.
Slices of one thread must nest: an agent that handles several messages at a time has a thread
for each. History says which node recorded a message, not where an agent runs: an agent is shown
on the node of the first message it sent, else of the first it got.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from actorbus.message import format_id
from actorbus.persistence.drawing.label import lane_name, standing
from actorbus.persistence.drawing.wording import clipped, elided

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from actorbus.message import MessageId
    from actorbus.persistence.drawing.sequence import Arrow, Bar, Diagram, End

_Event = dict[str, Any]

_CELLS: Final = 128
_LONG: Final = 2_000
_MICROSECOND: Final = timedelta(microseconds=1)


def chrome_trace(diagram: Diagram) -> str:
    """The file's text, in ASCII."""
    events = list(_Trace(diagram).events()) if diagram.arrows else []
    return json.dumps({"displayTimeUnit": "ms", "traceEvents": events}, indent=1) + "\n"


class _Slice(NamedTuple):
    begins: int
    ends: int
    message: MessageId
    track: dict[str, int]
    """The process and the thread."""

    def inside(self, moment: int) -> int:
        """The moment, or the nearest one at which the slice is open."""
        return max(self.begins, min(moment, self.ends - 1))


class _Trace:
    """One conversation's events, and where on which thread each belongs."""

    def __init__(self, diagram: Diagram) -> None:
        self._diagram = diagram
        self._start = min(arrow.sent for arrow in diagram.arrows)
        self._homes = _homes(diagram)
        self._processes = {name: pid for pid, name in enumerate(dict.fromkeys(self._homes), 1)}
        slots = {(lane, 0) for lane in range(len(diagram.lanes))}
        slots.update((bar.lane, bar.slot) for bar in diagram.bars)
        self._threads = {slot: tid for tid, slot in enumerate(sorted(slots), 1)}
        self._handled = [self._handling(bar) for bar in diagram.bars]
        self._open: dict[int, dict[int, list[_Slice]]] = {}
        """Per lane and slot its handlings in order of time."""
        self._first: dict[tuple[int, int], _Slice] = {}
        """The first handling of an arrow on a lane."""
        self._flows = count(1)
        for bar, handling in zip(diagram.bars, self._handled, strict=True):
            self._open.setdefault(bar.lane, {}).setdefault(bar.slot, []).append(handling)
            self._first.setdefault((bar.arrow, bar.lane), handling)

    def events(self) -> Iterator[_Event]:
        yield from self._names()
        for number, bar in enumerate(self._diagram.bars):
            yield from self._worked(number, bar, self._handled[number])
        for number, arrow in enumerate(self._diagram.arrows):
            yield from self._moved(number, arrow)

    def _names(self) -> Iterator[_Event]:
        for node, process in self._processes.items():
            yield _named("process_name", {"pid": process, "tid": 0}, name=elided(node, _CELLS))
        for lane, slot in self._threads:
            name = lane_name(self._diagram.lanes[lane], _CELLS)
            track = self._track(lane, slot)
            yield _named("thread_name", track, name=f"{name} ({slot + 1})" if slot else name)
            yield _named("thread_sort_index", track, sort_index=track["tid"])

    def _worked(self, number: int, bar: Bar, handling: _Slice) -> Iterator[_Event]:
        """A handling, and the wait before it. Waits overlap, so no thread could hold them."""
        arrow = self._diagram.arrows[bar.arrow]
        told = self._told(arrow)
        outcome = {"attempt": bar.delivery.attempt, "status": str(bar.delivery.status)}
        if bar.delivery.reason:
            outcome["reason"] = elided(bar.delivery.reason, _CELLS)
        if bar.delivery.error:
            outcome["error"] = clipped(bar.delivery.error, _LONG)
        name = elided(arrow.view.type, _CELLS)
        yield _slice(handling, name, "handling", told | outcome)
        sent = self._at(arrow.sent)
        wait = {
            "name": f"waiting for {lane_name(self._diagram.lanes[bar.lane], _CELLS)}",
            "cat": "waiting",
            "id": f"{format_id(arrow.view.id)}/{number}",  # an attempt may be told of twice
            **handling.track,
        }
        if sent < handling.begins:
            yield {"ph": "b", "ts": sent, **wait, "args": told}
            yield {"ph": "e", "ts": handling.begins, **wait}

    def _moved(self, number: int, arrow: Arrow) -> Iterator[_Event]:
        """From the slice that sent the message to each that got it."""
        sent = self._at(arrow.sent)
        leaving = self._at_work(arrow.source, sent, arrow.view.causation_id)
        if leaving is None:
            leaving = self._instant(arrow, arrow.source, sent)
            yield self._happening(leaving, arrow, "send")
        for end in arrow.ends:
            handling = self._first.get((number, end.lane))
            moment = self._arrival(arrow, end) if handling is None else handling.begins
            if moment is None:
                continue
            if handling is None and not end.wrong:
                handling = self._at_work(end.lane, moment)
            if handling is None:
                handling = self._instant(arrow, end.lane, moment)
                yield self._happening(handling, arrow, standing(end.status, end.reason) or "get")
            flow = {
                "name": elided(arrow.view.kind, _CELLS),
                "cat": "message",
                "id": hex(next(self._flows)),
            }
            departs = leaving.inside(sent)
            arrives = max(departs, handling.inside(moment))
            yield {"ph": "s", "ts": departs, **flow, **leaving.track}
            yield {"ph": "f", "bp": "e", "ts": arrives, **flow, **handling.track}

    def _arrival(self, arrow: Arrow, end: End) -> int | None:
        """When it is known to have come where nobody handled it."""
        name = self._diagram.lanes[end.lane]
        came = [one.ended_at for one in arrow.view.deliveries if one.recipient == name]
        return self._at(max(came[-1], arrow.sent)) if came else None

    def _at_work(self, lane: int, moment: int, cause: MessageId | None = None) -> _Slice | None:
        """The handling that `lane` is in: best that of `cause`, else any."""
        open_ = []
        for handlings in self._open.get(lane, {}).values():
            after = bisect_right(handlings, moment, key=_begins)
            open_ += [one for one in handlings[max(0, after - 2) : after] if one.ends >= moment]
        return next((one for one in open_ if one.message == cause), open_[-1] if open_ else None)

    def _handling(self, bar: Bar) -> _Slice:
        begins = self._at(bar.begins)
        ends = max(self._at(bar.ends), begins + 1)
        message = self._diagram.arrows[bar.arrow].view.id
        return _Slice(begins, ends, message, self._track(bar.lane, bar.slot))

    def _instant(self, arrow: Arrow, lane: int, moment: int) -> _Slice:
        return _Slice(moment, moment + 1, arrow.view.id, self._track(lane, 0))

    def _happening(self, instant: _Slice, arrow: Arrow, word: str) -> _Event:
        name = f"{elided(word, _CELLS)} {elided(arrow.view.type, _CELLS)}"
        return _slice(instant, name, "message", self._told(arrow))

    def _told(self, arrow: Arrow) -> dict[str, Any]:
        view = arrow.view
        told: dict[str, Any] = {
            "id": format_id(view.id),
            "kind": elided(view.kind, _CELLS),
            "sender": lane_name(view.sender, _CELLS),
            "priority": view.priority.name,
        }
        if view.topic is not None:
            told["topic"] = elided(view.topic, _CELLS)
        if view.payload is not None:
            told["payload"] = clipped(json.dumps(view.payload, default=str), _LONG)
        return told

    def _track(self, lane: int, slot: int) -> dict[str, int]:
        return {"pid": self._processes[self._homes[lane]], "tid": self._threads[lane, slot]}

    def _at(self, moment: datetime) -> int:
        return (moment - self._start) // _MICROSECOND


def _homes(diagram: Diagram) -> list[str]:
    """The node on which each lane is shown."""
    sends: dict[int, str] = {}
    gets: dict[int, str] = {}
    for arrow in diagram.arrows:
        sends.setdefault(arrow.source, arrow.view.node)
        for end in arrow.ends:
            gets.setdefault(end.lane, arrow.view.node)
    homes = gets | sends
    return [homes[lane] for lane in range(len(diagram.lanes))]


def _slice(where: _Slice, name: str, category: str, told: dict[str, Any]) -> _Event:
    span = {"ts": where.begins, "dur": where.ends - where.begins}
    return {"ph": "X", "name": name, "cat": category, **span, **where.track, "args": told}


def _named(what: str, track: dict[str, int], **value: Any) -> _Event:
    return {"ph": "M", "name": what, **track, "args": value}


def _begins(handling: _Slice) -> int:
    return handling.begins
