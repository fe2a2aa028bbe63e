"""The log of topics on fakeredis and on a real server: scripts that may come twice."""

from __future__ import annotations

from uuid import uuid4

import pytest

from actorbus.bus.transports.redis.loads import Outgoing, Sent, Taken
from actorbus.bus.transports.redis.log import InboxLog
from actorbus.bus.transports.redis.topics.log import (
    START,
    TOPICS,
    Broken,
    Entry,
    Found,
    Point,
    Rewound,
    Save,
    TopicLog,
    event,
    point_of,
    saving,
)
from actorbus.redis_client import RedisServer
from tests.bus.transports.redis.conftest import asked

OK = Sent(Taken.OK)


def published(sequence: int, topic: str | None = "prices.eur", **more: object) -> Outgoing:
    agent, blob = event(topic, "sender", b"%d" % sequence)
    return Outgoing(agent, sequence, 2, uuid4().bytes, blob, **more)  # type: ignore[arg-type]


@pytest.fixture
def topics(server: RedisServer, log: InboxLog) -> TopicLog:
    return TopicLog(server, log)


def read(topics: TopicLog, after: Point = START, count: int = 100, size: int = 1 << 20) -> Found:
    (found,) = topics.read([(after, None)], count=count, size=size)
    assert isinstance(found, Found)
    return found


def blobs(found: Found) -> list[bytes]:
    return [one.blob for one in found.entries if isinstance(one, Entry)]


class TestPublishing:
    def test_an_event_is_in_the_log_with_all_that_was_said_of_it(
        self, log: InboxLog, topics: TopicLog
    ) -> None:
        agent, blob = event("prices.eur", "naïve", b"payload")
        message = Outgoing(agent, 1, 3, uuid4().bytes, blob, ttl=5.0)

        assert log.send("p", [message]) == [OK]

        found = read(topics)
        (entry,) = found.entries
        assert isinstance(entry, Entry)
        assert entry[1:3] == (3, message.id)
        assert entry[4:] == ("prices.eur", "naïve", b"payload")
        assert 0 < entry.expiry - found.now <= 5_000
        assert entry.point == found.last
        assert entry.point.number == 1

    def test_a_broadcast_has_no_topic_and_may_have_no_sender(
        self, log: InboxLog, topics: TopicLog
    ) -> None:
        agent, blob = event(None, None, b"all")

        log.send("p", [Outgoing(agent, 1, 0, uuid4().bytes, blob)])

        (entry,) = read(topics).entries
        assert isinstance(entry, Entry)
        assert (entry.topic, entry.sender, entry.expiry) == (None, None, 0)

    def test_what_is_sent_twice_is_taken_once_in_the_order_of_its_producer(
        self, log: InboxLog, topics: TopicLog
    ) -> None:
        sent = [published(1), published(2)]

        assert log.send("p", sent) == log.send("p", sent) == [OK, OK]
        assert log.send("p", [published(5)]) == [Sent(Taken.GAP, 2)]
        assert log.send("q", [published(1)]) == [OK]

        assert blobs(read(topics)) == [b"1", b"2", b"1"]
        assert [one.point.number for one in read(topics).entries] == [1, 2, 3]

    def test_a_new_beginning_that_is_sent_twice_is_taken_once(
        self, log: InboxLog, topics: TopicLog
    ) -> None:
        sent = [published(7, base=True), published(8)]

        assert log.send("p", sent) == log.send("p", sent) == [OK, OK]

        assert blobs(read(topics)) == [b"7", b"8"]

    def test_events_go_with_messages_to_agents_in_one_call(
        self, log: InboxLog, topics: TopicLog
    ) -> None:
        owner = log.acquire("counter", "n1", ttl=10.0)

        sent = log.send(
            "p", [Outgoing("counter", 1, 2, uuid4().bytes, b"to it"), published(1), published(2)]
        )

        assert sent == [OK, OK, OK]
        assert len(log.fetch(owner, owner.cursors).items) == 1
        assert len(read(topics).entries) == 2
        assert log.depth(TOPICS) == 0

    def test_an_agent_whose_name_looks_like_it_has_an_inbox(
        self, log: InboxLog, topics: TopicLog
    ) -> None:
        for name in (" topic", " topics ", "%20topics", "topics"):
            log.acquire(name, "n1", ttl=10.0)

            log.send("p", [Outgoing(name, 1, 2, uuid4().bytes, b"to it")])

            assert log.depth(name) == 1
        assert not read(topics).entries


