from __future__ import annotations

from typing import Any
from uuid import uuid4

import fakeredis
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actorbus.bus.transports.redis.lanes import Accepted, Hole, Lanes, Parcel, Refused
from actorbus.bus.transports.redis.loads import Load, Sent, Shipped, Taken
from actorbus.bus.transports.redis.log import InboxLog
from actorbus.redis_client import RedisServer

NEVER = 1e9


def parcel(text: str, agent: str = "a", deadline: float = NEVER) -> Parcel:
    return Parcel(agent, 2, uuid4().bytes, text.encode(), deadline)


def lanes_with(*texts: str, agent: str = "a", **options: Any) -> Lanes:
    lanes = Lanes(**options)
    for text in texts:
        lanes.add(parcel(text, agent))
    return lanes


def sent(batch: list[Load]) -> list[tuple[int, str]]:
    """Number and text of each message."""
    return [
        (load.first + at, item[30:].decode())
        for load in batch
        for at, item in enumerate(load.items)
    ]


def refused(taken: Taken, number: int = 0, *, after: int = 0) -> Shipped:
    """What becomes of a load of which the first `after` messages were taken."""
    return Shipped(after, Sent(taken, number))


def accept(lanes: Lanes, now: float = 0.0) -> list[tuple[int, str]]:
    """Send all that may be sent, successfully."""
    numbered: list[tuple[int, str]] = []
    while batch := lanes.next_batch(now, 1_000):
        lanes.answered([Shipped(len(load)) for load in batch], now)
        numbered += sent(batch)
    return numbered


class TestNumbers:
    def test_each_recipient_has_its_own(self) -> None:
        lanes = lanes_with("1", "2")
        lanes.add(parcel("x", "b"))

        batch = lanes.next_batch(0.0, 1_000)

        assert [(one.agent, sent([one])) for one in batch] == [
            ("a", [(1, "1"), (2, "2")]),
            ("b", [(1, "x")]),
        ]

    def test_they_go_on(self) -> None:
        lanes = lanes_with("1", "2")
        accept(lanes)
        lanes.add(parcel("3"))

        assert accept(lanes) == [(3, "3")]
        assert lanes.waiting == 0

    def test_a_batch_whose_fate_is_unknown_goes_again_as_it_was(self) -> None:
        lanes = lanes_with("1", "2")
        first = lanes.next_batch(0.0, 1_000)
        lanes.failed()
        lanes.add(parcel("3"))

        assert lanes.next_batch(0.0, 1_000) == first

    def test_no_recipient_holds_up_the_others(self) -> None:
        lanes = lanes_with(*map(str, range(5_000)))
        lanes.add(parcel("x", "b"))

        batch = lanes.next_batch(0.0, 1_000)

        assert "b" in {one.agent for one in batch}

    def test_a_batch_has_so_many_at_most(self) -> None:
        lanes = lanes_with(*map(str, range(50)))

        assert sum(map(len, lanes.next_batch(0.0, 7))) == 7

    def test_a_batch_has_so_many_bytes_at_most_and_one_message_however_large(self) -> None:
        lanes = lanes_with("x" * 3_000_000, *["y" * 300_000] * 20)
        for agent in "bcdefgh":
            for _ in range(10):
                lanes.add(parcel("z" * 300_000, agent))

        sizes = []
        while batch := lanes.next_batch(0.0, 1_000):
            sizes.append([sum(map(len, load.items)) for load in batch])
            lanes.answered([Shipped(len(load)) for load in batch], 0.0)

        assert sizes[0][0] == 3_000_030
        assert max(max(loads[1:], default=0) for loads in sizes) < 1 << 20
        assert max(map(sum, sizes)) < 5 << 20
        assert lanes.waiting == 0

    def test_what_found_no_room_does_not_bring_all_that_waits_behind_it_again(self) -> None:
        lanes = lanes_with(*["x" * 1_000_000] * 50)
        lanes.next_batch(0.0, 1_000)

        lanes.answered([refused(Taken.FULL)], 0.0)

        (load,) = lanes.next_batch(1.0, 1_000)
        assert len(load) == 1

    def test_none_waits_for_ever_because_those_before_it_fill_every_batch(self) -> None:
        agents = [f"a{number}" for number in range(11)]
        lanes = Lanes()
        told = dict.fromkeys(agents, 0)

        for _ in range(22):
            for agent in agents:
                for _ in range(100):
                    lanes.add(parcel("x", agent))
            batch = lanes.next_batch(0.0, 1_000)
            for load in batch:
                told[load.agent] += len(load)
            lanes.answered([Shipped(len(load)) for load in batch], 0.0)

        assert set(told.values()) == {2_000}

    def test_messages_that_are_not_alike_go_together_all_the_same(self) -> None:
        lanes = Lanes()
        lanes.add(parcel("1"))
        lanes.add(parcel("2")._replace(level=0))
        lanes.add(parcel("3")._replace(expires=5.0))
        lanes.add(parcel("4")._replace(due=2.0, expires=5.0))

        (load,) = lanes.next_batch(1.0, 1_000)

        assert [one[:3] for one in load.timed] == [
            (2, None, None),
            (0, None, None),
            (2, 4.0, None),
            (2, 3.0, 1.0),
        ]


