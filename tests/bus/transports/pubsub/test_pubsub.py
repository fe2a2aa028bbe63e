"""Messages over plain pub/sub, on fakeredis and on a real server."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import fakeredis
import pytest

from actorbus.bus.routing import Route
from actorbus.bus.transport import Guarantee, Guarantees
from actorbus.bus.transports.errors_in_transit import (
    LONGEST_ERROR,
    error_fields,
    read_error,
)
from actorbus.bus.transports.pubsub import PUBSUB, PubSubTransport
from actorbus.bus.transports.pubsub.outbox import Outbox, Outgoing
from actorbus.bus.transports.pubsub.wire import (
    Word,
    pack_batch,
)
from actorbus.codec import Codec, TypeBook
from actorbus.errors import (
    ActorbusError,
    AgentFailed,
    AskTimeout,
    NameTaken,
    OwnerLost,
    Rejected,
    TransportUnavailable,
)
from actorbus.message import Message, MessageKind, Priority, Reason
from actorbus.redis_client import RedisServer
from actorbus.testing.transport_contract import (
    Receiver,
    TransportContract,
    broadcast,
    event,
    message,
    offer,
    send,
    spread,
    tell,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actorbus.bus.transport import Transport

    Open = Callable[[], PubSubTransport]

DEADLINE = 10.0


class Ask:
    """An asker: what a request came to."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.settled = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.callbacks: list[Callable[[], object]] = []

    def resolve(self, value: Any) -> bool:
        self.value = value
        return self._settle()

    def fail(self, error: BaseException) -> bool:
        self.error = error
        return self._settle()

    def then(self, callback: Callable[[], object]) -> None:
        self.callbacks.append(callback)

    def _settle(self) -> bool:
        self.settled = True
        for callback in self.callbacks:
            callback()
        self.done.set()
        return True


class Home:
    """A bus that notes what could not be delivered."""

    class clock:  # noqa: N801
        now = staticmethod(__import__("time").time)

    def __init__(self) -> None:
        self.failed: list[tuple[Reason, BaseException | None]] = []
        self.more = threading.Semaphore(0)

    def fail(
        self,
        message: Message[Any],
        recipient: str | None,
        reason: Reason,
        error: BaseException | None = None,
    ) -> None:
        self.failed.append((reason, error))
        if message.answer_to is not None:
            message.answer_to.fail(error)
        self.more.release()


def request(recipient: str, payload: Any, ask: Ask) -> Message[Any]:
    asked = message(payload, kind=MessageKind.REQUEST, recipient=recipient)
    asked.answer_to = ask
    return asked


def codec() -> Codec:
    return Codec(TypeBook(), limit=1 << 20)


