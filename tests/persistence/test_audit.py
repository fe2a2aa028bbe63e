from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from actorbus.errors import InvalidName, InvalidQuery
from actorbus.message import MessageKind, Priority, Reason, Status, format_id


@pytest.fixture
def told(history: Any) -> Any:
    """Six messages a second apart; the payload is which."""
    recorder = history.record()
    sent: list[dict[str, Any]] = [
        {"sender": None, "recipient": "scout", "run_id": "run-1"},
        {"sender": "scout", "recipient": "surveyor"},
        {"sender": "scout", "recipient": None, "kind": MessageKind.BROADCAST},
        {"sender": "surveyor", "recipient": "librarian", "type": "Finding"},
        {"sender": "surveyor", "recipient": "scout"},
        {"sender": "scout", "recipient": "librarian"},
    ]
    messages = [
        (history.message(f"payload {number}", **fields), history.clock.advance(1))[0]
        for number, fields in enumerate(sent)
    ]
    for message in messages:
        recorder.sent(message)
    history.end(recorder, messages[0])
    recorder.flush(10)
    history.end(recorder, messages[1])
    history.end(recorder, messages[2], recipient="librarian")
    history.end(recorder, messages[3], Status.DEAD, reason=Reason.EXPIRED, error="Too 100% late")
    history.end(recorder, messages[4], Status.FAILED, reason=Reason.HANDLER_ERROR)
    history.sent = messages
    return history


def _numbers(views: list[Any]) -> list[int]:
    return [int(view.payload.rsplit(" ", 1)[1]) for view in views]


START = 1_700_000_000.0


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, [5, 4, 3, 2, 1, 0]),
        ({"limit": 2}, [5, 4]),
        ({"sender": "scout"}, [5, 2, 1]),
        ({"recipient": "librarian"}, [5, 3, 2]),
        ({"agent": "scout"}, [5, 4, 2, 1, 0]),
        ({"agent": "librarian"}, [5, 3, 2]),
        ({"agent": "librarian", "limit": 2}, [5, 3]),
        ({"agent": "scout", "recipient": "librarian"}, [5, 2]),
        ({"type": "Finding"}, [3]),
        ({"status": "handled"}, [2, 1, 0]),
        ({"status": Status.ACCEPTED}, [5]),
        ({"status": "dead"}, [3]),
        ({"status": "failed"}, [4]),
        ({"status": "dead", "agent": "librarian"}, [3]),
        ({"status": "handled", "recipient": "librarian"}, [2]),
        ({"run": "run-1"}, [0]),
        ({"since": START + 3}, [5, 4, 3]),
        ({"until": datetime.fromtimestamp(START + 2, UTC)}, [1, 0]),
        ({"since": START + 1, "until": START + 3}, [2, 1]),
        ({"text": "PAYLOAD 4"}, [4]),
        ({"text": "100% L"}, [3]),
        ({"text": "1%l"}, []),
        ({"sender": "nobody"}, []),
        ({"sender": "'; --"}, []),
    ],
    ids=str,
)
def test_each_filter_finds_its_messages_newest_first(
    told: Any, wanted: dict[str, Any], found: list[int]
) -> None:
    assert _numbers(told.audit.messages(**wanted)) == found


@pytest.mark.parametrize("limit", [1, 2, 4, 6, 100])
@pytest.mark.parametrize("wanted", [{}, {"agent": "librarian"}, {"status": "handled"}], ids=str)
def test_pages_follow_one_another_without_gap_or_double(
    told: Any, wanted: dict[str, Any], limit: int
) -> None:
    everything = told.audit.messages(**wanted)
    paged: list[Any] = []

    while page := told.audit.messages(
        **wanted, limit=limit, before=paged[-1].id if paged else None
    ):
        paged += page

    assert paged == everything


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"limit": 0}, "from 1 to 10,000"),
        ({"limit": 10_001}, "page with before="),
        ({"status": "lost"}, "accepted, handled, failed, dead"),
        ({"since": datetime(2026, 1, 1)}, "no time zone"),  # noqa: DTZ001 - that is the point
        ({"until": float("inf")}, "no time in seconds"),
    ],
    ids=str,
)
def test_a_filter_that_cannot_be_meant_is_refused(
    told: Any, wanted: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidQuery, match=says):
        told.audit.messages(**wanted)


def test_an_id_is_an_int_a_text_or_a_uuid(told: Any) -> None:
    number = told.sent[3].id

    views = {told.audit.message(one).id for one in (number, format_id(number), UUID(int=number))}

    assert views == {number}


