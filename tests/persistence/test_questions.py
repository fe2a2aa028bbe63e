from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from actorbus.errors import AuditUnavailable, InvalidName, InvalidQuery
from actorbus.message import MessageId, MessageKind, Reason, Status
from actorbus.persistence import cursors, migrations
from actorbus.persistence.audit import Audit
from actorbus.persistence.filters import checked
from actorbus.persistence.questions import pages, trees
from actorbus.persistence.questions.conditions import conditions
from actorbus.persistence.questions.scope import Scope

if TYPE_CHECKING:
    from pathlib import Path

ALL_FILTERS: list[dict[str, Any]] = [
    {},
    {"sender": "alice"},
    {"recipient": "bob"},
    {"agent": "bob"},
    {"type": "str"},
    {"topic": "prices.eur"},
    {"kind": "tell"},
    {"status": "handled"},
    {"status": "accepted"},
    {"status": "dead"},
    {"reason": "expired"},
    {"run": "run-1"},
    {"node": "node-1"},
    {"conversation": 1},
    {"since": 1_700_000_000.0, "until": 1_800_000_000.0},
    {"text": "word"},
]


@pytest.fixture
def said(history: Any) -> Any:
    """A request, its answer, an event on a topic that expired, and a broadcast."""
    recorder = history.record()
    request = history.message("request", kind=MessageKind.REQUEST)
    fields = [
        {"kind": MessageKind.REPLY, "sender": "bob", "recipient": "alice",
         "correlation_id": request.id, "causation_id": request.id},
        {"kind": MessageKind.EVENT, "recipient": None, "topic": "prices.eur"},
        {"kind": MessageKind.BROADCAST, "recipient": None},
    ]  # fmt: skip
    history.sent = [request]
    for number, one in enumerate(fields):
        history.clock.advance(1)
        history.sent.append(history.message(f"said {number}", **one))
    for message in history.sent:
        recorder.sent(message)
    history.end(recorder, history.sent[0])
    recorder.flush(10)
    history.end(recorder, history.sent[1])
    history.end(recorder, history.sent[2], Status.DEAD, recipient="carl", reason=Reason.EXPIRED)
    history.end(recorder, history.sent[3], recipient="bob")
    history.end(recorder, history.sent[3], Status.FAILED, recipient="carl")
    return history


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"topic": "prices.eur"}, [2]),
        ({"topic": "prices.nok"}, []),
        ({"kind": "reply"}, [1]),
        ({"kind": MessageKind.BROADCAST, "recipient": "carl"}, [3]),
        ({"reason": "expired"}, [2]),
        ({"reason": Reason.EXPIRED, "status": "dead"}, [2]),
        ({"reason": "rejected"}, []),
        ({"node": "node-1", "kind": "request"}, [0]),
        ({"node": "node-2"}, []),
    ],
    ids=str,
)
def test_further_filters_find_their_messages(
    said: Any, wanted: dict[str, Any], found: list[int]
) -> None:
    views = said.audit.messages(**wanted)

    assert [view.id for view in views] == [said.sent[at].id for at in found]


def test_a_conversation_is_a_filter_too(said: Any) -> None:
    views = said.audit.messages(conversation=said.sent[0].id)

    assert [view.id for view in views] == [said.sent[1].id, said.sent[0].id]


@pytest.mark.parametrize("wanted", ALL_FILTERS, ids=str)
def test_pages_hold_what_the_whole_answer_holds(said: Any, wanted: dict[str, Any]) -> None:
    paged: list[Any] = []
    cursor = None

    while True:
        page = said.audit.page(limit=1, cursor=cursor, **wanted)
        paged += page.messages
        cursor = page.next
        if cursor is None:
            break

    assert paged == said.audit.messages(**wanted)


def test_a_cursor_stays_valid_while_messages_arrive(said: Any) -> None:
    first = said.audit.page(limit=2)
    said.clock.advance(1)
    said._recorders[0].sent(said.message("later"))

    rest = said.audit.page(limit=100, cursor=first.next)

    assert [view.id for view in first.messages + rest.messages] == [
        message.id for message in reversed(said.sent)
    ]
    assert rest.next is None


def test_a_page_that_may_look_no_further_says_where_to_go_on(
    said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "_BUDGET", 2)

    page = said.audit.page(kind="request")
    rest = said.audit.page(kind="request", cursor=page.next)

    assert page.messages == []
    assert [view.id for view in rest.messages] == [said.sent[0].id]
    assert said.audit.messages(kind="request") == rest.messages