@pytest.fixture(params=["fakeredis", "real"])
def open_one(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens nodes that are all in one namespace of their own."""
    if request.param == "fakeredis":
        fake = fakeredis.FakeServer()
        server = RedisServer(
            "redis://fake", make=lambda **_: fakeredis.FakeRedis(server=fake, protocol=2)
        )
    else:
        server = RedisServer(request.getfixturevalue("redis_url"))
    opened: list[PubSubTransport] = []
    namespace = uuid4().hex

    def open_one() -> PubSubTransport:
        transport = PubSubTransport(server, codec(), namespace=namespace)
        transport.join(Home())  # type: ignore[arg-type]
        transport.start()
        opened.append(transport)
        return transport

    yield open_one
    for transport in opened:
        transport.close()
    server.close()


class TestPubSubTransport(TransportContract):
    guarantees = PUBSUB

    @pytest.fixture(autouse=True)
    def _opener(self, open_one: Open) -> None:
        self._open_one = open_one

    def open(self) -> Transport:
        return self._open_one()


def home_of(transport: PubSubTransport) -> Home:
    home: Any = transport._home
    assert isinstance(home, Home)
    return home


def test_it_promises_what_the_table_of_promises_says() -> None:
    assert (
        Guarantees(
            transport="redis+pubsub",
            delivery="at most once, live only",
            survives="-",
            order="yes while connected",
            bounded="no",
            unknown_recipient="error at once",
            fanout="Redis pub/sub",
            given=frozenset(Guarantee)
            - {
                Guarantee.AT_LEAST_ONCE,
                Guarantee.SURVIVES,
                Guarantee.BOUNDED,
                Guarantee.REFUSED_AT_ONCE,
            },
        )
        == PUBSUB
    )


class TestBetweenNodes:
    def test_messages_arrive_in_order(self, open_one: Open) -> None:
        here, there, counter = open_one(), open_one(), Receiver("counter")
        there.attach(counter.mailbox)
        there.flush(DEADLINE)

        for number in range(1_000):
            send(here, tell("counter", number))

        assert counter.take(1_000) == list(range(1_000))

    def test_the_more_urgent_goes_first(self, open_one: Open) -> None:
        here, there, counter = open_one(), open_one(), Receiver("counter")
        there.attach(counter.mailbox)
        there.flush(DEADLINE)

        for priority in (Priority.LOW, Priority.URGENT):
            send(here, tell("counter", priority.name, priority=priority))
        assert here.flush(DEADLINE) == 0
        there.route("nobody")  # its echo comes after all that was published before

        assert counter.take(2) == ["URGENT", "LOW"]

    def test_a_name_is_known_as_soon_as_it_is_announced_and_not_after(self, open_one: Open) -> None:
        here, there, counter = open_one(), open_one(), Receiver("counter")

        there.attach(counter.mailbox)
        there.flush(DEADLINE)
        known = here.route("counter")
        there.detach(counter.mailbox)
        there.flush(DEADLINE)
        here.route("whoever")

        assert known is not None
        assert here.route("counter") is None

    def test_who_comes_later_knows_those_who_were_there(self, open_one: Open) -> None:
        there = open_one()
        for number in range(2_500):
            there.attach(Receiver(f"agent-{number}").mailbox)

        here = open_one()

        assert here.route("agent-2499") is not None
        assert len(here.names()) == 2_500

    def test_a_name_of_another_node_is_taken(self, open_one: Open) -> None:
        here, there = open_one(), open_one()
        there.attach(Receiver("counter").mailbox)
        there.flush(DEADLINE)
        here.route("counter")

        with pytest.raises(NameTaken):
            here.attach(Receiver("counter").mailbox)

    def test_a_broadcast_and_an_event_reach_the_other_node(self, open_one: Open) -> None:
        here, there, counter = open_one(), open_one(), Receiver("counter")
        there.attach(counter.mailbox)
        there.subscribe(Route("counter", "prices.*"))
        there.flush(DEADLINE)
        assert here.route("counter") is not None

        spread(here, broadcast("halt"))
        spread(here, event("prices.eur", 1.08))
        spread(here, event("orders.eur", 2))
        spread(here, event("prices.usd", 1.0))

        assert counter.take(3) == ["halt", 1.08, 1.0]

    def test_a_request_is_answered(self, open_one: Open) -> None:
        here, there, counter, ask = open_one(), open_one(), Receiver("counter"), Ask()
        there.attach(counter.mailbox)
        there.flush(DEADLINE)

        assert offer(here, request("counter", "how many?", ask)) is None
        answer(counter, lambda asked: asked.resolve([1, 2]))

        assert ask.done.wait(DEADLINE)
        assert (ask.value, ask.error) == ([1, 2], None)

    def test_an_error_crosses_with_its_data(self, open_one: Open) -> None:
        here, there, counter, ask = open_one(), open_one(), Receiver("counter"), Ask()
        there.attach(counter.mailbox)
        there.flush(DEADLINE)

        offer(here, request("counter", "how many?", ask))
        answer(counter, lambda asked: asked.fail(AgentFailed("counter", "KeyError", "x", "trace")))

        assert ask.done.wait(DEADLINE)
        assert isinstance(ask.error, AgentFailed)
        assert (ask.error.error_type, ask.error.traceback) == ("KeyError", "trace")

    def test_an_ask_ends_when_the_other_node_leaves(self, open_one: Open) -> None:
        here, there, counter, ask = open_one(), open_one(), Receiver("counter"), Ask()
        there.attach(counter.mailbox)
        there.flush(DEADLINE)
        offer(here, request("counter", "how many?", ask))
        assert counter.woken.acquire(timeout=DEADLINE)

        there.close()

        assert ask.done.wait(DEADLINE)
        assert isinstance(ask.error, OwnerLost)

    def test_who_gives_up_is_heard_by_whoever_works_for_it(self, open_one: Open) -> None:
        here, there, counter, ask = open_one(), open_one(), Receiver("counter"), Ask()
        told = threading.Event()
        there.attach(counter.mailbox)
        there.flush(DEADLINE)
        offer(here, request("counter", "how many?", ask))
        answer(counter, lambda asked: asked.then(told.set))

        ask.fail(AskTimeout("counter", 1))

        assert told.wait(DEADLINE)

    def test_what_cannot_be_read_is_a_dead_letter_and_reading_goes_on(self, open_one: Open) -> None:
        here, there, counter = open_one(), open_one(), Receiver("counter")
        there.attach(counter.mailbox)
        there.flush(DEADLINE)
        home = home_of(there)
        client = here._server.client

        client.publish(here._all, b"\xc1 rubbish")
        client.publish(here._all, pack_batch("x", [[Word.MESSAGE, b"rubbish"]]))
        client.publish(here._all, pack_batch("x", [[Word.UP, "one", 2]]))
        send(here, tell("counter", "one"))

        assert counter.take(1) == ["one"]
        assert [reason for reason, _ in home.failed] == [Reason.UNDECODABLE] * 3


def answer(receiver: Receiver, how: Callable[[Any], object]) -> None:
    """Take one request and do `how` with where its answer goes."""
    assert receiver.woken.acquire(timeout=DEADLINE)
    taken = receiver.pop()
    assert taken is not None
    how(taken.answer_to)


@pytest.mark.parametrize("frames", [1_000, pytest.param(100_000, marks=pytest.mark.stress)])
def test_no_bytes_stop_the_reader(frames: int) -> None:
    fake = fakeredis.FakeServer()
    server = RedisServer(
        "redis://fake", make=lambda **_: fakeredis.FakeRedis(server=fake, protocol=2)
    )
    transport, chance = PubSubTransport(server, codec()), random.Random(7)
    home, counter = Home(), Receiver("counter")
    transport.join(home)  # type: ignore[arg-type]
    transport.attach(counter.mailbox)
    whole = pack_batch("x", [[Word.MESSAGE, codec().encode(tell("counter", {"a": [1]}))]])

    for _ in range(frames):
        cut = bytearray(whole[: chance.randrange(len(whole))])
        for _ in range(chance.randrange(4)):
            if cut:
                cut[chance.randrange(len(cut))] = chance.randrange(256)
        transport._take(bytes(cut))
    transport._take(whole)

    assert {reason for reason, _ in home.failed} <= {Reason.UNDECODABLE, Reason.NO_SUCH_AGENT}
    assert len(home.failed) > frames // 2
    assert counter.take(1) == [{"a": [1]}]


def test_traffic_goes_on_after_the_server_was_away(start_redis: Callable[..., Any]) -> None:
    process = start_redis()
    server = RedisServer(process.url)
    nodes = [PubSubTransport(server, codec()) for _ in range(2)]
    here, there = nodes
    counter = Receiver("counter")
    for node in nodes:
        node.join(Home())  # type: ignore[arg-type]
        node.start()
    try:
        there.attach(counter.mailbox)
        there.flush(DEADLINE)
        send(here, tell("counter", "before"))
        assert counter.take(1) == ["before"]

        process.kill()
        _until_it_fails(here)
        process.start()
        _until_it_goes(here, counter)
    finally:
        for node in nodes:
            node.close()
        server.close()


def _until_it_fails(here: PubSubTransport) -> None:
    for _ in range(1_000):
        inbox = here.route("counter")
        assert inbox is not None
        try:
            inbox.offer(tell("counter", "lost"))
        except TransportUnavailable:
            return
        threading.Event().wait(0.01)
    raise AssertionError("sends never failed")


def _until_it_goes(here: PubSubTransport, counter: Receiver) -> None:
    for _ in range(1_000):
        inbox = here.route("counter")
        try:
            if inbox is not None and inbox.offer(tell("counter", "after")) is None:
                threading.Event().wait(0.01)
        except TransportUnavailable:
            threading.Event().wait(0.01)
        while (taken := counter.pop()) is not None:
            if taken.payload == "after":
                return
    raise AssertionError("nothing came after the server was back")


@pytest.mark.parametrize(
    "error",
    [Rejected("a", "no"), OwnerLost("a"), AskTimeout("a", 1.5), AgentFailed("a", "X", "y", "z")],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_the_same_after_the_wire(error: ActorbusError) -> None:
    again = read_error("a", *error_fields(error))

    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))


def test_an_error_that_msgpack_cannot_carry_whole_comes_without_that() -> None:
    error = AgentFailed("a", "ValueError", "half a character: \ud800", "t" * 100_000)
    error.big, error.ids = 1 << 70, [1 << 70]  # type: ignore[attr-defined]

    name, text, fields = error_fields(error)

    assert pack_batch("node", [[Word.ERROR, b"", name, text, fields]])
    assert "half a character: ?" in text
    assert fields.keys() == {"agent", "error_type", "message", "traceback"}
    assert len(fields["traceback"]) == 16_384


def test_an_error_is_never_larger_than_a_node_reads() -> None:
    error = AgentFailed("a", "ValueError", "\N{SNOWMAN}" * 50_000, "t" * 100_000)
    error.ids = [1 << 60] * 50_000  # type: ignore[attr-defined]
    error.__dict__.update({f"note{number}": "n" * 10_000 for number in range(50)})

    name, text, fields = error_fields(error)

    assert len(pack_batch("node", [[Word.ERROR, b"", name, text, fields]])) <= LONGEST_ERROR
    assert fields.keys() >= {"agent", "error_type", "message", "traceback", "note0"}
    assert set(fields["message"]) == {"\N{SNOWMAN}"}


def test_a_cluster_is_refused() -> None:
    server = RedisServer("redis+cluster://h1,h2")

    with pytest.raises(TransportUnavailable, match="use a single server, or the durable"):
        PubSubTransport(server, codec())


def test_who_waits_for_room_goes_on_when_the_outbox_is_closed() -> None:
    outbox, went_on = Outbox(1, 1_000), threading.Event()
    assert outbox.put(Outgoing("all", [], 1, tell("counter", 1)))
    assert not outbox.put(Outgoing("all", [], 1, tell("counter", 2)))
    assert outbox.when_room(went_on.set)

    outbox.close()

    assert went_on.is_set()


def test_an_error_of_a_class_that_is_not_ours_is_never_looked_up() -> None:
    again = read_error("a", "SystemExit", "bye", {})

    assert isinstance(again, AgentFailed)
    assert again.error_type == "SystemExit"