class TestRefusals:
    def test_one_that_nobody_takes_gives_its_number_to_the_next(self) -> None:
        lanes = lanes_with("1", "2", "3")
        lanes.next_batch(0.0, 1_000)

        news = lanes.answered([refused(Taken.NO_AGENT, 1, after=1)], 0.0)

        assert [type(one) for one in news] == [Accepted, Refused]
        assert accept(lanes) == [(2, "3")]

    def test_a_full_inbox_is_tried_again_later_and_in_order(self) -> None:
        lanes = lanes_with("1", "2")
        lanes.next_batch(0.0, 1_000)

        news = lanes.answered([refused(Taken.FULL, 9)], 0.0)

        assert news == []
        assert lanes.next_batch(0.0, 1_000) == []
        wakes_at = lanes.wakes_at()
        assert wakes_at is not None
        assert wakes_at > 0.0
        assert accept(lanes, wakes_at) == [(1, "1"), (2, "2")]

    def test_one_that_waited_to_its_deadline_is_refused_and_the_next_has_its_turn(self) -> None:
        lanes = Lanes()
        lanes.add(parcel("1", deadline=5.0))
        lanes.add(parcel("2"))
        lanes.next_batch(6.0, 1_000)

        news = lanes.answered([refused(Taken.FULL, 9)], 6.0)

        assert [one.parcel.blob for one in news if isinstance(one, Refused)] == [b"1"]
        assert accept(lanes, 10.0) == [(1, "2")]

    def test_one_that_may_be_there_is_not_refused_before_that_is_known(self) -> None:
        lanes = Lanes()
        lanes.add(parcel("1", deadline=5.0))
        first = lanes.next_batch(0.0, 1_000)
        lanes.failed()

        assert lanes.next_batch(6.0, 1_000) == first

    def test_a_full_inbox_holds_up_nobody_else(self) -> None:
        lanes = lanes_with("1")
        lanes.add(parcel("x", "b"))
        lanes.next_batch(0.0, 1_000)
        lanes.answered([refused(Taken.FULL, 9), Shipped(1)], 0.0)
        lanes.add(parcel("y", "b"))

        assert accept(lanes) == [(2, "y")]

    def test_one_that_the_server_has_forgotten_is_waited_for_and_then_refused(self) -> None:
        lanes = Lanes()
        lanes.add(parcel("1"))
        lanes.next_batch(0.0, 10)
        lanes.answered([Shipped(1)], 0.0)
        lanes.add(parcel("2"))
        lanes.next_batch(1.0, 10)

        at_first = lanes.answered([refused(Taken.NO_AGENT)], 1.0)
        lanes.next_batch(12.0, 10)
        then = lanes.answered([refused(Taken.NO_AGENT)], 12.0)

        assert at_first == []
        assert [type(one).__name__ for one in then] == ["Refused"]

    def test_a_first_message_waits_while_the_server_may_have_lost_its_agent(self) -> None:
        lanes = lanes_with("1")
        lanes.doubts_until = 5.0
        lanes.next_batch(0.0, 10)

        at_first = lanes.answered([refused(Taken.NO_AGENT)], 0.0)
        lanes.next_batch(6.0, 10)
        then = lanes.answered([refused(Taken.NO_AGENT)], 6.0)

        assert at_first == []
        assert [type(one).__name__ for one in then] == ["Refused"]

    def test_one_that_has_ended_is_not_waited_for(self) -> None:
        lanes = lanes_with("1")
        lanes.doubts_until = 5.0
        lanes.next_batch(0.0, 10)

        (news,) = lanes.answered([refused(Taken.NO_AGENT, 1)], 0.0)

        assert type(news).__name__ == "Refused"


