from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actorbus.message import IdSource, Message, MessageKind, Priority
from actorbus.persistence.frames import Frame, Hole, Unreadable, frames, pack, unpack
from actorbus.persistence.masking import Mask
from actorbus.persistence.payloads import encode

BODIES = st.lists(st.binary(max_size=60), min_size=1, max_size=6)


def a_message(payload: Any = None, **fields: Any) -> Message[Any]:
    made = IdSource().make(1_000.0)
    values: dict[str, Any] = {
        "id": made,
        "kind": MessageKind.TELL,
        "sender": "alice",
        "recipient": "bob",
        "topic": None,
        "priority": Priority.HIGH,
        "created_at": 1_000.0,
        "deadline": 1_030.0,
        "correlation_id": made,
        "causation_id": made,
        "run_id": "run",
        "attempt": 2,
        "hops": 3,
        "headers": {"a": "b"},
    }
    return Message(payload=payload, **{**values, **fields})


def a_file(bodies: list[bytes]) -> tuple[bytes, list[Frame]]:
    made = [Frame(number, 1, body) for number, body in enumerate(bodies)]
    return b"".join(frame.packed() for frame in made), made


@settings(deadline=None)
@given(BODIES)
def test_frames_are_read_as_they_were_written(bodies: list[bytes]) -> None:
    data, made = a_file(bodies)

    assert list(frames(data)) == made


@settings(deadline=None)
@given(BODIES, st.data())
def test_a_file_that_ends_early_has_all_whole_frames_and_a_torn_end(
    bodies: list[bytes], data: st.DataObject
) -> None:
    whole, made = a_file(bodies)
    length = data.draw(st.integers(0, len(whole) - 1))

    found = list(frames(whole[:length]))

    kept = [one for one in found if isinstance(one, Frame)]
    end = sum(len(one.packed()) for one in kept)
    assert kept == made[: len(kept)]
    assert found[len(kept) :] == ([Hole(end, length - end, torn=True)] if end < length else [])


@settings(deadline=None)
@given(BODIES, st.data())
def test_one_wrong_byte_costs_one_frame_and_no_other(
    bodies: list[bytes], data: st.DataObject
) -> None:
    whole, made = a_file(bodies)
    at = data.draw(st.integers(0, len(whole) - 1))
    change = data.draw(st.integers(1, 255))
    wrong = bytearray(whole)
    wrong[at] ^= change

    found = list(frames(bytes(wrong)))

    kept = [one for one in found if isinstance(one, Frame)]
    (hole,) = (one for one in found if isinstance(one, Hole))
    assert len(kept) == len(made) - 1
    assert set(kept) <= set(made)
    assert hole.at <= at < hole.at + hole.size
    assert hole.torn == (found[-1] is hole)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_anything_at_all_is_read_to_its_end(data: bytes) -> None:
    found = list(frames(data))

    sizes = [one.size if isinstance(one, Hole) else len(one.packed()) for one in found]
    assert sum(sizes) == len(data)
    assert not any(isinstance(a, Hole) and isinstance(b, Hole) for a, b in pairwise(found))


def test_zeros_are_no_frames() -> None:
    assert list(frames(bytes(100))) == [Hole(0, 100, torn=True)]


@settings(deadline=None)
@example(b"\x80")
@given(st.binary(max_size=200))
def test_no_body_raises_anything_but_unreadable(body: bytes) -> None:
    try:
        unpack(body)
    except Unreadable:
        return


def test_a_message_comes_back_with_all_that_its_row_holds() -> None:
    message = a_message({"n": 1})
    outcome = (message.id, None, "failed", "rejected", "no", 2, 1_001.0, 1_002.0, "run-1")

    ((count, body),) = pack([(message, outcome)], [(message.id, outcome)])
    pairs, events = unpack(body)

    ((found, ending),) = pairs
    assert isinstance(found, Message)
    assert count == 2
    assert (ending, events) == (outcome, [(message.id, outcome)])
    assert encode(found.payload) == '{"n":1}'
    for field in (*Message.__slots__, "type", "headers"):
        if field not in ("payload", "answer_to", "_type"):
            assert getattr(found, field) == getattr(message, field), field


def test_an_ending_that_was_spilled_before_it_told_its_run_is_read() -> None:
    message = a_message({"n": 1})
    older: Any = (message.id, "bob", "handled", None, None, 1, 1_001.0, 1_002.0)

    ((_, body),) = pack([], [(message.id, older)])
    _, events = unpack(body)

    assert events == [(message.id, (*older, None))]


@pytest.mark.parametrize("odd", [object(), 1 << 70, "half \ud800", b"\xff"])
def test_values_of_the_wrong_type_are_packed_all_the_same(odd: Any) -> None:
    message = a_message(odd, run_id=odd, headers={"x": odd})

    ((_, body),) = pack([(message, None)], [])

    assert len(unpack(body)[0]) == 1


def test_large_records_get_frames_of_their_own() -> None:
    pairs = [(a_message("x" * (1 << 20)), None) for _ in range(3)]

    assert [count for count, _ in pack(pairs, [])] == [1, 1, 1]


def test_what_is_masked_is_masked_on_the_disk_too() -> None:
    message = a_message({"to": "ada@example.org"}, headers={"from": "ada@example.org"})
    outcome = (message.id, None, "dead", None, "no ada@example.org", 1, None, 1.0, None)

    ((_, body),) = pack([(message, outcome)], [(message.id, outcome)], mask=Mask())

    assert b"ada@example.org" not in body
