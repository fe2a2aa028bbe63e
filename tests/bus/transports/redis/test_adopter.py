"""What became this node's and cannot be run here is left to others, whatever the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from actorbus.bus.transports.redis.adopter import Adopter
from actorbus.bus.transports.redis.ownership import Terms
from actorbus.bus.transports.redis.stays import Stays
from actorbus.bus.transports.redis.trouble import Trouble
from actorbus.errors import TransportUnavailable
from actorbus.telemetry import Telemetry, TransportTrouble

if TYPE_CHECKING:
    from actorbus.bus.transports.redis.log import InboxLog
    from actorbus.telemetry import Event

NODE = f"n~{uuid4().hex[:16]}"


class Topics:
    """A reader of topics that fails as it is told."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def resume(self, agents: Any, *, begin: bool) -> None:
        if self.error is not None:
            raise self.error

    def begin(self, agents: list[str]) -> None:
        pass

    def park(self, agents: Any, seconds: float) -> None:
        pass


class Crew:
    """Makes nothing."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def can_make(self, name: str, spec: bytes) -> bool:
        return True

    def make(self, name: str, spec: bytes) -> None:
        self.made.append(name)


def adopter(log: InboxLog, topics: Topics, crew: Crew, told: list[Event]) -> Adopter:
    telemetry = Telemetry()
    telemetry.listen(told.append)
    trouble = Trouble()
    trouble.open(telemetry)
    reader: Any = topics
    makes: Any = crew
    return Adopter(log, reader, Stays(NODE), crew=lambda: makes, trouble=trouble)


def test_an_error_that_nobody_expected_leaves_agents_to_others_and_is_reported(
    log: InboxLog,
) -> None:
    told: list[Event] = []
    crew = Crew()
    adopting = adopter(log, Topics(RuntimeError("unexpected")), crew, told)
    ownership = log.acquire("counter", NODE, ttl=10.0, terms=Terms(10, "block", b"how"))
    adopting.adopt(ownership)

    adopting.make([ownership])

    (known,) = log.known(["counter"])
    assert known is not None
    assert known.node == ""
    assert log.ready(None) == ["counter"]
    assert adopting._adopted == set()
    assert [type(one) for one in told] == [TransportTrouble]


def test_while_redis_is_away_they_stay_ours_to_be_tried_again(log: InboxLog) -> None:
    crew, topics = Crew(), Topics(TransportUnavailable("away"))
    adopting = adopter(log, topics, crew, [])
    ownership = log.acquire("counter", NODE, ttl=10.0, terms=Terms(10, "block", b"how"))
    adopting.adopt(ownership)

    with pytest.raises(TransportUnavailable):
        adopting.make([ownership])
    taken = adopting.wants(["counter"])
    topics.error = None
    adopting.make([ownership])

    assert taken == []
    assert crew.made == ["counter"]