class TestLostTails:
    def test_what_the_server_lost_goes_again_before_the_rest(self) -> None:
        lanes = lanes_with("1", "2", "3")
        accept(lanes)
        lanes.add(parcel("4"))
        lanes.next_batch(0.0, 1_000)

        news = lanes.answered([refused(Taken.GAP, 1)], 0.0)

        assert news == []
        assert accept(lanes) == [(2, "2"), (3, "3"), (4, "4")]

    def test_what_goes_again_is_as_it_was_and_its_sender_is_told_no_more(self) -> None:
        lanes = Lanes()
        one = Parcel("a", 1, uuid4().bytes, b"1", 7.0, 8.0, None, "tag")
        lanes.add(one)
        lanes.next_batch(0.0, 1_000)
        (accepted,) = lanes.answered([Shipped(1)], 0.0)
        lanes.add(parcel("2"))
        lanes.next_batch(1.0, 1_000)
        lanes.answered([refused(Taken.GAP, 0)], 1.0)

        again = lanes.give_up()

        assert accepted == Accepted([one])
        assert again[0] == one._replace(tag=None)
        assert [found.blob for found in again] == [b"1", b"2"]

    def test_what_is_too_old_is_a_hole_that_is_told(self) -> None:
        lanes = lanes_with("1", "2", horizon=10.0)
        accept(lanes, now=0.0)
        lanes.add(parcel("3"))
        accept(lanes, now=20.0)
        lanes.add(parcel("4"))
        lanes.next_batch(20.0, 1_000)

        news = lanes.answered([refused(Taken.GAP, 0)], 20.0)

        assert news == [Hole("a", 2)]
        batch = lanes.next_batch(20.0, 1_000)
        assert [(one.base, sent([one])) for one in batch] == [(True, [(3, "3"), (4, "4")])]

    def test_the_window_is_bounded(self) -> None:
        lanes = lanes_with(*map(str, range(100)), window=10)
        accept(lanes)

        assert sum(len(kept.parcels) for kept in lanes._lanes["a"].window) == 10


