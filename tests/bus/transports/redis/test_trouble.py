"""What a node tells of a server that is away: each reason once, until it is back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ConnectionError, ResponseError, TimeoutError

from actorbus.bus.transports.redis.trouble import Trouble
from actorbus.errors import TransportUnavailable
from actorbus.redis_client import RedisServer
from actorbus.telemetry import Telemetry, TransportAway, TransportBack

if TYPE_CHECKING:
    from actorbus.telemetry import Event


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def trouble(told: list[Event]) -> Trouble:
    telemetry = Telemetry()
    telemetry.listen(told.append)
    trouble = Trouble()
    trouble.open(telemetry)
    return trouble


def raised(error: Exception) -> TransportUnavailable:
    """What a server's client makes of an error of the library."""
    with pytest.raises(TransportUnavailable) as found, RedisServer("redis://host").errors():
        raise error
    return found.value


REFUSED = ConnectionError("Error 111 connecting to host:6379. Connection refused.")
TIMED_OUT = TimeoutError("Timeout reading from socket")
WRONG_PASSWORD = ResponseError("WRONGPASS invalid username-password pair or user is disabled.")
FULL = ResponseError("OOM command not allowed when used memory > 'maxmemory'.")


def test_a_server_that_is_away_is_told_once_in_whatever_words(
    trouble: Trouble, told: list[Event]
) -> None:
    for error in (REFUSED, TIMED_OUT, REFUSED):
        trouble.report(raised(error))

    (away,) = told
    assert isinstance(away, TransportAway)
    assert "refused" in away.error


def test_another_reason_is_told_when_it_begins_and_never_twice(
    trouble: Trouble, told: list[Event]
) -> None:
    for error in (REFUSED, WRONG_PASSWORD, REFUSED, WRONG_PASSWORD, FULL):
        trouble.report(raised(error))

    reasons = [one.error for one in told if isinstance(one, TransportAway)]
    assert ["refused" in reasons[0], "password is wrong" in reasons[1]] == [True, True]
    assert "memory is full" in reasons[2]
    assert len(told) == 3


def test_once_it_was_back_all_is_told_again(trouble: Trouble, told: list[Event]) -> None:
    trouble.report(raised(REFUSED))
    trouble.over()
    trouble.report(raised(REFUSED))

    assert [type(one) for one in told] == [TransportAway, TransportBack, TransportAway]
