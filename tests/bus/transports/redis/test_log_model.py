"""The inbox log against a plain model: whatever is sent twice, lost, taken over or forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import fakeredis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actorbus.bus.transports.redis.loads import Outgoing, Taken
from actorbus.bus.transports.redis.log import InboxLog
from actorbus.bus.transports.redis.ownership import Cursor, Cursors, Fenced, Ownership
from actorbus.redis_client import RedisServer

if TYPE_CHECKING:
    from actorbus.bus.transports.redis.items import Item

CAPACITY = 8
producers = st.sampled_from(["p", "q"])
levels = st.integers(0, 3)


def shares(waiting: list[int], count: int) -> list[int]:
    """How many of each level come: 8 to 4 to 2 to 1, and what one leaves the highest may have."""
    parts = [
        min(here, max(1, count * credit // 15))
        for here, credit in zip(waiting, (8, 4, 2, 1), strict=True)
    ]
    for level, here in enumerate(waiting):
        parts[level] += max(0, min(count - sum(parts), here - parts[level]))
    for level, part in enumerate(parts):
        parts[level] = max(0, min(part, count - sum(parts[:level])))
    return parts


class LogAgainstModel(RuleBasedStateMachine):
    """One agent, two producers, owners that come and go.

    Each message is known by its number. The model: what was accepted, level by level, and how
    much of it was acknowledged.
    """

    def __init__(self) -> None:
        super().__init__()
        fake = fakeredis.FakeServer()
        self.server = RedisServer(
            "redis://fake", make=lambda **_: fakeredis.FakeRedis(server=fake, protocol=2)
        )
        self.log = InboxLog(self.server, capacity=CAPACITY)
        self.accepted: list[list[bytes]] = [[], [], [], []]
        self.acknowledged = [0, 0, 0, 0]
        self.next = {"p": 1, "q": 1}
        self.last: dict[str, list[Outgoing]] = {"p": [], "q": []}
        self.owner: Ownership | None = None
        self.former: list[tuple[Ownership, Cursors]] = []
        self.cursors: list[Cursor] = []
        self.in_hand: list[Item] = []
        self.number = 0
        self.owes_a_fetch = False
        self.nodes = 0
        self.log.send("p", [], create=True)

    def _outgoing(self, sequence: int, level: int) -> Outgoing:
        self.number += 1
        return Outgoing("agent", sequence, level, uuid4().bytes, str(self.number).encode())

    # -- producers

    @rule(producer=producers, of=st.lists(levels, min_size=1, max_size=4))
    def send(self, producer: str, of: list[int]) -> None:
        first = self.next[producer]
        sent = [self._outgoing(first + at, level) for at, level in enumerate(of)]
        answers = self.log.send(producer, sent, create=True)
        refused = False
        for message, answer in zip(sent, answers, strict=True):
            waiting = sum(map(len, self.accepted)) - sum(self.acknowledged)
            room = CAPACITY + (message.level == 0)
            if refused:
                assert answer.taken is Taken.GAP
            elif waiting >= room:
                assert answer.taken is Taken.FULL
                assert answer.number == waiting
                refused = True
            else:
                assert answer.taken is Taken.OK
                self.accepted[message.level].append(message.blob)
                self.next[producer] += 1
                self.last[producer].append(message)

    @rule(producer=producers)
    def send_again(self, producer: str) -> None:
        again = self.last[producer][-5:]
        assert all(one.taken is Taken.OK for one in self.log.send(producer, again))

    @rule(producer=producers, level=levels, ahead=st.integers(1, 3))
    def send_ahead(self, producer: str, level: int, ahead: int) -> None:
        number = self.next[producer]
        (answer,) = self.log.send(producer, [self._outgoing(number + ahead, level)], create=True)
        assert (answer.taken, answer.number) == (Taken.GAP, number - 1)

    # -- owners

    @rule()
    def take_over(self) -> None:
        """Nobody beats here, so everybody is taken for dead."""
        if self.owner is not None:
            self.former.append((self.owner, self._as_cursors()))
        self.nodes += 1
        self.owner = self.log.acquire("agent", f"n{self.nodes}", ttl=10)
        assert list(self.owner.heads) == self.acknowledged
        self.cursors = list(self.owner.cursors)
        self.in_hand = []
        self.owes_a_fetch = False

    @precondition(lambda self: self.owner is not None)
    @rule(count=st.integers(1, 5), lost=st.booleans())
    def fetch(self, count: int, lost: bool) -> None:
        assert self.owner is not None
        found = self.log.fetch(self.owner, self._as_cursors(), count=count)
        waiting = [
            len(blobs) - cursor.position
            for blobs, cursor in zip(self.accepted, self.cursors, strict=True)
        ]
        assert [item.blob for item in found.items] == [
            blob
            for level, few in enumerate(shares(waiting, count))
            for blob in self.accepted[level][self.cursors[level].position :][:few]
        ]
        assert len(found.items) == min(count, sum(waiting))
        assert found.unseen == sum(waiting) - len(found.items)
        # An owner that got no answer knows that it has to ask again.
        self.owes_a_fetch = lost
        if not lost:
            for item in found.items:
                self.cursors[item.level] = Cursor(item.position + 1, item.id)
            self.in_hand += found.items

    @precondition(lambda self: self.owner is not None and self.in_hand)
    @rule(data=st.data(), times=st.integers(1, 2))
    def acknowledge(self, data: Any, times: int) -> None:
        assert self.owner is not None
        handled = data.draw(st.integers(1, len(self.in_hand)))
        done = [Cursor(position) for position in self.acknowledged]
        for item in sorted(self.in_hand[:handled], key=lambda item: item.position):
            done[item.level] = Cursor(item.position + 1, item.id)
        a, b, c, d = done
        freed = [self.log.acknowledge(self.owner, (a, b, c, d)) for _ in range(times)]
        before, self.acknowledged = self.acknowledged, [one.position for one in done]
        assert freed == [sum(self.acknowledged) - sum(before), 0][:times]
        self.in_hand = self.in_hand[handled:]

    @precondition(lambda self: self.former)
    @rule(data=st.data())
    def a_former_owner_tries(self, data: Any) -> None:
        ownership, cursors = data.draw(st.sampled_from(self.former))
        for call in (
            lambda: self.log.fetch(ownership, cursors),
            lambda: self.log.acknowledge(ownership, cursors),
            lambda: self.log.release(ownership),
        ):
            try:
                call()
            except Fenced:
                continue
            raise AssertionError("it was let in")

    @rule()
    def scripts_are_forgotten(self) -> None:
        self.server.client.script_flush()

    # --

    @invariant()
    def what_waits_is_counted(self) -> None:
        waiting = sum(map(len, self.accepted)) - sum(self.acknowledged)
        assert self.log.depth("agent") == waiting

    @invariant()
    def work_that_nobody_has_seen_is_known(self) -> None:
        node = None if self.owner is None else self.owner.node
        ready = self.log.ready(node) == ["agent"]
        seen = self.cursors or [Cursor()] * 4
        unseen = any(
            len(blobs) > cursor.position for blobs, cursor in zip(self.accepted, seen, strict=True)
        )
        assert ready or self.owes_a_fetch or not unseen

    def _as_cursors(self) -> Cursors:
        a, b, c, d = self.cursors
        return a, b, c, d

    def teardown(self) -> None:
        self.server.close()


TestLogAgainstModel = LogAgainstModel.TestCase
TestLogAgainstModel.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
