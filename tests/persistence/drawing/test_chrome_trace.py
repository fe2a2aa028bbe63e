from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from actorbus.message import format_id
from actorbus.persistence.drawing import draw

_FIELDS: dict[str, dict[str, type]] = {
    "M": {"name": str, "pid": int, "tid": int, "args": dict},
    "X": {"name": str, "cat": str, "ts": int, "dur": int, "pid": int, "tid": int, "args": dict},
    "b": {"name": str, "cat": str, "id": str, "ts": int, "pid": int, "tid": int, "args": dict},
    "e": {"name": str, "cat": str, "id": str, "ts": int, "pid": int, "tid": int},
    "s": {"name": str, "cat": str, "id": str, "ts": int, "pid": int, "tid": int},
    "f": {"name": str, "cat": str, "id": str, "ts": int, "pid": int, "tid": int, "bp": str},
}
"""What the Trace Event Format asks of each phase that we use."""


def _events(views: Any) -> list[dict[str, Any]]:
    trace = json.loads(draw(views, "chrome-trace"))
    assert set(trace) == {"displayTimeUnit", "traceEvents"}
    events: list[dict[str, Any]] = trace["traceEvents"]
    return events


def _of(events: list[dict[str, Any]], phase: str) -> list[dict[str, Any]]:
    return [event for event in events if event["ph"] == phase]


def _names(events: list[dict[str, Any]], what: str) -> list[str]:
    return [event["args"]["name"] for event in _of(events, "M") if event["name"] == what]


def _thread(events: list[dict[str, Any]], event: dict[str, Any]) -> str:
    (name,) = {
        one["args"]["name"]
        for one in events
        if one["name"] == "thread_name" and one["tid"] == event["tid"]
    }
    return str(name)


def _encloses(piece: dict[str, Any], event: dict[str, Any]) -> bool:
    inside = piece["ts"] <= event["ts"] < piece["ts"] + piece["dur"]
    return inside and (piece["pid"], piece["tid"]) == (event["pid"], event["tid"])


def test_a_process_is_a_node_and_a_thread_an_agent(view: Any) -> None:
    views = [
        view(0, None, "boss", node="eu-1", handled=(1, 9)),
        view(1, "boss", "counter", node="eu-1", at=2, cause=0, handled=(3, 4)),
        view(2, "counter", "boss", node="us-1", at=4, cause=1, handled=(10, 11)),
    ]

    events = _events(views)

    assert _names(events, "process_name") == ["eu-1", "us-1"]
    assert _names(events, "thread_name") == ["outside", "boss", "counter"]
    (counter,) = (one for one in _of(events, "X") if one["args"]["id"] == format_id(views[1].id))
    assert (_thread(events, counter), counter["pid"]) == ("counter", 2)


def test_a_handling_is_a_slice_and_its_wait_another(small: Any) -> None:
    events = _events(small)

    (handling,) = (
        event
        for event in _of(events, "X")
        if event["cat"] == "handling" and event["args"]["id"] == format_id(small[1].id)
    )
    waits = [
        (event["ph"], event["ts"])
        for event in events
        if event.get("cat") == "waiting" and event["id"].startswith(format_id(small[1].id))
    ]

    assert (handling["name"], handling["ts"], handling["dur"]) == ("Text", 350, 1_050)
    assert _thread(events, handling) == "counter"
    assert handling["args"]["status"] == "handled"
    assert handling["args"]["payload"] == '{"body": "to be"}'
    assert waits == [("b", 120), ("e", 350)]


def test_an_arrow_goes_from_the_handling_that_sent_to_the_one_that_got(small: Any) -> None:
    events = _events(small)

    def flow(phase: str) -> dict[str, Any]:
        (one,) = (event for event in _of(events, phase) if event["id"] == flow_id)
        return one

    (flow_id,) = (
        event["id"]
        for event in _of(events, "f")
        if any(
            _encloses(piece, event) and piece["args"]["id"] == format_id(small[1].id)
            for piece in _of(events, "X")
        )
    )
    assert (_thread(events, flow("s")), flow("s")["ts"]) == ("boss", 120)
    assert (_thread(events, flow("f")), flow("f")["ts"]) == ("counter", 350)


