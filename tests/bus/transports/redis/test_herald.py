"""Answers that are heard before they are in an inbox, and those that are not."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest

from actorbus import Agent, AgentFailed, Node, Settings, handles
from actorbus.bus.transports.redis import notes as notes_
from actorbus.bus.transports.redis import outbox as outboxes
from actorbus.bus.transports.redis.herald import (
    AHEAD,
    Herald,
    read_ahead,
    read_heard,
)
from actorbus.bus.transports.redis.lanes import Accepted, Parcel
from actorbus.bus.transports.redis.letters import notes_of, pack_value
from actorbus.bus.transports.redis.notes import Notes
from actorbus.bus.transports.redis.outbox import Outbox
from actorbus.bus.transports.redis.ownership import Terms
from actorbus.bus.transports.redis.sender import Sender
from actorbus.codec.signing import make_keys
from actorbus.errors import Undecodable
from actorbus.message import MessageId
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from actorbus.bus.transports.redis.lanes import News
    from actorbus.bus.transports.redis.log import InboxLog

DEADLINE = 10.0
READER = notes_of("b~2")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class TestWords:
    @pytest.mark.parametrize("what", [b"", b"a", b"a " + bytes(16), b"\xff " + bytes(20)])
    def test_what_is_no_note_is_none(self, what: bytes) -> None:
        with pytest.raises(Undecodable):
            read_ahead(what)

    def test_ids_are_read_one_by_one(self) -> None:
        ids = [uuid4().bytes, uuid4().bytes]

        assert read_heard(b"".join(ids)) == ids


class FakeLine:
    """A line to a server of which `hear` listen."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.hear = 1

    def send(self, *words: Any) -> bool:
        self.sent.append(words)
        return True

    def look(self) -> int:
        return self.hear


class FakeLog:
    """As much of a log as a herald needs."""

    def __init__(self) -> None:
        self.line: FakeLine | None = None
        self.may_be_had = True

    def dial(self) -> Any:
        return self

    def open(self) -> None:
        self.line = FakeLine()

    def hang_up(self) -> None:
        self.line = None

    def tag(self, _: str) -> str:
        return "{t}"

    def bell(self, tag: str, node: str) -> str:
        return f"{tag}:bell:{node}"


class TestHerald:
    @pytest.fixture
    def server(self) -> FakeLog:
        return FakeLog()

    @pytest.fixture
    def herald(self, server: FakeLog, clock: Clock) -> Herald:
        herald = Herald(cast("Any", server), "a node~1", monotonic=clock)
        herald.open()
        return herald

    @staticmethod
    def tell(herald: Herald, inbox: str = READER, size: int = 10) -> bytes | None:
        note_id = uuid4().bytes
        return note_id if herald.tell("b~2", inbox, note_id, bytes(size)) else None

    def test_what_is_told_names_who_tells_it_and_the_note(
        self, herald: Herald, server: FakeLog
    ) -> None:
        note_id = self.tell(herald)

        assert server.line is not None
        ((command, channel, what),) = server.line.sent
        assert (command, channel) == ("PUBLISH", "{t}:bell:b~2")
        assert what.startswith(AHEAD)
        assert read_ahead(what[len(AHEAD) :]) == ("a node~1", note_id, bytes(10))

    def test_who_has_not_heard_the_last_one_is_told_no_more_for_a_while(
        self, herald: Herald, clock: Clock
    ) -> None:
        first = self.tell(herald)
        second = self.tell(herald)
        another = self.tell(herald, notes_of("c~3"))
        clock.now += 0.051
        later = self.tell(herald)

        assert first
        assert second is None
        assert another
        assert later

    def test_who_has_heard_the_last_one_is_told_the_next(self, herald: Herald) -> None:
        for _ in range(5):
            told = self.tell(herald)
            assert told
            herald.heard([told])

    def test_what_is_too_large_is_not_told(self, herald: Herald) -> None:
        assert self.tell(herald, size=16_385) is None

    def test_a_server_where_nobody_hears_is_left(
        self, herald: Herald, server: FakeLog, clock: Clock
    ) -> None:
        assert server.line is not None
        server.line.hear = 0
        told = 0
        while server.line is not None and told < 100:
            clock.now += 1.0
            told += self.tell(herald) is not None

        assert told == 16
        self.tell(herald)
        assert herald.wanted