@given(st.integers(0, (1 << 128) - 1))
def test_a_cursor_of_a_page_comes_back_as_it_was(last: int) -> None:
    wanted = checked(sender="alice")

    assert cursors.page_start(cursors.of_page(wanted, MessageId(last)), wanted) == last


@given(st.dictionaries(st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 63) - 1)))
def test_a_cursor_of_a_follower_comes_back_as_it_was(places: dict[int, int]) -> None:
    assert cursors.places(cursors.of_places(places)) == places


@given(st.one_of(st.text(), st.binary().map(repr)))
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidQuery, match=r"no cursor: use one from Page\.next"):
        cursors.page_start(cursor, checked())


def test_a_cursor_of_another_question_is_refused(said: Any) -> None:
    cursor = said.audit.page(limit=1, sender="alice").next

    with pytest.raises(InvalidQuery, match="belongs to another question"):
        said.audit.page(sender="bob", cursor=cursor)
    with pytest.raises(InvalidQuery, match="is no cursor"):
        said.audit.follow(after=cursor)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"kind": "shout"}, "tell, request, reply"),
        ({"sender": "a\0b"}, "NUL"),
        ({"text": "\ud800"}, "no Unicode"),
        ({"run": 5}, "must be a text"),
    ],
    ids=str,
)
def test_a_filter_that_cannot_be_meant_is_refused(
    said: Any, wanted: dict[str, Any], says: str
) -> None:
    for ask in (said.audit.page, said.audit.talk, said.audit.times, said.audit.follow):
        with pytest.raises(InvalidQuery, match=says):
            ask(**wanted)


def test_a_conversation_that_is_no_id_is_refused(said: Any) -> None:
    with pytest.raises(InvalidName):
        said.audit.page(conversation="nonsense")


def test_a_follower_gets_each_message_once(said: Any) -> None:
    following = said.audit.follow(last=2, idle=0, poll=0.001)
    said._recorders[0].sent(later := said.message("later"))

    got = [view.id for view in following]

    assert got == [said.sent[2].id, said.sent[3].id, later.id]


def test_a_follower_misses_nothing_that_is_committed_out_of_order(said: Any) -> None:
    early = said.message("sent first, by a slow node")
    late = said.message("sent after it")
    slow = said.record()
    following = said.audit.follow(idle=0, poll=0.001)

    said._recorders[0].sent(late)
    said._recorders[0].flush(10)
    first = [view.id for view in following]
    slow.sent(early)
    slow.flush(10)
    second = [view.id for view in following]

    assert (first, second) == ([late.id], [early.id])


def test_a_follower_goes_on_after_its_cursor(said: Any) -> None:
    following = said.audit.follow(idle=0, poll=0.001)
    messages = [said.message(f"later {number}") for number in range(3)]
    for message in messages:
        said._recorders[0].sent(message)

    next(following)
    again = said.audit.follow(after=following.cursor, idle=0, poll=0.001)

    assert [view.id for view in again] == [message.id for message in messages[1:]]


def test_a_follower_has_filters(said: Any) -> None:
    following = said.audit.follow(recipient="dora", idle=0, poll=0.001)
    for recipient in ("bob", "dora"):
        said._recorders[0].sent(said.message("later", recipient=recipient))

    assert [view.recipient for view in following] == ["dora"]


def test_a_follower_that_is_closed_ends_at_once(said: Any) -> None:
    following = said.audit.follow(poll=3600)
    got: list[Any] = []
    waiting = threading.Thread(target=lambda: got.extend(following))
    waiting.start()

    following.close()
    waiting.join(10)

    assert not waiting.is_alive()
    assert got == list(following) == []


@pytest.fixture
def family(history: Any) -> Any:
    """Root, two children, and two grandchildren below the first child."""
    recorder = history.record()
    root = history.message("root")

    def below(payload: str, cause: Any) -> Any:
        history.clock.advance(1)
        return history.message(payload, causation_id=cause.id, correlation_id=root.id)

    first, second = below("first", root), below("second", root)
    history.people = [root, first, second, below("third", first), below("fourth", first)]
    for one in history.people:
        recorder.sent(one)
    return history


def _drawn(tree: Any) -> list[tuple[str, int]]:
    return [(effect.message.payload, effect.depth) for effect in tree.effects]


def test_a_tree_shows_causes_and_effects(family: Any) -> None:
    of_root = family.audit.tree(family.people[0].id)
    of_third = family.audit.tree(family.people[3].id)

    assert of_root.causes == ()
    assert _drawn(of_root) == [("first", 1), ("third", 2), ("fourth", 2), ("second", 1)]
    assert (of_root.left_out, of_root.complete, of_root.lost_cause) == (0, True, None)
    assert [view.payload for view in of_third.causes] == ["root", "first"]
    assert _drawn(of_third) == []