class TestForgetting:
    def test_who_was_sent_nothing_for_long_is_forgotten_and_no_number_is_given_twice(self) -> None:
        lanes = lanes_with("1", "2")
        accept(lanes, now=0.0)
        lanes.add(parcel("x", "b"))
        accept(lanes, now=700.0)
        lanes.add(parcel("3"))

        forgotten = list(lanes._lanes) == ["b", "a"]
        batch = lanes.next_batch(700.0, 1_000)

        assert forgotten
        assert [(one.base, sent([one])) for one in batch] == [(True, [(3, "3")])]

    def test_who_sends_to_ever_new_agents_remembers_no_more_than_those_of_some_minutes(
        self,
    ) -> None:
        lanes, now, most = Lanes(), 0.0, 0

        for number in range(4_000):
            now += 1.0
            lanes.add(parcel("x", f"agent-{number}"))
            accept(lanes, now)
            most = max(most, len(lanes._lanes))

        assert most <= 600 + 60 + 60

    def test_no_answer_looks_at_all_lanes_that_there_are(self) -> None:
        lanes = Lanes()
        for number in range(1_000):
            lanes.add(parcel("x", f"agent-{number}"))
        accept(lanes, now=0.0)

        left = []
        for _ in range(3):
            lanes.next_batch(700.0, 10)
            lanes.answered([], 700.0)
            left.append(len(lanes._lanes))

        assert left == [950, 900, 850]

    def test_one_with_messages_that_wait_is_not(self) -> None:
        lanes = lanes_with("1")
        lanes.next_batch(0.0, 1_000)
        lanes.answered([refused(Taken.FULL)], 0.0)
        lanes.add(parcel("x", "b"))

        accept(lanes, now=0.0001)
        numbered = accept(lanes, now=700.0)

        assert numbered == [(1, "1")]

    def test_one_with_messages_that_may_be_sent_again_is_not(self) -> None:
        lanes = lanes_with("1", horizon=1_000.0)
        accept(lanes, now=0.0)
        lanes.add(parcel("x", "b"))
        accept(lanes, now=700.0)
        lanes.add(parcel("2"))
        lanes.next_batch(700.0, 1_000)

        news = lanes.answered([refused(Taken.GAP, 0)], 700.0)

        assert news == []
        assert accept(lanes, now=700.0) == [(1, "1"), (2, "2")]

    def test_what_an_earlier_life_of_the_lane_sent_is_no_hole(self) -> None:
        lanes = lanes_with("1", "2")
        accept(lanes, now=0.0)
        lanes.add(parcel("x", "b"))
        accept(lanes, now=700.0)
        lanes.add(parcel("3"))
        accept(lanes, now=700.0)
        lanes.add(parcel("4"))
        lanes.next_batch(701.0, 1_000)

        news = lanes.answered([refused(Taken.GAP, 0)], 701.0)

        assert news == []
        batch = lanes.next_batch(701.0, 1_000)
        assert [(one.base, sent([one])) for one in batch] == [(True, [(3, "3"), (4, "4")])]


def test_what_was_given_up_is_named() -> None:
    lanes = lanes_with("1", "2")

    assert [one.blob for one in lanes.give_up()] == [b"1", b"2"]
    assert lanes.waiting == 0
    assert lanes.next_batch(0.0, 10) == []


class Unlucky:
    """A server of which some answers are lost, and some calls."""

    def __init__(self, capacity: int) -> None:
        fake = fakeredis.FakeServer()
        self.server = RedisServer(
            "redis://fake", make=lambda **_: fakeredis.FakeRedis(server=fake, protocol=2)
        )
        self.log = InboxLog(self.server, capacity=capacity)