class TestReading:
    def test_it_is_bounded_by_count_and_bytes_but_one_comes_however_large(
        self, log: InboxLog, topics: TopicLog
    ) -> None:
        agent, blob = event("t", None, b"x" * 5_000)
        log.send("p", [Outgoing(agent, at, 2, uuid4().bytes, blob) for at in range(1, 81)])

        assert len(read(topics).entries) == 80
        assert len(read(topics, count=50).entries) == 50
        assert len(read(topics, size=12_000).entries) == 2
        assert len(read(topics, size=10).entries) == 1
        assert len(read(topics, size=250_000).entries) == 49
        first = read(topics, count=1).entries[0]
        assert [one.point.number for one in read(topics, first.point, count=2).entries] == [2, 3]

    def test_of_large_events_little_more_is_read_than_comes(self, redis_url: str) -> None:
        server = RedisServer(redis_url)
        log = InboxLog(server, namespace=uuid4().hex)
        agent, blob = event("t", None, b"x" * 10_000)
        log.send("p", [Outgoing(agent, at, 2, uuid4().bytes, blob) for at in range(1, 41)])

        with asked(server, "XRANGE", log.tags[0]) as commands:
            found = read(TopicLog(server, log), size=35_000)

        assert len(found.entries) == 3
        assert sum(int(words[5]) for words in commands) <= 4
        server.close()

    def test_a_log_that_is_not_the_one_that_was_read_is_told(
        self, log: InboxLog, topics: TopicLog
    ) -> None:
        log.send("p", [published(1), published(2)])
        first, last = read(topics).entries
        beyond = Point(9, last.point.time + 9)
        other = Point(1, first.point.time - 1)

        told = topics.read(
            [(first.point, first.id), (beyond, b""), (first.point, last.id), (other, b"")],
            count=9,
            size=99,
        )

        assert isinstance(told[0], Found)
        assert told[1:] == [Rewound(last.point, first.point)] * 3

    @pytest.mark.parametrize(
        "blob", [b"", b"\x00", b"\xff\xff", b"\x00\x02\xff\xff\x00\x00", b"\x00\x03a..\x00\x00"]
    )
    def test_bytes_that_none_of_us_wrote_are_told_from_events(
        self, log: InboxLog, topics: TopicLog, blob: bytes
    ) -> None:
        log.send("p", [Outgoing(TOPICS, 1, 2, uuid4().bytes, blob), published(2)])

        broken, entry = read(topics).entries

        assert isinstance(broken, Broken)
        assert broken.raw.endswith(blob)
        assert isinstance(entry, Entry)


