"""Messages through inbox logs, on fakeredis and on a real server: what every transport promises."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

import pytest

from actorbus.bus.transport import Guarantee, Guarantees
from actorbus.bus.transports.redis.transport import REDIS, RedisTransport
from actorbus.codec import Codec, TypeBook
from actorbus.errors import OwnerLost
from actorbus.message import MessageKind, Reason
from actorbus.telemetry import Telemetry
from actorbus.testing.transport_contract import (
    TransportContract,
    message,
    offer,
    send,
    tell,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actorbus.bus.transport import Transport
    from actorbus.message import Message
    from actorbus.redis_client import RedisServer

DEADLINE = 10.0


class Home:
    """A bus whose node time is 0, and that notes what could not be delivered."""

    class clock:  # noqa: N801
        @staticmethod
        def now() -> float:
            return 0.0

    def __init__(self) -> None:
        self.telemetry = Telemetry()
        self.failed: list[tuple[Any, Reason]] = []

    def fail(
        self,
        message: Message[Any],
        recipient: str | None,
        reason: Reason,
        error: BaseException | None = None,
    ) -> None:
        self.failed.append((message.payload, reason))
        if message.answer_to is not None:
            message.answer_to.fail(error)

    refuse = fail


def test_it_promises_what_the_table_of_promises_says() -> None:
    assert (
        Guarantees(
            transport="redis",
            delivery="at least once, acknowledged; repeats dropped by id while one node owns the"
            " agent; after its death at most 16 messages of each busy agent run again",
            survives="node kill -9, network cuts, Redis restart (with `everysec` the server may"
            " lose up to 2 s; resent while the sending node lives)",
            order="yes, also after redelivery",
            bounded="yes, exact, checked in the script",
            unknown_recipient="error at once: a miss in the local view costs one round trip first;"
            " an agent whose node is dead stays known, its inbox accepts",
            fanout="append-once log, cursor per subscriber, explicit gap",
            given=frozenset(Guarantee) - {Guarantee.REFUSED_AT_ONCE},
        )
        == REDIS
    )


class Ask:
    """An asker: what its request came to."""

    def __init__(self) -> None:
        self.came = threading.Event()
        self.error: BaseException | None = None
        self.settled = False

    def fail(self, error: BaseException) -> bool:
        self.error = error
        self.settled = True
        self.came.set()
        return True

    def then(self, callback: Callable[[], object]) -> None:
        """Nothing is waited for here."""


class TestDeath:
    @pytest.fixture
    def transport(self, server: RedisServer) -> Iterator[RedisTransport]:
        codec = Codec(TypeBook(), limit=1 << 20)
        transport = RedisTransport(server, codec, namespace=uuid4().hex, ttl=0.5, orphans_kept=1.0)
        self.home = Home()
        transport.open(self.home)  # type: ignore[arg-type]
        yield transport
        transport.close()

    def test_who_asks_an_agent_that_runs_nowhere_else_hears_that_its_node_died(
        self, transport: RedisTransport
    ) -> None:
        transport.log.beat("dying~1", ttl=0.5)
        transport.log.acquire("counter", "dying~1", ttl=0.5)
        asked = Ask()

        request = message("how many?", kind=MessageKind.REQUEST, recipient="counter")
        request.answer_to = asked
        offered = offer(transport, request)

        assert offered is None
        assert asked.came.wait(DEADLINE)
        assert isinstance(asked.error, OwnerLost)
        assert asked.error.maybe_ran
        assert self.home.failed == [("how many?", Reason.CRASHED_OWNER)]

    def test_what_waits_for_such_an_agent_is_kept_and_then_a_dead_letter(
        self, transport: RedisTransport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("actorbus.bus.transports.redis.orphans._LOOK_AGAIN", 0.1)
        transport.log.beat("dying~1", ttl=0.5)
        transport.log.acquire("counter", "dying~1", ttl=0.5)

        send(transport, tell("counter", "one"))
        transport.flush(DEADLINE)

        give_up = time.monotonic() + DEADLINE
        while transport.log.known(["counter"]) != [None]:
            assert time.monotonic() < give_up
            time.sleep(0.01)
        (letter,) = transport.log.letters()
        assert (letter["agent"], letter["reason"]) == ("counter", "crashed-owner")


class TestTransport(TransportContract):
    guarantees: ClassVar[Guarantees] = REDIS

    @pytest.fixture(autouse=True)
    def _server(self, server: RedisServer) -> Iterator[None]:
        self.server = server
        self.opened: list[RedisTransport] = []
        yield
        for transport in self.opened:
            transport.close()

    def open(self) -> Transport:
        transport = RedisTransport(
            self.server, Codec(TypeBook(), limit=1 << 20), namespace=uuid4().hex
        )
        transport.open(Home())  # type: ignore[arg-type]
        self.opened.append(transport)
        return transport