@pytest.mark.parametrize("capacity", [5, 1_000])
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.sampled_from("ab"), st.integers(0, 3)),
            st.sampled_from(["send", "call lost", "answer lost", "consume", "much later"]).map(
                lambda s: (s,)
            ),
        ),
        max_size=40,
    )
)
@example(steps=[("add", "a", 2), ("send",), ("much later",), ("add", "a", 2)])
@settings(max_examples=40, deadline=None)
def test_each_message_is_there_once_and_in_order_whatever_is_lost_on_the_way(
    capacity: int, steps: list[tuple[Any, ...]]
) -> None:
    unlucky, lanes = Unlucky(capacity), Lanes()
    log = unlucky.log
    owners = {name: log.acquire(name, "n", ttl=10) for name in "ab"}
    cursors = {name: owners[name].cursors for name in "ab"}
    added: dict[str, list[list[str]]] = {name: [[], [], [], []] for name in "ab"}
    found: dict[str, list[list[str]]] = {name: [[], [], [], []] for name in "ab"}
    now = 0.0

    def send(fate: str) -> None:
        nonlocal now
        now += 2.0
        batch = lanes.next_batch(now, 7)
        if fate != "call lost":
            answers = log.ship("p", batch)
        if fate == "send":
            lanes.answered(answers, now)
        else:
            lanes.failed()

    def consume() -> None:
        for name, owner in owners.items():
            items = log.fetch(owner, cursors[name]).items
            moved = list(cursors[name])
            for item in items:
                found[name][item.level].append(item.blob.decode())
                moved[item.level] = moved[item.level]._replace(
                    position=item.position + 1, id=item.id
                )
            a, b, c, d = moved
            cursors[name] = a, b, c, d
            log.acknowledge(owner, cursors[name])

    for number, step in enumerate(steps):
        match step:
            case ("add", agent, level):
                lanes.add(Parcel(agent, level, uuid4().bytes, str(number).encode(), NEVER))
                added[agent][level].append(str(number))
            case ("consume",):
                consume()
            case ("much later",):
                now += 700.0
                send("send")  # whom nothing was sent to is forgotten
            case (fate,):
                send(fate)
    for _ in range(200):
        if not lanes.waiting:
            break
        send("send")
        consume()
    consume()

    assert lanes.waiting == 0
    assert found == added
    unlucky.server.close()


def test_what_is_kept_to_be_sent_again_is_bounded_in_bytes_over_all_lanes() -> None:
    lanes = Lanes(window_bytes=10)
    for text in ("aaaa", "bbbb", "cccc", "dddd"):
        lanes.add(parcel(text))
        accept(lanes)

    lanes.add(parcel("next"))
    lanes.next_batch(0.0, 10)
    news = lanes.answered([refused(Taken.GAP, 0)], 0.0)

    assert news == [Hole("a", 2)]
    assert accept(lanes) == [(3, "cccc"), (4, "dddd"), (5, "next")]


def test_where_that_is_too_much_the_oldest_goes_whosever_it_is() -> None:
    lanes = Lanes(window_bytes=10)
    lanes.add(parcel("12345678", "old"))
    accept(lanes, 0.0)
    lanes.add(parcel("1234", "new"))
    accept(lanes, 1.0)

    lanes.add(parcel("123456", "old"))
    accept(lanes, 2.0)
    lanes.add(parcel("?", "new"))
    lanes.next_batch(2.0, 1_000)
    lanes.answered([refused(Taken.GAP, 0)], 2.0)

    assert accept(lanes, 2.0) == [(1, "1234"), (2, "?")]


def test_what_is_too_old_takes_no_room_from_others() -> None:
    lanes = Lanes(window_bytes=10, horizon=10.0)
    lanes.add(parcel("12345678", "old"))
    accept(lanes, 0.0)
    lanes.add(parcel("x", "new"))

    accept(lanes, 10.1)

    assert lanes._kept_bytes == 1


@given(
    sends=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.floats(0, 4)), max_size=60
    ),
    window=st.integers(1, 5),
)
def test_what_is_kept_is_the_newest_of_all_within_every_bound(
    sends: list[tuple[str, int, float]], window: int
) -> None:
    lanes = Lanes(horizon=10.0, window=window, window_bytes=30)
    accepted: list[tuple[str, int, float]] = []
    now = 0.0

    for agent, size, later in sends:
        now += later
        lanes.add(parcel("x" * size, agent))
        accept(lanes, now)
        accepted.append((agent, size, now))

    found = [
        (kept.lane.agent, len(one[2]), kept.accepted_at)
        for kept in lanes._kept
        for one in kept.parcels
    ]
    assert sum(size for _, size, _ in found) == lanes._kept_bytes <= 30
    assert all(now - at <= 10.0 for _, _, at in found)
    for agent in "abc":
        mine = [one for one in accepted if one[0] == agent]
        kept = [one for one in found if one[0] == agent]
        assert len(kept) <= window
        assert kept == mine[len(mine) - len(kept) :]