class TestRetention:
    def test_only_what_is_beyond_a_bound_goes_and_the_numbers_stay(
        self, server: RedisServer, log: InboxLog
    ) -> None:
        topics = TopicLog(server, log, most=300)
        for first in range(1, 1_000, 200):
            log.send("p", [published(at) for at in range(first, first + 200)])

        topics.trim("n1", "p")

        entries = read(topics, count=1_000).entries
        assert 300 <= len(entries) < 500
        assert entries[0].point.number == 1_001 - len(entries)
        assert entries[-1].point.number == 1_000

    def test_large_events_are_kept_up_to_their_bytes(
        self, server: RedisServer, log: InboxLog
    ) -> None:
        topics = TopicLog(server, log, size=1_000_000)
        agent, blob = event("prices.eur", "sender", bytes(9_900))
        lengths = []

        for first in range(1, 401, 40):
            several = [
                Outgoing(agent, at, 2, uuid4().bytes, blob) for at in range(first, first + 40)
            ]
            log.send("p", several)
            topics.trim("n1", "p")
            lengths.append(len(read(topics, count=1_000, size=1 << 30).entries))

        assert lengths[:2] == [40, 80]
        assert all(100 <= length <= 145 for length in lengths[3:])

    def test_what_is_young_stays_and_what_is_old_goes(
        self, server: RedisServer, log: InboxLog
    ) -> None:
        log.send("p", [published(at) for at in range(1, 501)])

        TopicLog(server, log).trim("n1", "p")
        kept = len(read(TopicLog(server, log), count=1_000).entries)
        TopicLog(server, log, age=-60.0).trim("n1", "p")

        assert kept == 500
        after = read(TopicLog(server, log), count=1_000)
        assert len(after.entries) < 100
        assert after.last.number == 500

    def test_a_producer_that_goes_on_is_remembered(self, log: InboxLog, topics: TopicLog) -> None:
        log.send("p", [published(1)])

        for _ in range(3):
            topics.trim("n1", "p")

        assert log.send("p", [published(1), published(2)]) == [OK, OK]
        assert len(read(topics).entries) == 2


def save(
    topics: TopicLog, watermark: Point, *points: tuple[str, Point], **more: bool
) -> list[object]:
    last = read(topics).last
    return saving(Save(last, b"", watermark, points, (), **more))


