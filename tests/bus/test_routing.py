"""Topics find their subscribers, and what is remembered is forgotten when it changes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorbus.bus import routing
from actorbus.bus.routing import Route, Router, topic_matches
from actorbus.bus.where import compiled
from actorbus.errors import InvalidName
from actorbus.testing.transport_contract import run_in_threads


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("prices.eur", "prices.eur", True),
        ("prices.eur", "prices.usd", False),
        ("prices.eur", "prices", False),
        ("prices", "prices.eur", False),
        ("prices.eur", "prices.EUR", False),
        ("prices.*", "prices.eur", True),
        ("prices.*", "prices", False),
        ("prices.*", "prices.eur.spot", False),
        ("*.eur", "prices.eur", True),
        ("*.eur", "eur", False),
        ("prices.*.spot", "prices.eur.spot", True),
        ("prices.*.spot", "prices.spot", False),
        ("*", "prices", True),
        ("*", "prices.eur", False),
        ("*.*", "prices.eur", True),
        (">", "prices", True),
        (">", "prices.eur.spot", True),
        ("prices.>", "prices.eur", True),
        ("prices.>", "prices.eur.spot", True),
        ("prices.>", "prices", False),
        ("prices.>", "orders.eur", False),
        ("*.>", "prices.eur", True),
        ("*.>", "prices", False),
        ("prices.*.>", "prices.eur.spot", True),
        ("prices.*.>", "prices.eur", False),
        ("pri*", "prices", False),
        ("a+b.c", "a+b.c", True),
        ("a.b", "aXb", False),
    ],
)
def test_a_pattern_matches_the_topics_it_means(pattern: str, topic: str, expected: bool) -> None:
    assert topic_matches(pattern, topic) is expected


TOKENS = st.sampled_from(["a", "b", "ab", "a+", "(", "*x"])
TOPICS = st.lists(TOKENS, min_size=1, max_size=5).map(".".join)
PATTERNS = st.builds(
    lambda tokens, rest: ".".join([*tokens, *rest]),
    st.lists(TOKENS | st.just("*"), max_size=4),
    st.sampled_from([["*"], [">"], ["a"]]),
)


@given(PATTERNS, TOPICS)
def test_matching_agrees_with_the_regular_expression_that_says_the_same(
    pattern: str, topic: str
) -> None:
    words = {"*": r"[^.]+", ">": r"[^.]+(\.[^.]+)*"}
    expression = r"\.".join(words.get(token, re.escape(token)) for token in pattern.split("."))

    assert topic_matches(pattern, topic) is bool(re.fullmatch(expression, topic))


def test_a_topic_without_subscribers_reaches_nobody() -> None:
    router = Router()

    assert names(router, "prices.eur") == []


def test_subscribers_get_an_event_in_the_order_they_subscribed_each_once() -> None:
    router = Router()
    for name, pattern in [("b", "prices.*"), ("a", ">"), ("b", ">"), ("c", "orders.*")]:
        router.add(Route(name, pattern))

    assert names(router, "prices.eur") == ["b", "a"]


def test_who_subscribes_after_a_topic_was_asked_for_gets_its_next_event() -> None:
    router = Router()
    router.add(Route("a", "prices.*"))
    before = names(router, "prices.eur")

    router.add(Route("b", "prices.>"))

    assert before == ["a"]
    assert names(router, "prices.eur") == ["a", "b"]


def test_who_unsubscribes_after_a_topic_was_asked_for_gets_no_more() -> None:
    router = Router()
    route = Route("a", "prices.*")
    router.add(route)
    before = names(router, "prices.eur")

    router.remove(route)
    router.remove(route)

    assert before == ["a"]
    assert names(router, "prices.eur") == []


def test_whoever_is_forgotten_loses_all_subscriptions_and_others_keep_theirs() -> None:
    router = Router()
    for name, pattern in [("a", "prices.*"), ("b", "prices.*"), ("a", "orders.*")]:
        router.add(Route(name, pattern))
    names(router, "prices.eur")

    router.forget("a")

    assert names(router, "prices.eur") == ["b"]
    assert names(router, "orders.new") == []


def test_equal_subscriptions_are_two_and_end_one_by_one() -> None:
    router = Router()
    first, second = Route("a", "prices.*"), Route("a", "prices.*")
    router.add(first)
    router.add(second)

    router.remove(second)

    assert names(router, "prices.eur") == ["a"]


def test_a_subscriber_gets_what_any_of_its_filters_lets_through() -> None:
    router = Router()
    router.add(Route("a", "orders.*", compiled({"country": "NO"})))
    router.add(Route("a", "orders.new", compiled({"total": 100})))

    assert names(router, "orders.new", {"country": "NO", "total": 1}) == ["a"]
    assert names(router, "orders.new", {"country": "SE", "total": 100}) == ["a"]
    assert names(router, "orders.new", {"country": "SE", "total": 1}) == []


@pytest.mark.parametrize("topic", ["", ".", "prices.", "prices.*", ">", "a..b", "a" * 129])
def test_what_is_no_topic_is_refused(topic: str) -> None:
    with pytest.raises(InvalidName):
        names(Router(), topic)


def test_the_topics_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "_REMEMBERED_TOPICS", 10)
    router = Router()
    router.add(Route("a", "prices.*"))

    found = [names(router, f"prices.{number}") for number in range(100)]

    assert found == [["a"]] * 100
    assert len(router._remembered) <= 10


def test_a_subscription_is_in_effect_when_it_returns_whoever_publishes_meanwhile() -> None:
    router = Router()
    missed: list[str] = []

    def subscribe(prefix: str) -> None:
        for number in range(200):
            route = Route(f"{prefix}{number}", "prices.*")
            router.add(route)
            if route.name not in names(router, "prices.eur"):
                missed.append(route.name)
            router.remove(route)
            if route.name in names(router, "prices.eur"):
                missed.append(f"not {route.name}")

    run_in_threads(*(lambda prefix=prefix: subscribe(prefix) for prefix in "abcd"))

    assert missed == []
    assert names(router, "prices.eur") == []


def names(router: Router, topic: str, payload: Any = None) -> list[str]:
    return list(router.names(topic, payload))
