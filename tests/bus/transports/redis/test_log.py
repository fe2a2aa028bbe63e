"""The inbox log, on fakeredis and on a real server."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from actorbus.bus.transports.redis.loads import Outgoing, Sent, Taken, loads_of
from actorbus.bus.transports.redis.log import (
    Done,
    Fetched,
    InboxLog,
    Letter,
    Wanted,
    read_along,
    read_with,
)
from actorbus.bus.transports.redis.ownership import (
    START,
    Cursor,
    Cursors,
    Fenced,
    Known,
    OwnedBy,
    Ownership,
    Reset,
    Terms,
)
from actorbus.redis_client import RedisServer
from tests.bus.transports.redis.conftest import asked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from actorbus.bus.transports.redis.items import Item

TTL = 10.0
NORMAL, URGENT = 2, 0


def message(sequence: int, agent: str = "counter", level: int = NORMAL, **more: object) -> Outgoing:
    blob = f"{agent} {level} {sequence}".encode()
    return Outgoing(agent, sequence, level, uuid4().bytes, blob, **more)  # type: ignore[arg-type]


def blobs(items: Sequence[Item]) -> list[str]:
    return [item.blob.decode() for item in items]


def after(items: Sequence[Item], before: Cursors = START) -> Cursors:
    """The cursors of somebody who has seen `items` as well."""
    moved = list(before)
    for item in items:
        moved[item.level] = Cursor(item.position + 1, item.id)
    a, b, c, d = moved
    return a, b, c, d


OK = Sent(Taken.OK)


class TestSending:
    def test_messages_are_there_in_order_for_the_owner(self, log: InboxLog) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)

        assert log.send("p", [message(1), message(2), message(3)]) == [OK, OK, OK]

        found = log.fetch(owner, START)
        assert blobs(found.items) == ["counter 2 1", "counter 2 2", "counter 2 3"]
        assert [item.position for item in found.items] == [0, 1, 2]
        assert found.unseen == 0

    def test_the_highest_level_comes_first(self, log: InboxLog) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1, level=3), message(2, level=2), message(3, level=0)])

        assert blobs(log.fetch(owner, START).items) == ["counter 0 3", "counter 2 2", "counter 3 1"]

    def test_one_that_was_sent_twice_is_taken_once(self, log: InboxLog) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        sent = [message(1), message(2)]

        assert log.send("p", sent) == log.send("p", sent) == [OK, OK]

        assert len(log.fetch(owner, START).items) == 2
        assert log.depth("counter") == 2

    def test_one_that_is_ahead_of_its_turn_is_refused_with_the_last_that_was_taken(
        self, log: InboxLog
    ) -> None:
        log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1)])

        assert log.send("p", [message(3), message(2), message(3)]) == [Sent(Taken.GAP, 1), OK, OK]

    def test_the_numbering_may_begin_anew(self, log: InboxLog) -> None:
        log.acquire("counter", "n1", ttl=TTL)

        sent = log.send("p", batch := [message(7, base=True), message(8)])
        again = log.send("p", batch)

        assert sent == again == [OK, OK]
        assert log.depth("counter") == 2

    def test_each_producer_counts_for_itself(self, log: InboxLog) -> None:
        log.acquire("counter", "n1", ttl=TTL)

        assert log.send("p", [message(1)]) == log.send("q", [message(1)]) == [OK]
        assert log.depth("counter") == 2

    def test_a_full_inbox_keeps_what_comes_later_from_overtaking(
        self, make: Callable[..., InboxLog]
    ) -> None:
        log = make(capacity=2)
        owner = log.acquire("counter", "n1", ttl=TTL)

        sent = log.send("p", [message(number) for number in (1, 2, 3, 4)])

        assert sent == [OK, OK, Sent(Taken.FULL, 2), Sent(Taken.GAP, 2)]
        found = log.fetch(owner, START)
        log.acknowledge(owner, after(found.items))
        assert log.send("p", [message(3), message(4)]) == [OK, OK]

    def test_urgent_ones_find_a_tenth_more_room(self, make: Callable[..., InboxLog]) -> None:
        log = make(capacity=10)
        log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(number) for number in range(1, 11)])

        sent = log.send("p", [message(11, level=URGENT), message(12, level=URGENT)])

        assert sent == [OK, Sent(Taken.FULL, 11)]

    def test_room_is_counted_in_bytes_too_and_an_empty_inbox_takes_any_size(
        self, make: Callable[..., InboxLog]
    ) -> None:
        log = make(capacity_bytes=100)
        log.acquire("counter", "n1", ttl=TTL)
        large = Outgoing("counter", 1, NORMAL, uuid4().bytes, b"x" * 1_000)

        assert log.send("p", [large, message(2)]) == [OK, Sent(Taken.FULL, 1)]

    def test_nobody_is_told_from_somebody(self, log: InboxLog) -> None:
        assert log.send("p", [message(1, "nobody")]) == [Sent(Taken.NO_AGENT)]
        assert log.send("p", [message(1, "nobody")], create=True) == [OK]

    @pytest.mark.parametrize("name", ["{p1}", "a:b:0", "*", "\r\n", "naïve", "%7B", "..", " x "])
    def test_any_name_has_an_inbox_of_its_own(self, log: InboxLog, name: str) -> None:
        owner = log.acquire(name, "n {1}", ttl=TTL)

        log.send("p", [message(1, name), message(1, "other")], create=True)

        assert blobs(log.fetch(owner, START).items) == [f"{name} 2 1"]
        assert log.owned("n {1}") == [name]
        assert log.ready(None) == ["other"]

    def test_any_bytes_come_through(self, log: InboxLog) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        blob = bytes(range(256)) + b"\r\n$-1\r\n \0"
        log.send("p", [Outgoing("counter", 1, NORMAL, b"\xff" * 16, blob)])
        log.send("p", [Outgoing("counter", 2, NORMAL, b"\0" * 16, blob, delay=0.0)])

        found = log.fetch(owner, START).items

        assert [(item.id, item.blob) for item in found] == [
            (b"\xff" * 16, blob),
            (b"\0" * 16, blob),
        ]

    def test_its_expiry_is_in_server_time(self, log: InboxLog) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1, ttl=5.0), message(2)])

        found = log.fetch(owner, START)

        assert 4_000 < found.items[0].expiry - found.now <= 5_000
        assert found.items[1].expiry == 0

    @pytest.mark.parametrize("delay", [None, 0.001])
    @pytest.mark.parametrize("ttl", [1e9, 1.1e9, 1e10, 1e300])
    def test_one_that_shall_live_for_ever_does(
        self, log: InboxLog, ttl: float, delay: float | None
    ) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1, ttl=ttl, delay=delay), message(2)])

        while len(items := log.fetch(owner, START).items) < 2:
            log.tick()

        assert sorted(blobs(items)) == ["counter 2 1", "counter 2 2"]
        assert {item.expiry > 0 for item in items} == {ttl == 1e9, False}

    def test_many_recipients_of_many_partitions_go_at_once(
        self, make: Callable[..., InboxLog]
    ) -> None:
        log = make(partitions=8)
        names = [f"agent-{number}" for number in range(40)]
        owners = [log.acquire(name, "n1", ttl=TTL) for name in names]

        assert log.send("p", [message(1, name) for name in names]) == [OK] * 40

        _, found = log.exchange([], [Wanted(owner, START) for owner in owners])
        assert [blobs(one.items) for one in found if not isinstance(one, Exception)] == [
            [f"{name} 2 1"] for name in names
        ]
        assert sorted(log.ready("n1")) == []


class TestReading:
    def test_reading_changes_nothing(self, log: InboxLog) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1), message(2)])

        assert log.fetch(owner, START).items == log.fetch(owner, START).items

    def test_it_goes_on_where_it_was(self, log: InboxLog) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(number) for number in range(1, 6)])

        first = log.fetch(owner, START, count=2)
        rest = log.fetch(owner, after(first.items))

        assert blobs(first.items) + blobs(rest.items) == [f"counter 2 {n}" for n in range(1, 6)]
        assert (first.unseen, rest.unseen) == (3, 0)

    def test_it_brings_so_many_bytes_and_at_least_one_message(self, log: InboxLog) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(number) for number in range(1, 6)])

        assert len(log.fetch(owner, START, size=1).items) == 1
        assert len(log.fetch(owner, START, size=100).items) == 2

    @pytest.mark.parametrize(
        "sizes",
        [[10] * 60, [9_000] * 60, [10, 9_000] * 30, [10] * 50 + [9_000] * 10, [9_000] + [10] * 59],
        ids=["small", "large", "mixed", "small first", "large first"],
    )
    def test_what_comes_fits_and_nothing_is_left_out(self, log: InboxLog, sizes: list[int]) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        sent = [message(number) for number in range(1, len(sizes) + 1)]
        sent = [one._replace(blob=b"x" * size) for one, size in zip(sent, sizes, strict=True)]
        log.send("p", sent)

        seen, cursors, unseen = [], START, len(sent)
        while unseen:
            found = log.fetch(owner, cursors, count=20, size=20_000)
            seen.append(found.items)
            cursors, unseen = after(found.items, cursors), found.unseen

        size_of = {one.id: len(one.blob) + 30 for one in sent}
        assert [item.id for items in seen for item in items] == [one.id for one in sent]
        for items in seen:
            assert 1 <= len(items) <= 20
            assert len(items) == 1 or sum(size_of[item.id] for item in items) <= 20_000

    def test_a_large_inbox_is_not_read_as_a_whole(self, redis_url: str) -> None:
        """All others wait while the server copies it: 200 ms for 64 MB, for a megabyte of it."""
        server = RedisServer(redis_url)
        log = InboxLog(server, namespace=uuid4().hex)
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(n)._replace(blob=b"x" * 10_000) for n in range(1, 65)])

        with asked(server, "LRANGE", log.tags[0]) as commands:
            found = log.fetch(owner, START, size=20_500)

        read = [int(words[3]) - int(words[2]) + 1 for words in commands]
        assert len(found.items) == 2
        assert sum(read) <= 3
        server.close()

    def test_an_agent_with_work_is_ready_until_all_was_seen(self, log: InboxLog) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1), message(2)])

        before = log.ready("n1")
        first = log.fetch(owner, START, count=1)
        between = log.ready("n1")
        log.fetch(owner, after(first.items))

        assert (before, between, log.ready("n1")) == (["counter"], ["counter"], [])

    def test_a_server_that_lost_its_tail_is_noticed(
        self, log: InboxLog, server: RedisServer
    ) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1), message(2)])
        seen = after(log.fetch(owner, START).items)
        inbox = f"{log.tag('counter')}:i:counter:{NORMAL}"
        server.client.rpop(inbox)
        server.client.rpush(inbox, b"0" * 14 + b"y" * 16 + b"another one")

        with pytest.raises(Reset) as raised:
            log.fetch(owner, seen)
        with pytest.raises(Reset):
            log.acknowledge(owner, seen)

        assert raised.value.heads == (0, 0, 0, 0)
        assert len(log.fetch(owner, START).items) == 2


class TestAcknowledging:
    def test_what_is_done_is_gone_and_positions_go_on(self, log: InboxLog) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1), message(2), message(3)])
        first = after(log.fetch(owner, START, count=2).items)

        assert log.acknowledge(owner, first) == 2

        rest = log.fetch(owner, first)
        assert [(item.position, item.blob) for item in rest.items] == [(2, b"counter 2 3")]
        assert log.depth("counter") == 1

    def test_once_more_changes_nothing(self, log: InboxLog) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1), message(2), message(3)])
        done = after(log.fetch(owner, START, count=2).items)
        letter = Letter(NORMAL, 0, "rejected", 1, "why")

        freed = [log.acknowledge(owner, done, [letter]) for _ in range(3)]

        assert freed == [2, 0, 0]
        assert len(log.letters()) == 1
        assert log.depth("counter") == 1

    def test_what_was_not_handled_is_kept_with_its_reason(self, log: InboxLog) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1), message(2)])
        done = after(log.fetch(owner, START).items)

        log.acknowledge(owner, done, [Letter(NORMAL, 1, "handler-error", 3, "Traceback: naïve")])

        (letter,) = log.letters()
        assert letter["blob"] == b"counter 2 2"
        assert letter["agent"] == "counter"
        assert letter["reason"] == "handler-error"
        assert letter["attempts"] == 3
        assert letter["error"] == "Traceback: naïve"

    def test_many_agents_in_one_go_and_one_that_is_lost_hurts_no_other(self, log: InboxLog) -> None:
        mine = [log.acquire(name, "n1", ttl=TTL) for name in ("a", "b")]
        log.send("p", [message(1, "a"), message(1, "b")])
        found = [log.fetch(one, START).items for one in mine]
        log.hand_off(mine[0], "n2")

        freed, rest = log.exchange(
            [Done(one, after(items)) for one, items in zip(mine, found, strict=True)],
            [Wanted(one, after(items)) for one, items in zip(mine, found, strict=True)],
        )

        assert isinstance(freed[0], Fenced)
        assert freed[1] == 1
        assert isinstance(rest[0], Fenced)
        assert not isinstance(rest[1], Exception)
        assert rest[1].items == ()


class TestUrgentAlone:
    def test_few_come_and_nothing_else_does(self, log: InboxLog) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(number, level=number % 2) for number in range(1, 13)])

        _, (found,) = log.exchange([], [Wanted(owner, START, 0)])

        assert isinstance(found, Fetched)
        assert [(one.level, one.position) for one in found.items] == [(0, at) for at in range(4)]
        assert found.unseen == 8
        assert log.ready("n1") == ["counter"]

    def test_it_rings_though_other_messages_wait_that_nobody_fetched(
        self, log: InboxLog, server: RedisServer
    ) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1), message(2)])
        log.fetch(owner, START, count=1)

        rung = []
        for number, level in ((3, 2), (4, 0)):
            client: Any = server.client
            ear = client.pubsub()
            ear.subscribe(log.bell(log.tags[0], "n1"))
            assert ear.get_message(timeout=1.0)["type"] == "subscribe"
            log.send("p", [message(number, level=level)])
            rung.append(ear.get_message(timeout=0.2) is not None)
            ear.close()

        assert rung == [False, True]


class TestTrying:
    def test_each_try_of_a_message_is_counted_once(self, log: InboxLog) -> None:
        first = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1), message(2)])
        one, two = log.fetch(first, START).items

        tries = [log.try_again([(first, one, word)]) for word in ("a", "a", "b")]
        second = log.acquire("counter", "n2", ttl=TTL)

        assert tries == [[1], [1], [2]]
        assert log.try_again([(second, one, "c"), (second, two, "d")]) == [3, 1]
        (refused,) = log.try_again([(first, one, "e")])
        assert isinstance(refused, Fenced)

    def test_what_was_given_up_in_good_order_is_not_suspect(self, log: InboxLog) -> None:
        first = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1)])
        log.fetch(first, START)

        log.release(first)

        assert log.acquire("counter", "n2", ttl=TTL).delivered == (0, 0, 0, 0)


class TestPeeking:
    def test_few_large_messages_are_peeked_at_at_once(self, log: InboxLog) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(n)._replace(blob=b"x" * 200_000) for n in range(1, 21)])

        seen: list[int] = []
        while items := log.peek(owner, NORMAL, sum(seen))[1]:
            seen.append(len(items))

        assert seen == [8, 8, 4]

    def test_what_is_peeked_at_counts_as_unseen(self, log: InboxLog) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(number) for number in range(1, 6)])
        found = log.fetch(owner, START, count=2)
        log.acknowledge(owner, after(found.items))

        first, items = log.peek(owner, NORMAL, 0, count=2)
        later, rest = log.peek(owner, NORMAL, first + len(items))

        assert (first, blobs(items)) == (2, ["counter 2 3", "counter 2 4"])
        assert (later, blobs(rest)) == (4, ["counter 2 5"])
        assert log.peek(owner, NORMAL, 5) == (5, [])
        assert log.ready("n1") == ["counter"]
        assert log.acquire("counter", "n2", ttl=TTL).delivered == (0, 0, 2, 0)

    def test_who_owns_it_no_more_sees_nothing(self, log: InboxLog) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.acquire("counter", "n2", ttl=TTL)

        with pytest.raises(Fenced):
            log.peek(owner, NORMAL, 0)


class TestOwning:
    def test_a_live_node_keeps_what_it_owns(self, log: InboxLog) -> None:
        log.beat("n1", ttl=TTL)
        mine = log.acquire("counter", "n1", ttl=TTL)

        with pytest.raises(OwnedBy, match="owned by node 'n1'"):
            log.acquire("counter", "n2", ttl=TTL)

        again = log.acquire("counter", "n1", ttl=TTL)
        assert (again.token, again.fresh) == (mine.token, False)

    def test_who_took_over_and_did_not_hear_so_is_told_again_who_had_it(
        self, log: InboxLog
    ) -> None:
        log.acquire("counter", "dead", ttl=TTL)
        first = log.acquire("counter", "n1", ttl=TTL)

        again = log.acquire("counter", "n1", ttl=TTL)

        assert (first.before, again.before) == ("dead", "dead")

    def test_who_got_what_was_given_up_hears_of_nobody_before(self, log: InboxLog) -> None:
        log.acquire("counter", "dead", ttl=TTL)
        log.release(log.acquire("counter", "n1", ttl=TTL))

        first = log.acquire("counter", "n2", ttl=TTL)

        assert first.before == ""
        assert log.acquire("counter", "n2", ttl=TTL).before == "n2"

    def test_who_takes_over_begins_at_what_was_acknowledged_last(self, log: InboxLog) -> None:
        first = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(number) for number in range(1, 5)])
        found = log.fetch(first, START, count=3)
        log.acknowledge(first, after(found.items[:1]))

        second = log.acquire("counter", "n2", ttl=TTL)  # n1 never beat, so it is dead

        assert int(second.token) > int(first.token)
        assert second.heads == (0, 0, 1, 0)
        assert second.delivered == (0, 0, 3, 0)
        assert blobs(log.fetch(second, second.cursors).items) == [
            f"counter 2 {number}" for number in (2, 3, 4)
        ]
        assert log.owned("n1") == []
        assert log.owned("n2") == ["counter"]

    def test_who_lost_it_can_do_nothing_to_it_any_more(self, log: InboxLog) -> None:
        first = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1)])
        done = after(log.fetch(first, START).items)
        log.acquire("counter", "n2", ttl=TTL)

        for call in (
            lambda: log.fetch(first, START),
            lambda: log.acknowledge(first, done),
            lambda: log.release(first),
            lambda: log.hand_off(first, "n3"),
            lambda: log.drop(first, "stopped"),
        ):
            with pytest.raises(Fenced):
                call()

        assert log.depth("counter") == 1

    def test_what_was_released_accepts_and_waits_for_whoever_comes(self, log: InboxLog) -> None:
        first = log.acquire("counter", "n1", ttl=TTL)
        log.release(first)

        log.send("p", [message(1)])

        assert log.ready(None) == ["counter"]
        second = log.acquire("counter", "n2", ttl=TTL)
        assert log.ready(None) == []
        assert log.ready("n2") == ["counter"]
        assert blobs(log.fetch(second, second.cursors).items) == ["counter 2 1"]

    def test_of_two_that_claim_one_agent_one_gets_it(self, log: InboxLog) -> None:
        tokens: list[int] = []
        for node in ("n1", "n2"):
            log.beat(node, ttl=TTL)
        barrier = threading.Barrier(2)

        def claim(node: str, got: list[str]) -> None:
            barrier.wait(TTL)
            with contextlib.suppress(OwnedBy):
                tokens.append(int(log.acquire("counter", node, ttl=TTL).token))
                got.append(node)

        for _ in range(50):
            got: list[str] = []
            threads = [threading.Thread(target=claim, args=(node, got)) for node in ("n1", "n2")]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(got) == 1
            log.release(log.acquire("counter", got[0], ttl=TTL))

        assert tokens == sorted(set(tokens))

    def test_who_gave_up_and_did_not_hear_so_may_say_it_again_until_somebody_comes(
        self, log: InboxLog
    ) -> None:
        mine = log.acquire("counter", "n1", ttl=TTL)

        log.release(mine)
        log.release(mine)

        assert log.ready(None) == ["counter"]
        theirs = log.acquire("counter", "n2", ttl=TTL)
        with pytest.raises(Fenced):
            log.release(mine)
        assert log.acquire("counter", "n2", ttl=TTL).token == theirs.token

    def test_many_are_released_in_one_go(self, log: InboxLog) -> None:
        mine = [log.acquire(name, "n1", ttl=TTL) for name in ("a", "b", "c")]
        log.hand_off(mine[1], "n2")

        released = log.release_many(mine)

        assert [type(one) for one in released] == [type(None), Fenced, type(None)]
        assert log.owned("n1") == []
        assert log.owned("n2") == ["b"]

    def test_handed_off_it_is_the_others_at_once(self, log: InboxLog) -> None:
        first = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1)])

        theirs = log.hand_off(first, "n2")

        assert log.owned("n2") == log.ready("n2") == ["counter"]
        assert blobs(log.fetch(theirs, theirs.cursors).items) == ["counter 2 1"]

    def test_dropped_it_leaves_dead_letters_and_for_a_while_who_sent_how_much(
        self, log: InboxLog, server: RedisServer
    ) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(number, level=number % 4) for number in range(1, 9)])

        log.drop(owner, "stopped")
        log.drop(owner, "stopped")

        assert {letter["reason"] for letter in log.letters()} == {"stopped"}
        assert len(log.letters()) == 8
        tag = log.tag("counter")
        left = set(server.client.scan_iter(f"{tag}*"))
        assert left == {f"{tag}:dlq".encode(), f"{tag}:a:counter".encode()}
        assert server.client.hkeys(f"{tag}:a:counter") == [b"p:p"]
        assert 0 < server.client.pttl(f"{tag}:a:counter") <= 600_000
        assert log.send("p", [message(9)]) == [Sent(Taken.NO_AGENT, 1)]
        assert log.known(["counter"]) == [None]

    def test_a_new_agent_of_its_name_is_not_sent_what_the_old_one_got(self, log: InboxLog) -> None:
        old = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1), message(2)])
        log.drop(old, "stopped")

        new = log.acquire("counter", "n2", ttl=TTL)
        sent = log.send("p", [message(2), message(3)])

        assert sent == [Sent(Taken.OK), Sent(Taken.OK)]
        assert [one.position for one in log.fetch(new, new.cursors).items] == [0]

    def test_one_that_ends_takes_no_more_and_can_still_be_read(self, log: InboxLog) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1)])

        log.end(owner)
        log.end(owner)

        assert log.send("p", [message(2)]) == [Sent(Taken.NO_AGENT, 1)]
        assert len(log.fetch(owner, owner.cursors).items) == 1
        assert log.known(["counter"]) == [None]

    def test_what_it_got_before_it_ended_is_not_refused_when_it_is_sent_again(
        self, log: InboxLog
    ) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1)])
        log.end(owner)

        while_it_ends = log.send("p", [message(1), message(2)])
        log.drop(owner, "stopped")
        once_it_is_gone = log.send("p", [message(1), message(2)])

        assert while_it_ends == [Sent(Taken.OK), Sent(Taken.NO_AGENT, 1)]
        assert once_it_is_gone == while_it_ends

    def test_one_that_is_offered_takes_messages_until_somebody_owns_it(self, log: InboxLog) -> None:
        log.offer("counter", Terms(10, spec=b"how"))
        log.offer("counter", Terms(1, spec=b"otherwise"))

        sent = log.send("p", [message(1), message(2)])

        assert sent == [Sent(Taken.OK), Sent(Taken.OK)]
        assert log.known(["counter", "nobody"]) == [Known("", b"how", 10, "block"), None]
        assert log.ready(None) == ["counter"]
        assert log.names() == ["counter"]
        assert log.acquire("counter", "n1", ttl=TTL).depth == 2

    def test_of_an_idle_agent_only_what_is_unusual_takes_room(
        self, log: InboxLog, server: RedisServer
    ) -> None:
        record = f"{log.tag('counter')}:a:counter"
        log.acquire("counter", "n1", ttl=TTL, terms=Terms(5, "reject"))
        unusual = set(server.client.hkeys(record))

        log.acquire("counter", "n1", ttl=TTL, terms=Terms(10_000))

        assert unusual == {b"node", b"tok", b"v", b"cap", b"ovf"}
        assert set(server.client.hkeys(record)) == {b"node", b"tok", b"v"}
        assert log.known(["counter"]) == [Known("n1", b"", 10_000, "block")]

    def test_where_it_does_not_want_to_be_waited_for_a_full_one_drops(self, log: InboxLog) -> None:
        log.acquire("counter", "n1", ttl=TTL, terms=Terms(1, "reject"))

        sent = log.send("p", [message(1), message(2)])

        assert sent == [Sent(Taken.OK), Sent(Taken.DROP, 1)]

    def test_many_are_acquired_in_one_round_trip(self, log: InboxLog) -> None:
        log.beat("n1", ttl=TTL)
        log.acquire("taken", "n1", ttl=TTL)

        free, taken = log.acquire_many(["free", "taken"], "n2", ttl=TTL)

        assert isinstance(free, Ownership)
        assert isinstance(taken, OwnedBy)
        assert taken.node == "n1"


class TestTime:
    def test_what_is_delayed_comes_when_it_is_due(self, log: InboxLog) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1, delay=0.001), message(2, delay=60.0), message(3)])

        moved, wait = 0, None
        while moved < 1:
            count, wait = log.tick()
            moved += count

        assert blobs(log.fetch(owner, START).items) == ["counter 2 3", "counter 2 1"]
        assert wait is not None
        assert 50 < wait <= 60

    def test_nothing_that_is_due_makes_it_so(self, log: InboxLog) -> None:
        assert log.tick() == (0, None)

    def test_a_full_inbox_lets_what_is_due_wait(self, make: Callable[..., InboxLog]) -> None:
        log = make(capacity=1)
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1), message(2, delay=0.001)])

        wait = None
        while wait is None or wait < 0.5:
            moved, wait = log.tick()
            assert moved == 0

        assert len(log.fetch(owner, START).items) == 1


class TestBeating:
    def test_a_node_that_beats_is_nobodys_dead(self, log: InboxLog) -> None:
        log.acquire("counter", "n1", ttl=TTL)

        assert log.beat("n1", ttl=TTL) == []
        assert log.beat("n2", ttl=TTL) == []

    def test_a_node_is_dead_once_others_went_on_without_it(
        self, log: InboxLog, server: RedisServer
    ) -> None:
        log.acquire("counter", "n1", ttl=TTL)
        log.beat("n1", ttl=TTL)
        log.beat("n2", ttl=TTL)
        nodes = f"{log.tags[0]}:nodes"
        server.client.zincrby(nodes, -11_000, "n1")

        assert log.beat("n2", ttl=TTL) == ["n1"]
        assert log.acquire("counter", "n2", ttl=TTL).fresh
        assert log.beat("n2", ttl=TTL) == []

    def test_after_a_pause_of_the_server_nobody_is_dead(
        self, log: InboxLog, server: RedisServer
    ) -> None:
        log.acquire("counter", "n1", ttl=TTL)
        log.beat("n1", ttl=TTL)
        log.beat("n2", ttl=TTL)
        tag = log.tags[0]
        for node in ("n1", "n2"):
            server.client.zincrby(f"{tag}:nodes", -60_000, node)
        server.client.incrby(f"{tag}:beat", -60_000)

        assert log.beat("n2", ttl=TTL) == []
        with pytest.raises(OwnedBy):
            log.acquire("counter", "n2", ttl=TTL)

    @pytest.mark.parametrize("jump", [3_600_000, -3_600_000, 86_400_000, -86_400_000])
    def test_a_clock_that_jumps_kills_nobody(
        self, log: InboxLog, server: RedisServer, jump: int
    ) -> None:
        log.acquire("counter", "n1", ttl=TTL)
        log.beat("n1", ttl=TTL)
        log.beat("n2", ttl=TTL)
        tag = log.tags[0]
        for node in ("n1", "n2"):
            server.client.zincrby(f"{tag}:nodes", jump, node)
        server.client.incrby(f"{tag}:beat", jump)

        assert log.beat("n2", ttl=TTL) == []
        assert log.beat("n1", ttl=TTL) == []

    def test_who_leaves_is_gone(self, log: InboxLog, server: RedisServer) -> None:
        log.beat("n1", ttl=TTL)

        log.leave("n1", ttl=TTL)

        assert server.client.zrange(f"{log.tags[0]}:nodes", 0, -1) == []

    def test_who_leaves_agents_behind_is_dead_at_once(self, log: InboxLog) -> None:
        log.beat("n1", ttl=TTL)
        log.beat("n2", ttl=TTL)
        log.acquire("counter", "n1", ttl=TTL)

        log.leave("n1", ttl=TTL)

        assert log.beat("n2", ttl=TTL) == ["n1"]
        assert log.acquire("counter", "n2", ttl=TTL).fresh


class Ear:
    """Hears the bell of a node."""

    def __init__(self, log: InboxLog, server: RedisServer) -> None:
        self._log = log
        client: Any = server.subscriber()
        self._client = client  # kept: what it has made breaks when it is forgotten
        self._heard = client.pubsub()
        self._heard.subscribe(f"{log.tag('counter')}:bell:n1")
        self._hear("subscribe")

    def rung(self) -> list[bytes]:
        """What rang since last time."""
        self._log.ring("n1")
        return list(iter(lambda: self._hear("message"), b"look"))

    def _hear(self, kind: str) -> bytes:
        while (what := self._heard.get_message(timeout=10.0)) is None or what["type"] != kind:
            pass
        heard: bytes = what["data"]
        return heard

    def close(self) -> None:
        self._heard.close()
        self._client.close()


@pytest.fixture
def ear(log: InboxLog, server: RedisServer) -> Iterator[Ear]:
    ear = Ear(log, server)
    yield ear
    ear.close()


class TestBells:
    def test_the_owner_hears_of_work_once_until_it_has_looked(
        self, log: InboxLog, ear: Ear
    ) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)

        log.send("p", [message(1)])
        log.send("p", [message(2)])
        log.fetch(owner, START)
        log.send("p", [message(3)])
        log.tick()

        assert len(ear.rung()) == 2

    def test_what_comes_to_an_owner_that_has_seen_all_comes_along_with_its_bell(
        self, log: InboxLog, ear: Ear
    ) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1)])
        seen = log.fetch(owner, START)
        ear.rung()
        sent = [message(2), message(3), message(4, level=URGENT, ttl=9.0)]

        log.send("p", sent[:2])
        log.send("p", sent[2:])

        first, second = map(read_along, ear.rung())
        assert (first.agent, first.token, first.level) == ("counter", owner.token, NORMAL)
        assert first.cursor == after(seen.items)[NORMAL]
        assert [(one.position, one.id, one.blob) for one in first.items] == [
            (1, sent[0].id, sent[0].blob),
            (2, sent[1].id, sent[1].blob),
        ]
        assert (second.level, second.cursor) == (URGENT, Cursor())
        assert 8_900 < second.items[0].expiry - second.now <= 9_000

    def test_a_bell_of_the_owner_that_is_rung_besides_rings_once_for_both(
        self, log: InboxLog, ear: Ear, server: RedisServer
    ) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1)])
        log.fetch(owner, START)
        ear.rung()
        sent = message(2, ttl=9.0)
        (load,) = loads_of([sent])
        ring = (log.bell(log.tag("counter"), "n1"), b"ok \0 besides")

        client: Any = server.client
        told = client.execute_command(*log.shipping("p", load, ring=ring))

        (rung,) = ear.rung()
        besides, along = read_with(rung)
        assert told == [b"OK"]
        assert besides == ring[1]
        assert [one.id for one in read_along(along).items] == [sent.id]

    @pytest.mark.parametrize("comes_along", [True, False])
    def test_another_bell_that_is_rung_besides_is_rung_whatever_else_is(
        self, log: InboxLog, ear: Ear, server: RedisServer, comes_along: bool
    ) -> None:
        owner = log.acquire("counter", "n2", ttl=TTL)
        log.send("p", [message(1)])
        if comes_along:
            log.fetch(owner, START)
        (load,) = loads_of([message(2, ttl=9.0)])
        ring = (log.bell(log.tag("counter"), "n1"), b"ok \0 besides")

        client: Any = server.client
        client.execute_command(*log.shipping("p", load, ring=ring))

        assert ear.rung() == [b"ok \0 besides"]

    def test_what_came_along_with_a_bell_is_there_for_whoever_did_not_hear_it(
        self, log: InboxLog, ear: Ear
    ) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1)])
        seen = log.fetch(owner, START)
        log.send("p", [message(2)])

        found = log.fetch(owner, after(seen.items))
        last = log.acquire("counter", "n1", ttl=TTL)

        assert blobs(found.items) == ["counter 2 2"]
        assert last.delivered == (0, 0, 2, 0)

    def test_what_came_along_is_ready_until_it_is_acknowledged(self, log: InboxLog) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1)])
        log.fetch(owner, START)
        sent = message(2)
        log.send("p", [sent])

        ready = [log.ready("n1")]
        log.acknowledge(owner, (Cursor(), Cursor(), Cursor(2, sent.id), Cursor()))
        ready.append(log.ready("n1"))

        assert ready == [["counter"], []]

    @pytest.mark.parametrize("much", ["many", "large", "behind"])
    def test_what_is_much_comes_when_it_is_fetched(
        self, log: InboxLog, ear: Ear, much: str
    ) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        count = 64 if much == "behind" else 1
        log.send("p", [message(1 + number) for number in range(count)])
        log.fetch(owner, START, count=100)
        ear.rung()
        some = [message(count + 1 + number) for number in range(9 if much == "many" else 1)]
        if much == "large":
            some[0] = some[0]._replace(blob=b"x" * 9_000)

        log.send("p", some)
        log.send("p", [message(count + 1 + len(some))])

        assert ear.rung() == [b"at counter"]

    def test_what_was_put_off_rings_also_where_something_came_along_before(
        self, log: InboxLog, ear: Ear
    ) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1)])
        log.fetch(owner, START)
        log.send("p", [message(2), message(3, delay=0.001)])
        ear.rung()

        while not log.tick()[0]:
            pass
        log.send("p", [message(4)])

        assert len(ear.rung()) == 1

    def test_nothing_comes_along_to_a_new_owner(self, log: InboxLog, ear: Ear) -> None:
        owner = log.acquire("counter", "n1", ttl=TTL)
        log.send("p", [message(1)])
        log.fetch(owner, START)

        log.hand_off(owner, "n2")
        log.hand_off(log.acquire("counter", "n2", ttl=TTL), "n1")
        ear.rung()
        log.send("p", [message(2)])

        assert not any(one.startswith(b"in") for one in ear.rung())