class TestRecords:
    def test_a_call_that_comes_twice_is_done_once_and_one_that_comes_late_is_not(
        self, log: InboxLog, topics: TopicLog
    ) -> None:
        first = topics.keep("join", "n1", 0, 1, "a")
        log.send("p", [published(1)])

        again = topics.keep("join", "n1", 0, 1, "a")
        later = topics.keep("join", "n1", 1, 2, "b")

        assert first == again
        assert point_of(first.rest[0]).number == 0
        assert point_of(later.rest[0]).number == 1
        assert topics.keep("join", "n1", 0, 1, "a").word == "STALE"
        assert topics.keep("join", "n1", 5, 6, "a").word == "LOST"
        assert topics.keep("join", "n1", -1, 6, "a").word == "OK"

    def test_who_joins_at_the_watermark_costs_nothing(
        self, log: InboxLog, topics: TopicLog
    ) -> None:
        topics.keep("join", "n1", 0, 1, "a", "b")
        assert topics.lagging("n1") == {}
        log.send("p", [published(1)])

        topics.keep("join", "n1", 1, 2, "c")

        assert {agent: at.number for agent, at in topics.lagging("n1").items()} == {"c": 1}

    def test_an_agent_goes_on_at_its_point_or_else_at_the_watermark(
        self, log: InboxLog, topics: TopicLog
    ) -> None:
        topics.keep("join", "n1", 0, 1, "a", "b")
        log.send("p", [published(at) for at in (1, 2, 3)])
        one, two, _ = (entry.point for entry in read(topics).entries)
        topics.keep("save", "n1", 1, 2, *save(topics, two, ("a", one)))

        told = topics.keep("resume", "n2", 0, 1, "a", "n1", "b", "n1", "c", "n1", "d", "nobody")

        points = [point_of(word) for word in told.rest[1::2]]
        assert points == [one, two, two, read(topics).last]
        assert told.rest[2::2] == ("1", "1", "1", "0")
        assert topics.keep("resume", "n2", 0, 1, "a", "n1") == told

    def test_a_former_node_changes_nothing_of_an_agent_that_went_on_elsewhere(
        self, log: InboxLog, topics: TopicLog
    ) -> None:
        topics.keep("join", "n1", 0, 1, "a")
        log.send("p", [published(1)])
        (entry,) = read(topics).entries
        topics.keep("resume", "n2", 0, 1, "a", "n1")

        topics.keep("save", "n1", 1, 2, *save(topics, entry.point, ("a", entry.point)))
        topics.keep("park", "n1", 2, 3, "a", str(entry.point))
        topics.keep("forget", "n1", 3, 4, "a")

        assert topics.keep("subscribe", "n1", 4, 5, "a", "x").word == "FENCED"
        for former in ("n1", "n2"):
            told = topics.keep("resume", f"n3{former}", 0, 1, "a", former)
            assert point_of(told.rest[1]) == START
        back = topics.keep("resume", "n1", 4, 5, "a", "n3n2")
        assert point_of(back.rest[1]) == START

    def test_a_parked_agent_goes_on_where_it_was_parked(
        self, log: InboxLog, topics: TopicLog
    ) -> None:
        topics.keep("join", "n1", 0, 1, "a")
        log.send("p", [published(1), published(2)])
        one, two = (entry.point for entry in read(topics).entries)
        topics.keep("park", "n1", 1, 2, "a", str(one))
        topics.keep("save", "n1", 2, 3, *save(topics, two))

        for former in ("", "n1"):
            told = topics.keep("resume", "n2", 0, 1, "a", former)
            assert point_of(told.rest[1]) == one

    def test_nothing_is_saved_of_a_log_that_the_server_does_not_have(
        self, log: InboxLog, topics: TopicLog
    ) -> None:
        topics.keep("join", "n1", 0, 1, "a")
        log.send("p", [published(1)])
        (entry,) = read(topics).entries

        for read_to, message_id in ((Point(2, entry.point.time), b""), (entry.point, b"x" * 16)):
            told = topics.keep(
                "save", "n1", 1, 2, *saving(Save(read_to, message_id, read_to, (), ()))
            )
            assert told.word == "RESET"

        told = topics.keep("resume", "n2", 0, 1, "a", "n1")
        assert point_of(told.rest[1]) == START

    def test_what_is_said_anew_replaces_what_was_known(
        self, log: InboxLog, topics: TopicLog
    ) -> None:
        log.send("p", [published(1), published(2)])
        one, two = (entry.point for entry in read(topics).entries)
        topics.keep("save", "n1", 0, 1, *save(topics, two, ("a", one), ("b", one)))

        topics.keep("save", "n1", -1, 9, *save(topics, two, ("b", one), anew=True))

        assert topics.lagging("n1") == {"b": one}

    def test_a_subscription_begins_once(self, log: InboxLog, topics: TopicLog) -> None:
        topics.keep("subscribe", "n1", 0, 1, "a", b"\x00what\xff")
        log.send("p", [published(1)])

        again = topics.keep("subscribe", "n1", 1, 2, "a", b"\x00what\xff")
        other = topics.keep("subscribe", "n1", 2, 3, "a", b"other")

        assert point_of(again.rest[0]).number == 0
        assert point_of(other.rest[0]).number == 1
        (kept,) = topics.subscriptions(["a"])
        assert {what: at.number for what, at in kept.items()} == {b"\x00what\xff": 0, b"other": 1}
        topics.keep("unsubscribe", "n1", 3, 4, "a", b"other")
        assert topics.subscriptions(["a"])[0].keys() == {b"\x00what\xff"}
        topics.keep("forget", "n1", 4, 5, "a")
        assert topics.subscriptions(["a"]) == [{}]

    def test_a_node_without_agents_leaves_nothing(
        self, server: RedisServer, log: InboxLog, topics: TopicLog
    ) -> None:
        topics.keep("join", "n1", 0, 1, "a")
        topics.keep("forget", "n1", 1, 2, "a")

        topics.keep("leave", "n1", 2, 3)

        tag = log.tag(TOPICS)
        assert not server.client.exists(f"{tag}:t:n:n1", f"{tag}:t:lag:n1", f"{tag}:t:parked")
