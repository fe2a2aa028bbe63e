"""Fault 19 in the log itself: what somebody else wrote there holds up nothing of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from actorbus.bus.transports.redis.loads import Outgoing
from actorbus.bus.transports.redis.log import Letter
from actorbus.bus.transports.redis.ownership import START, Cursor

if TYPE_CHECKING:
    from actorbus.bus.transports.redis.log import InboxLog
    from actorbus.redis_client import RedisServer

POISON = [
    b"",
    b"x",
    b"no digits in front, and longer than 30 bytes",
    b"-00000000000100" + b"x" * 40,
    b" 12 " * 10,
    b"\xff" * 50,
    b"0" * 29,
]


@pytest.mark.parametrize("poison", POISON)
def test_bytes_in_an_inbox_that_are_no_item_are_one_letter_and_the_rest_goes_on(
    log: InboxLog, server: RedisServer, poison: bytes
) -> None:
    owner = log.acquire("counter", "n1", ttl=10.0)
    server.client.rpush(f"{log.tags[0]}:i:counter:2", poison)
    log.send("p", [Outgoing("counter", 1, 2, b"i" * 16, b"blob")])

    broken, sound = log.fetch(owner, START).items

    assert (broken.blob, broken.expiry, sound.blob) == (b"", 0, b"blob")
    done = (START[0], START[1], Cursor(broken.position + 1, broken.id), START[3])
    log.acknowledge(owner, done, [Letter(2, broken.position, "undecodable", 1, "")])
    assert log.fetch(owner, done).items == (sound,)
    assert [one["reason"] for one in log.letters()] == ["undecodable"]


@pytest.mark.parametrize("poison", [*POISON, b"a 9 0 x", b"a 2 x y", b" 2 0 x"])
def test_bytes_among_the_delayed_that_are_none_hold_up_no_other(
    log: InboxLog, server: RedisServer, poison: bytes
) -> None:
    log.acquire("counter", "n1", ttl=10.0)
    server.client.zadd(f"{log.tags[0]}:due", {b"p" * 16: 1})
    server.client.hset(f"{log.tags[0]}:dueb", b"p" * 16, poison)
    log.send("p", [Outgoing("counter", 1, 2, b"i" * 16, b"blob", delay=0.001)])

    for _ in range(10_000):
        if log.tick()[1] is None:
            break

    assert log.depth("counter") == 1
    [letter] = log.letters()
    assert (letter["reason"], letter["id"], letter["blob"]) == ("undecodable", b"p" * 16, poison)