def test_a_dead_letter_ends_in_a_slice_with_the_reason(small: Any) -> None:
    events = _events(small)

    (letter,) = (event for event in _of(events, "X") if _thread(events, event) == "ghost")

    assert letter["name"] == "dead: no-such-agent Text"


def test_an_agent_with_two_things_in_hand_has_two_threads(view: Any) -> None:
    views = [
        view(0, None, "bob", handled=(5, 20)),
        view(1, None, "bob", at=1, handled=(10, 30)),
    ]

    assert _names(_events(views), "thread_name") == ["outside", "bob", "bob (2)"]


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_every_event_is_as_the_format_wants_it(data: st.DataObject, conversations: Any) -> None:
    views = data.draw(conversations)

    assert draw(views, "chrome-trace").isascii()
    events = _events(views)

    for event in events:
        fields = _FIELDS[event["ph"]]
        assert set(event) == {"ph", *fields}
        assert all(type(event[name]) is kind for name, kind in fields.items())
        assert event.get("ts", 0) >= 0
        assert event.get("dur", 1) >= 1
    tracks = Counter((event["name"], event["pid"], event["tid"]) for event in _of(events, "M"))
    assert all(count == 1 for count in tracks.values())


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_every_handling_is_a_slice_and_slices_of_a_thread_nest(
    data: st.DataObject, conversations: Any
) -> None:
    views = data.draw(conversations)

    slices = _of(_events(views), "X")

    handled = sum(
        one.started_at is not None and one.recipient is not None
        for view in views
        if view.kind not in ("reply", "error")
        for one in view.deliveries
    )
    assert sum(one["cat"] == "handling" for one in slices) == handled
    for one, other in combinations(slices, 2):
        if (one["pid"], one["tid"]) == (other["pid"], other["tid"]):
            first, second = sorted((one, other), key=lambda piece: (piece["ts"], -piece["dur"]))
            until = first["ts"] + first["dur"]
            assert second["ts"] >= until or second["ts"] + second["dur"] <= until


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_every_arrow_has_two_ends_that_lie_in_slices(
    data: st.DataObject, conversations: Any
) -> None:
    events = _events(data.draw(conversations))

    slices = _of(events, "X")
    starts = {event["id"]: event for event in _of(events, "s")}
    finishes = {event["id"]: event for event in _of(events, "f")}
    assert starts.keys() == finishes.keys()
    # As Perfetto reads them: in base 16, and an id that is none is dropped without a word.
    assert len({int(flow, 16) for flow in starts}) == len(starts)
    assert all(0 < int(flow, 16) < 1 << 64 for flow in starts)
    assert len(starts) == len(_of(events, "s")) == len(_of(events, "f"))
    for flow, start in starts.items():
        assert start["ts"] <= finishes[flow]["ts"]
        assert any(_encloses(piece, start) for piece in slices)
        assert any(_encloses(piece, finishes[flow]) for piece in slices)


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_what_belongs_together_is_called_the_same_and_every_track_has_a_name(
    data: st.DataObject, conversations: Any
) -> None:
    events = _events(data.draw(conversations))

    for begins, ends in (("s", "f"), ("b", "e")):
        closed = {(one["cat"], one["id"]): one for one in _of(events, ends)}
        for one in _of(events, begins):
            other = closed.pop((one["cat"], one["id"]))
            assert (one["name"], one["ts"] <= other["ts"]) == (other["name"], True)
        assert not closed
    assert {one["bp"] for one in _of(events, "f")} <= {"e"}
    named = {what: set[Any]() for what in ("process_name", "thread_name", "thread_sort_index")}
    for one in _of(events, "M"):
        (word,) = one["args"]
        assert type(one["args"][word]) is {"name": str, "sort_index": int}[word]
        named[one["name"]].add((one["pid"], one["tid"]))
    tracks = {(one["pid"], one["tid"]) for one in events if one["ph"] != "M"}
    assert tracks <= named["thread_name"] == named["thread_sort_index"]
    assert {process for process, _ in tracks} <= {process for process, _ in named["process_name"]}


def test_times_are_microseconds_since_the_first_message(view: Any) -> None:
    views = [view(0, None, "bob", at=5_000, handled=(1_005_000, 3_505_000))]

    (handling,) = (one for one in _of(_events(views), "X") if one["cat"] == "handling")

    assert (handling["ts"], handling["dur"]) == (1_000_000, 2_500_000)
