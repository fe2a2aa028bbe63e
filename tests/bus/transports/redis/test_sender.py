"""What a node's way out tells of what it was given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest

from actorbus.bus.transports.redis.errands import Errands
from actorbus.bus.transports.redis.lanes import Accepted, Parcel, Refused
from actorbus.bus.transports.redis.loads import Taken
from actorbus.bus.transports.redis.mail import Mail
from actorbus.bus.transports.redis.sender import Sender, Sent
from actorbus.codec import Codec, TypeBook
from actorbus.message import MessageId, Reason, plain_tell

if TYPE_CHECKING:
    from actorbus.bus.transports.redis.log import InboxLog
    from actorbus.message import Message
    from actorbus.redis_client import RedisServer


class Home:
    """Notes what could not be delivered."""

    def __init__(self) -> None:
        self.failed: list[tuple[Any, Reason]] = []

    def fail(self, message: Message[Any], _: str | None, reason: Reason, error: object) -> None:
        self.failed.append((message.payload, reason))


@pytest.fixture
def home() -> Home:
    return Home()


@pytest.fixture
def sender(log: InboxLog, server: RedisServer, home: Home) -> Sender:
    errands = Errands("actorbus-errands", broke=lambda _: None)
    sender = Sender(
        log,
        server,
        Mail(log, Codec(TypeBook(), limit=1_000), None),
        "n1",
        errands=errands,
        gone=lambda _: None,
        limit=10,
        asks=10,
        send_timeout=1.0,
    )
    sender._home = cast("Any", home)
    return sender


def parcel(payload: str) -> Parcel:
    return Parcel(
        "a", 2, uuid4().bytes, b"", 1e9, tag=Sent(plain_tell(MessageId(1), payload, 0.0, "a"))
    )


def test_what_nobody_takes_has_failed(sender: Sender, home: Home) -> None:
    sender._told(Refused(parcel("hello"), Taken.NO_AGENT))

    assert home.failed == [("hello", Reason.NO_SUCH_AGENT)]


def test_what_was_accepted_and_then_lost_by_the_server_has_not_failed_for_its_sender(
    sender: Sender, home: Home
) -> None:
    one = parcel("hello")
    sender._told(Accepted([one]))

    sender._told(Accepted([one._replace(tag=None)]))
    sender._told(Refused(one._replace(tag=None), Taken.NO_AGENT))

    assert home.failed == []