class TestSoon:
    """What its reader was told already."""

    @pytest.fixture
    def told(self) -> list[News]:
        return []

    @pytest.fixture
    def outbox(self, log: InboxLog, clock: Clock, told: list[News]) -> Iterator[Outbox]:
        outbox = Outbox(log, "p", told=told.append, create=True, monotonic=clock)
        yield outbox
        outbox.close(0.0)

    @staticmethod
    def parcel(agent: str = "a") -> Parcel:
        return Parcel(agent, 1, uuid4().bytes, b"hello", 1e9)

    def test_goes_after_some_milliseconds(
        self, outbox: Outbox, clock: Clock, log: InboxLog, told: list[News]
    ) -> None:
        parcel = self.parcel()
        outbox.start()
        outbox.put_soon(parcel)
        before = log.depth("a")

        clock.now = 0.006
        until(lambda: told)

        assert before == 0
        assert told == [Accepted([parcel])]
        assert log.depth("a") == 1

    def test_goes_nowhere_once_it_was_heard(
        self, outbox: Outbox, clock: Clock, log: InboxLog, told: list[News]
    ) -> None:
        first, second = self.parcel(), self.parcel()
        outbox.start()
        outbox.put_soon(first)
        outbox.needless([first.id, uuid4().bytes])

        outbox.put_soon(second)
        waiting = outbox.waiting

        assert told == [Accepted([first])]
        assert waiting == 1
        assert log.depth("a") == 0

    def test_goes_at_once_for_who_waits_until_all_is_sent(
        self, outbox: Outbox, log: InboxLog
    ) -> None:
        outbox.start()
        for _ in range(3):
            outbox.put_soon(self.parcel())

        left = outbox.flush(DEADLINE)

        assert left == 0
        assert log.depth("a") == 3

    def test_what_was_heard_is_waited_for_by_nobody(
        self, outbox: Outbox, log: InboxLog, told: list[News]
    ) -> None:
        parcel = self.parcel()
        outbox.start()
        outbox.put_soon(parcel)
        outbox.needless([parcel.id])

        left = outbox.flush(DEADLINE)

        assert left == 0
        assert told == [Accepted([parcel])]
        assert log.depth("a") == 0

    def test_goes_at_once_where_it_is_much(self, outbox: Outbox, log: InboxLog) -> None:
        outbox.start()
        for _ in range(8):
            outbox.put_soon(self.parcel())

        until(lambda: log.depth("a") == 8)

    def test_goes_in_time_though_others_take_the_short_cut_all_the_time(
        self, outbox: Outbox, clock: Clock
    ) -> None:
        outbox.put_soon(self.parcel())
        clock.now = 0.004
        outbox._shortcut._load = cast("Any", ())
        outbox._shortcut.since = 0.004

        seconds = outbox._until_work()
        outbox._shortcut._load = None
        outbox._soon.clear()

        assert seconds == pytest.approx(0.001)

    def test_is_given_back_where_it_cannot_be_sent_any_more(self, outbox: Outbox) -> None:
        parcel = self.parcel()
        outbox.put_soon(parcel)

        assert outbox.close(0.0) == [parcel]
        assert not outbox.put_soon(self.parcel())


class Echo(Agent):
    @handles
    def echo(self, text: str) -> str:
        if text == "fail":
            raise ValueError("no")
        return text


