"""Conversations to draw: one that shows everything, and any that could be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from hypothesis import strategies as st

from actorbus.message import MessageId, MessageKind, Priority, Reason, Status
from actorbus.persistence.answers import Delivery, MessageView

if TYPE_CHECKING:
    from collections.abc import Sequence

_START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
_FIRST = 0x01990000_0000_7000_8000_000000000000

HOSTILE = [
    "<svg onload=alert(1)>",
    "]]></style><script>",
    "&amp;\"'",
    "\x1b[31mred\x07",
    "two\nlines: p0->>p1",
    "user\u202egnp.exe",
    "z" + "\u0301" * 500,
    "end",
    "a;b#35;%%{init: {}}%%",
    "wrap: $$x$$ <br>",
    "日本語の名前" * 20,
    "A" * 10_240,
    "half \ud800",
    "\ufffe\x00",
    "",
]


class View(Protocol):
    """Makes a view of message `number`; times are microseconds from the start."""

    def __call__(
        self,
        number: int,
        sender: str | None,
        recipient: str | None,
        /,
        *,
        kind: str = ...,
        at: int = ...,
        cause: int | None = ...,
        handled: tuple[int, int] | None = ...,
        deliveries: Sequence[Delivery] | None = ...,
        **fields: Any,
    ) -> MessageView: ...


def _moment(at: int) -> datetime:
    return _START + timedelta(microseconds=at)


def _delivery(
    recipient: str | None,
    handled: tuple[int, int] | None,
    status: Status = Status.HANDLED,
    reason: Reason | None = None,
    ended: int = 0,
    attempt: int = 1,
) -> Delivery:
    begins, ends = (None, _moment(ended)) if handled is None else map(_moment, handled)
    assert ends is not None
    return Delivery(recipient, status, reason, None, attempt, begins, ends, "node-1")


def _view(
    number: int,
    sender: str | None,
    recipient: str | None,
    /,
    *,
    kind: str = "tell",
    at: int = 0,
    cause: int | None = None,
    handled: tuple[int, int] | None = None,
    deliveries: Sequence[Delivery] | None = None,
    **fields: Any,
) -> MessageView:
    if deliveries is None:
        deliveries = [] if handled is None else [_delivery(recipient, handled)]
    starts = [one.started_at for one in deliveries if one.started_at is not None]
    values: dict[str, Any] = {
        "id": MessageId(_FIRST + number),
        "kind": MessageKind(kind),
        "type": "Text",
        "sender": sender,
        "recipient": recipient,
        "topic": None,
        "payload": {"body": "to be"},
        "headers": {},
        "priority": Priority.NORMAL,
        "run_id": None,
        "node": "node-1",
        "correlation_id": MessageId(_FIRST),
        "causation_id": None if cause is None else MessageId(_FIRST + cause),
        "hops": 0,
        "created_at": _moment(at),
        "deadline": None,
        "status": deliveries[-1].status if deliveries else Status.ACCEPTED,
        "reason": deliveries[-1].reason if deliveries else None,
        "error": None,
        "attempts": 1,
        "started_at": min(starts, default=None),
        "ended_at": max((one.ended_at for one in deliveries), default=None),
        "deliveries": tuple(deliveries),
    }
    return MessageView(**(values | fields))


@pytest.fixture(scope="session")
def view() -> View:
    return _view


@pytest.fixture(scope="session")
def delivery() -> Any:
    return _delivery


@pytest.fixture(scope="session")
def small() -> list[MessageView]:
    """A message of each sort there is."""
    answered = [_delivery("boss", (1_400, 1_400))]
    return [
        _view(0, None, "boss", kind="request", handled=(80, 9_000)),
        _view(1, "boss", "counter", kind="request", at=120, cause=0, handled=(350, 1_400)),
        _view(
            2,
            "counter",
            "boss",
            kind="reply",
            at=1_400,
            cause=1,
            type="Count",
            deliveries=answered,
        ),
        _view(3, "boss", "boss", at=1_500, cause=0, handled=(9_000, 9_300), type="Again"),
        _view(
            4,
            "boss",
            None,
            kind="broadcast",
            at=2_000,
            cause=0,
            type="Halt",
            priority=Priority.URGENT,
            deliveries=[
                _delivery("counter", (2_100, 2_200)),
                _delivery("spare", (2_300, 2_310), Status.DEAD, Reason.NO_HANDLER),
            ],
            status=Status.DEAD,
            reason=Reason.NO_HANDLER,
        ),
        _view(
            5,
            "boss",
            None,
            kind="event",
            topic="news.all",
            at=3_000,
            cause=0,
            deliveries=[_delivery("spare", (3_100, 64_000))],
        ),
        _view(6, "boss", None, kind="event", topic="news.none", at=3_500, cause=0, deliveries=[]),
        _view(
            7,
            "boss",
            "ghost",
            at=4_000,
            cause=0,
            status=Status.DEAD,
            reason=Reason.NO_SUCH_AGENT,
            deliveries=[_delivery("ghost", None, Status.DEAD, Reason.NO_SUCH_AGENT, ended=4_001)],
        ),
        _view(
            8,
            "spare",
            "boss",
            kind="error",
            at=5_000,
            cause=5,
            type="ValueError",
            deliveries=[_delivery("boss", (5_000, 5_000))],
        ),
        _view(9, "boss", "counter", at=8_000, cause=0),
        _view(
            10,
            "boss",
            None,
            kind="reply",
            at=9_000,
            cause=0,
            type="int",
            deliveries=[_delivery(None, (9_000, 9_000))],
        ),
    ]


_names = st.sampled_from(["a", "b", "c", "agent-with-a-rather-long-name", *HOSTILE])
_words = st.one_of(_names, st.text(max_size=12))
_instants = st.integers(0, 40)


@st.composite
def _deliveries(draw: st.DrawFn, recipient: str | None, sent: int) -> Delivery:
    status = draw(st.sampled_from([Status.HANDLED, Status.FAILED, Status.DEAD, Status("\x1bnew<")]))
    reason = draw(st.sampled_from([None, Reason.EXPIRED, Reason("\x07<odd>")]))
    begins = sent + draw(st.integers(-5, 30))
    handled = draw(st.none() | st.just((begins, begins + draw(st.integers(-1, 30)))))
    return _delivery(recipient, handled, status, reason, sent, draw(st.integers(1, 3)))


@st.composite
def _messages(draw: st.DrawFn, number: int) -> MessageView:
    kind = draw(st.sampled_from([*MessageKind, MessageKind("new-kind")]))
    many = kind in (MessageKind.BROADCAST, MessageKind.EVENT)
    at = draw(_instants)
    to = None if many else draw(st.none() | _names)
    recipients = draw(st.lists(_names, max_size=4)) if many else [to] * draw(st.integers(0, 2))
    return _view(
        number,
        draw(st.none() | _names),
        to,
        kind=kind,
        at=at,
        cause=draw(st.none() | st.integers(0, 8)),
        deliveries=[draw(_deliveries(one, at)) for one in recipients],
        topic=draw(_words) if kind is MessageKind.EVENT else None,
        type=draw(_words),
        node=draw(_names),
        payload=draw(st.none() | _words),
        error=draw(st.none() | _words),
        priority=draw(st.sampled_from(Priority)),
    )


@pytest.fixture(scope="session")
def conversations() -> st.SearchStrategy[list[MessageView]]:
    """Any history, also one that no node could have written."""
    counts = st.integers(0, 8)
    return counts.flatmap(lambda count: st.tuples(*map(_messages, range(count)))).map(list)


@pytest.fixture(scope="session")
def long() -> list[MessageView]:
    """200 messages: a scout gives work to four agents, who tell a librarian."""
    views = [_view(0, None, "scout", handled=(10, 5_000))]
    for job in range(100):
        worker = f"worker-{job % 4}"
        begins = 100 * (job + 1)
        views.append(
            _view(job + 1, "scout", worker, at=20 + job, cause=0, handled=(begins, begins + 90))
        )
    for job in range(99):
        sent = 100 * (job + 1) + 80
        views.append(
            _view(
                job + 101,
                f"worker-{job % 4}",
                "librarian",
                at=sent,
                cause=job + 1,
                handled=(20_000 + job, 20_000 + job + 1),
            )
        )
    return views
