"""Messages through inbox logs, on fakeredis and on a real server: what every transport promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

import pytest

from actorbus.bus.transports.redis.transport import REDIS, RedisTransport
from actorbus.codec import Codec, TypeBook
from actorbus.telemetry import Telemetry
from actorbus.testing.transport_contract import TransportContract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actorbus.bus.transport import Guarantees, Transport
    from actorbus.message import Message, Reason
    from actorbus.redis_client import RedisServer


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

    refuse = fail


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