class TestNodes:
    @pytest.fixture
    def namespace(self) -> str:
        return uuid4().hex

    @pytest.fixture
    def start(self, redis_url: str, namespace: str) -> Iterator[Callable[..., Node]]:
        with ExitStack() as stack:

            def start(name: str, **more: Any) -> Node:
                settings = Settings(namespace=namespace, log_level="off", **more)
                return stack.enter_context(Node(redis_url, name=name, settings=settings))

            yield start

    @staticmethod
    def ask(node: Node, text: str) -> str:
        answer: str = node.ref("echo").ask(text).get(DEADLINE)
        return answer

    @staticmethod
    def answers_in_the_log(there: Node, here: Node) -> int:
        """How many of `there` to `here`."""
        transport: Any = there.bus.transport
        return transport._sender._outbox._lanes._lanes[notes_of(here.bus.transport.node)].accepted  # type: ignore[attr-defined, no-any-return]

    def until_told_ahead(self, here: Node, there: Node) -> None:
        """Ask until answers are heard before they are in the inbox."""
        herald = there.bus.transport._sender._herald  # type: ignore[attr-defined]
        until(lambda: self.ask(here, "so?") and herald._last)

    def test_answers_that_are_heard_one_after_the_other_take_no_place_in_the_log(
        self, start: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(outboxes, "_LOOK", 2.0)
        here, there = start("here"), start("there")
        there.spawn(Echo, name="echo")
        self.until_told_ahead(here, there)
        outbox = there.bus.transport._sender._outbox  # type: ignore[attr-defined]
        until(lambda: self.ask(here, "heard?") and len(outbox._soon) == 1)
        before = self.answers_in_the_log(there, here)

        for _ in range(20):
            self.ask(here, "hello")
        with pytest.raises(AgentFailed, match="no"):
            self.ask(here, "fail")

        taken = self.answers_in_the_log(there, here) - before
        there.bus.transport.flush(DEADLINE)

        assert taken == 0
        until(lambda: there.bus.transport.log.depth("echo") == 0)  # type: ignore[attr-defined]

    def test_answers_that_nobody_hears_are_in_the_log_all_the_same(
        self, start: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Notes, "hear", lambda *_: None)
        here, there = start("here"), start("there")
        there.spawn(Echo, name="echo")

        self.until_told_ahead(here, there)

        assert [self.ask(here, str(n)) for n in range(20)] == [str(n) for n in range(20)]
        until(lambda: there.bus.transport.log.depth("echo") == 0)  # type: ignore[attr-defined]

    def test_answers_that_come_both_ways_are_taken_once_also_where_nodes_sign(
        self, start: Callable[..., Node], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(Sender, "thank", lambda *_: None)
        trusted = tmp_path / "trusted"
        pairs = {name: make_keys(name, tmp_path) for name in ("here", "there")}
        trusted.write_text("".join(f"{pair.line}\n" for pair in pairs.values()))
        here, there = (
            start(name, signing_key=str(pair.private), trusted_keys=str(trusted))
            for name, pair in pairs.items()
        )
        there.spawn(Echo, name="echo")

        self.until_told_ahead(here, there)
        notes = here.bus.transport._notes  # type: ignore[attr-defined]
        inbox = notes_of(here.bus.transport.node)  # type: ignore[attr-defined]
        until(lambda: not notes._heard)

        assert self.ask(here, "hello") == "hello"
        until(lambda: here.bus.transport.log.depth(inbox) == 0)  # type: ignore[attr-defined]
        assert here.dead_letters.list() == []

    def test_of_answers_that_were_heard_the_first_are_forgotten_where_they_are_too_many(
        self, start: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(notes_, "_HEARD", 3)
        transport: Any = start("here").bus.transport
        ids = [uuid4().bytes for _ in range(5)]

        for one in ids:
            transport._notes.hear(b"x~1 " + one + pack_value(transport.codec, MessageId(1), "late"))

        assert list(transport._notes._heard) == ids[-3:]

    def test_what_a_stranger_tells_ahead_is_believed_no_more_than_what_lies_in_the_inbox(
        self, start: Callable[..., Node], tmp_path: Path
    ) -> None:
        pair = make_keys("here", tmp_path)
        (tmp_path / "trusted").write_text(f"{pair.line}\n")
        here = start("here", signing_key=str(pair.private), trusted_keys=str(tmp_path / "trusted"))
        transport: Any = here.bus.transport
        transport.log.offer("nobody", Terms(10))
        reply = here.ref("nobody").ask("hello", timeout=DEADLINE)
        (request,) = transport._sender.requests._open
        forged = pack_value(transport.codec, request, "forged")

        transport._notes.hear(b"x~1 " + uuid4().bytes + forged)
        transport._notes.hear(b"no note")

        assert not reply.done()
        assert not transport._notes._heard
        reply.cancel()