def test_an_id_that_is_none_is_refused(told: Any) -> None:
    with pytest.raises(InvalidName, match="message ids look like"):
        told.audit.message("nonsense")
    with pytest.raises(InvalidName):
        told.audit.messages(before="nonsense")


def test_a_message_nobody_sent_is_none(told: Any) -> None:
    assert told.audit.message(1) is None
    assert told.audit.conversation(1) == []


def test_a_view_says_all_that_the_envelope_said(history: Any) -> None:
    recorder = history.record()
    now = history.clock.now()
    message = history.message(
        {"n": 1},
        priority=Priority.HIGH,
        deadline=now + 30,
        headers={"trace": "abc"},
        causation_id=7,
        hops=3,
        topic="prices.eur",
    )
    recorder.sent(message)
    recorder.ended(message, "bob", Status.HANDLED, None, None, now + 0.25, now + 0.75)

    view = history.audit.message(message.id)

    created = datetime.fromtimestamp(now, UTC)
    assert (view.id, view.type, view.payload, view.node) == (message.id, "dict", {"n": 1}, "node-1")
    assert (view.sender, view.recipient, view.topic) == ("alice", "bob", "prices.eur")
    assert (view.priority, view.headers, view.hops) == (Priority.HIGH, {"trace": "abc"}, 3)
    assert (view.correlation_id, view.causation_id) == (message.id, 7)
    assert (view.created_at, view.deadline) == (created, created + timedelta(seconds=30))
    assert (view.waited, view.took) == (0.25, 0.5)
    assert view.created_at.tzinfo is UTC


def test_a_conversation_is_in_the_order_of_sending(history: Any) -> None:
    recorder = history.record()
    first = history.message("question")
    answer = history.message(
        "answer", kind=MessageKind.REPLY, correlation_id=first.id, causation_id=first.id
    )
    other = history.message("unrelated")
    for message in (other, answer, first):
        recorder.sent(message)

    by_its_id = history.audit.conversation(first.id)
    by_a_member = history.audit.conversation(answer.id)

    assert [view.payload for view in by_its_id] == ["question", "answer"]
    assert by_a_member == by_its_id
    assert len(history.audit.conversation(first.id, limit=1)) == 1


def test_counts_go_by_what_became_of_each_message(told: Any) -> None:
    counts = told.audit.counts()

    assert counts.messages == 6
    assert counts.by_status == {
        Status.HANDLED: 3,
        Status.ACCEPTED: 1,
        Status.FAILED: 1,
        Status.DEAD: 1,
    }
    assert counts.by_kind == {MessageKind.TELL: 5, MessageKind.BROADCAST: 1}
    assert counts.by_type == {"Finding": 1, "str": 5}


def test_a_tenant_and_a_project_see_their_own_history_only(told: Any) -> None:
    first = told.sent[0].id

    for other in (told.audit.bind("other", "default"), told.audit.bind("default", "other")):
        assert other.messages() == []
        assert other.message(first) is None
        assert other.conversation(first) == []
        assert other.counts().messages == 0


def test_tenants_share_a_database_without_meeting(history: Any) -> None:
    mine = history.record()
    history.audit = history.audit.bind("other", "default")
    theirs = history.record()
    message = history.message("the same id")

    mine.sent(message)
    mine.flush(10)
    theirs.sent(message)
    theirs.flush(10)
    history.end(theirs, message)

    assert history.audit.message(message.id).status is Status.HANDLED
    assert history.audit.counts().by_status == {Status.HANDLED: 1}
    other = history.audit.bind("default", "default")
    assert other.message(message.id).status is Status.ACCEPTED
    assert other.counts().by_status == {Status.ACCEPTED: 1}


def test_history_is_read_while_it_is_written(file_history: Any, lock: Any) -> None:
    recorder = file_history.record()
    recorder.sent(file_history.message())
    recorder.flush(10)

    lock.take()

    assert len(file_history.audit.messages()) == 1
    lock.release()


def test_what_just_happened_is_in_the_answer(history: Any) -> None:
    recorder = history.record(audit_interval=3600)
    message = history.message()

    recorder.sent(message)

    assert history.audit.message(message.id) is not None


def test_history_is_read_after_its_node_has_stopped(history: Any) -> None:
    recorder = history.record()
    message = history.message()
    recorder.sent(message)

    recorder.close(10)

    assert history.audit.message(message.id) is not None