@pytest.mark.parametrize(
    ("bounds", "drawn"),
    [
        ({"depth": 1}, [("first", 1), ("second", 1)]),
        ({"limit": 2}, [("first", 1), ("second", 1)]),
    ],
)
def test_a_tree_that_is_cut_says_so(
    family: Any, bounds: dict[str, int], drawn: list[tuple[str, int]]
) -> None:
    tree = family.audit.tree(family.people[0].id, **bounds)

    assert _drawn(tree) == drawn
    assert tree.left_out == 2


def test_a_cause_that_history_does_not_have_is_named(history: Any) -> None:
    history.record().sent(message := history.message(causation_id=7))

    assert history.audit.tree(message.id).lost_cause == 7
    assert history.audit.tree(1) is None


def test_a_ring_of_causes_ends() -> None:
    ring = {MessageId(1): [MessageId(2)], MessageId(2): [MessageId(1), MessageId(2)]}

    depths, left_out = trees.nearest(ring, MessageId(1), depth=10, limit=10)

    assert depths == {2: 1}
    assert list(trees.drawn(ring, MessageId(1), depths)) == [2]
    assert left_out == 0


def test_talk_counts_who_reached_whom(said: Any) -> None:
    found = {(one.sender, one.recipient): (one.count, one.failures) for one in said.audit.talk()}

    assert found == {
        ("alice", "bob"): (2, 0),
        ("alice", "carl"): (2, 2),
        ("bob", "alice"): (1, 0),
    }
    assert len(said.audit.talk(limit=1)) == 1
    assert said.audit.talk(sender="bob")[0].last.timestamp() == said.sent[1].created_at


def test_times_are_exact(history: Any) -> None:
    recorder = history.record()
    now = history.clock.now()
    for number in range(1, 101):
        recorder.sent(message := history.message("x"))
        if number % 2:
            recorder.flush(10)
        started = now + number / 1000
        recorder.ended(message, "bob", Status.HANDLED, None, None, started, started + number)
    recorder.sent(history.message("waits"))

    (times,) = history.audit.times()

    assert (times.recipient, times.type, times.count) == ("bob", "str", 100)
    assert (times.took.p50, times.took.p95, times.took.max) == (50, 95, 100)
    waited = (times.waited.p50, times.waited.p95, times.waited.max)
    assert waited == pytest.approx((0.05, 0.095, 0.1), abs=2e-6)


@pytest.mark.parametrize("wanted", ALL_FILTERS, ids=str)
@pytest.mark.parametrize("forward", [False, True])
def test_a_page_goes_along_an_index(
    patient_history: Any, wanted: dict[str, Any], forward: bool
) -> None:
    patient_history.record().sent(patient_history.message())
    scope, meant = Scope(MessageId(1), MessageId(1)), checked(**wanted)
    also = (scope.mine, *conditions(meant))
    start = MessageId(5)
    patient_history.audit.counts()

    with patient_history.audit._database().reading() as connection:
        for arm in pages.arms(scope, meant):
            chosen = pages.looked(arm, also, start, 100, 10, forward=forward)
            sql = chosen.compile(connection, compile_kwargs={"literal_binds": False})
            plan = connection.execute(text(f"EXPLAIN QUERY PLAN {sql}".replace("?", "1"))).all()
            steps = [row.detail for row in plan]
            assert not [one for one in steps if one.startswith("SCAN") and "few" not in one]
            leading = next(one for one in steps if one.startswith("SEARCH"))
            assert "USING COVERING INDEX" in leading or "USING INDEX" in leading, steps


def test_an_older_schema_is_read(tmp_path: Path) -> None:
    audit = Audit(f"sqlite:///{tmp_path / 'old.db'}")
    database = audit._database()
    connection = database.connect()
    with connection.begin():
        migrations.upgrade(connection, "0001")
    connection.close()

    assert audit.messages() == []
    assert audit.page().messages == []
    assert audit.talk() == []
    assert audit.times() == []
    with pytest.raises(AuditUnavailable):
        audit.follow()


@pytest.mark.parametrize("limit", [0, "5", 2.5, None])
def test_a_limit_is_a_whole_number(said: Any, limit: Any) -> None:
    with pytest.raises(InvalidQuery, match=f"limit is {limit!r}: it must be from 1"):
        said.audit.messages(limit=limit)
