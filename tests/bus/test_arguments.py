"""What callers pass to a send: bad values are refused, whichever way they come in."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import pytest

from actorbus import InvalidArgument, MessageExpired, Node, Priority, Ref, agent
from actorbus.bus.arguments import (
    checked_delay,
    checked_headers,
    checked_priority,
    checked_timeout,
    checked_ttl,
)
from actorbus.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOT_SECONDS = ["5", None, True, [], {}, math.nan, math.inf, -math.inf, 10**400, object()]


@pytest.mark.parametrize(
    ("check", "good"),
    [
        (checked_ttl, [0.001, 1, 30, 1e9]),
        (checked_delay, [0, 0.5, 3600]),
        (checked_timeout, [0, 0.5, 3600]),
    ],
)
def test_numbers_of_seconds_are_taken(check: Callable[[object], float], good: list[float]) -> None:
    assert [check(seconds) for seconds in good] == good


@pytest.mark.parametrize("check", [checked_ttl, checked_delay, checked_timeout])
@pytest.mark.parametrize("bad", NOT_SECONDS)
def test_what_is_no_finite_number_of_seconds_is_refused(
    check: Callable[[object], float], bad: object
) -> None:
    with pytest.raises(InvalidArgument, match="must be a finite number of seconds"):
        check(bad)


@pytest.mark.parametrize("check", [checked_delay, checked_timeout])
def test_a_wait_below_zero_is_refused(check: Callable[[object], float]) -> None:
    with pytest.raises(InvalidArgument, match="must be 0 seconds or more"):
        check(-0.1)


@pytest.mark.parametrize("over", [0, -1, -0.5])
def test_a_ttl_of_which_nothing_is_left_is_over_before_it_starts(over: float) -> None:
    with pytest.raises(MessageExpired, match="over before the message is sent"):
        checked_ttl(over)


@pytest.mark.parametrize(
    "given", [Priority.HIGH, 1, "HIGH", "high"], ids=["member", "number", "name", "lower case"]
)
def test_a_priority_is_taken_by_its_number_or_its_name(given: object) -> None:
    assert checked_priority(given) is Priority.HIGH


@pytest.mark.parametrize("bad", [4, -1, 1.5, "highest", "", None, True, [], object()])
def test_what_is_no_priority_is_refused_with_those_that_are(bad: object) -> None:
    with pytest.raises(InvalidArgument, match=r"Priority\.URGENT, Priority\.HIGH, .*LOW"):
        checked_priority(bad)


def test_headers_are_copied() -> None:
    given = {"tenant": "a"}

    headers = checked_headers(given)
    given["tenant"] = "b"

    assert headers == {"tenant": "a"}


@pytest.mark.parametrize("bad", ["a=b", 7, ["a"], {"a": 1}, {1: "a"}, {"a": None}, {"a": b"b"}])
def test_headers_that_are_no_mapping_of_str_to_str_are_refused(bad: object) -> None:
    with pytest.raises(InvalidArgument, match="mapping of str to str"):
        checked_headers(bad)


def test_a_delay_of_ages_stops_no_other_timer() -> None:
    clock = SystemClock()
    called = threading.Event()

    clock.call_at(clock.now() + checked_delay(1e18), lambda: None)
    clock.call_at(clock.now() + 0.01, called.set)

    assert called.wait(10)
    clock.close()


class TestOnARef:
    """The same checks, where users meet them: nothing is sent."""

    @pytest.fixture
    def node(self) -> Iterator[Node]:
        with Node() as node:
            yield node

    @pytest.fixture
    def upper(self, node: Node) -> Ref:
        return node.spawn(agent(_upper), name="upper")

    @pytest.mark.parametrize(
        "arguments",
        [
            {"ttl": "5"},
            {"ttl": math.nan},
            {"ttl": 0},
            {"delay": -1},
            {"delay": math.inf},
            {"priority": 9},
            {"priority": "soon"},
            {"headers": {"a": 1}},
        ],
        ids=str,
    )
    def test_a_tell_with_a_bad_argument_is_not_sent(
        self, node: Node, upper: Ref, arguments: dict[str, Any]
    ) -> None:
        with pytest.raises((InvalidArgument, MessageExpired)):
            upper.tell("text", **arguments)

        assert (len(node.history), len(node.dead_letters)) == (0, 0)

    @pytest.mark.parametrize(
        "arguments",
        [{"timeout": "5"}, {"timeout": -1}, {"timeout": math.inf}, {"priority": None}],
        ids=str,
    )
    def test_an_ask_with_a_bad_argument_is_not_sent(
        self, node: Node, upper: Ref, arguments: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidArgument):
            upper.ask("text", **arguments)

        assert len(node.history) == 0


def _upper(text: str) -> str:
    return text.upper()
