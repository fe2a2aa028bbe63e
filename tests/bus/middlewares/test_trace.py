"""Trace context: one trace a conversation, a span a message, as W3C writes them."""

from __future__ import annotations

import asyncio
import re
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import pytest

from actorbus import Agent, Send, agent, handles
from actorbus.bus.middlewares import trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus import Message, Node

TRACEPARENT: Final = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01")
FOREIGN: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"


class Last(Agent):
    @handles
    async def look(self, text: str) -> list[dict[str, str]]:
        return [dict(self.message.headers)]


class Middle(Agent):
    @handles
    def look(self, text: str) -> list[dict[str, str]]:
        behind: list[dict[str, str]] = self.ask("last", text).get()
        return [dict(self.message.headers), *behind]


class First(Agent):
    @handles
    async def look(self, text: str) -> list[dict[str, str]]:
        behind: list[dict[str, str]] = await self.ask("middle", text)
        return [dict(self.message.headers), *behind]


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    node = make_node(middleware=Send(trace()))
    for cls in (First, Middle, Last):
        node.spawn(cls, name=cls.__name__.lower())
    return node


def parts(headers: dict[str, str]) -> tuple[str, str, str]:
    _, trace_id, span, flags = headers["traceparent"].split("-")
    return trace_id, span, flags


def test_a_conversation_is_one_trace_and_each_message_a_span(node: Node) -> None:
    seen: list[dict[str, str]] = node.ask("first", "go").get()

    traces, spans, _ = zip(*map(parts, seen), strict=True)
    assert all(TRACEPARENT.fullmatch(headers["traceparent"]) for headers in seen)
    assert len(seen) == 3
    assert len(set(traces)) == 1
    assert len(set(spans)) == 3


def test_the_trace_of_a_conversation_is_found_in_history_by_its_id(node: Node) -> None:
    seen: list[dict[str, str]] = node.ask("last", "go").get()

    trace_id, _, _ = parts(seen[0])
    assert len(node.history.conversation(int(trace_id, 16))) == 2


def test_two_conversations_are_two_traces(node: Node) -> None:
    seen = [parts(node.ask("last", "go").get()[0])[0] for _ in range(2)]

    assert len(set(seen)) == 2


def test_a_trace_that_comes_from_elsewhere_is_continued_with_its_state(node: Node) -> None:
    given = {"traceparent": FOREIGN, "tracestate": "congo=t61rcWkgMzE", "tenant": "a"}

    seen: list[dict[str, str]] = node.ask("first", "go", headers=given).get()

    assert seen[0] == given
    assert [parts(headers)[0] for headers in seen] == [FOREIGN.split("-")[1]] * 3
    assert [parts(headers)[2] for headers in seen] == ["00"] * 3
    assert len({parts(headers)[1] for headers in seen}) == 3
    assert [headers.get("tracestate") for headers in seen] == ["congo=t61rcWkgMzE"] * 3
    assert [headers.get("tenant") for headers in seen] == ["a", None, None]


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "00",
        FOREIGN.upper(),
        FOREIGN.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        FOREIGN.replace("00f067aa0ba902b7", "0" * 16),
        f"{FOREIGN}-more",
        f"{FOREIGN}\n",
    ],
)
def test_a_trace_that_is_none_is_not_continued(node: Node, broken: str) -> None:
    seen: list[dict[str, str]] = node.ask(
        "middle", "go", headers={"traceparent": broken, "tracestate": "a=b"}
    ).get()

    assert TRACEPARENT.fullmatch(seen[1]["traceparent"])
    assert "tracestate" not in seen[1]


def test_other_headers_stay(node: Node) -> None:
    seen: list[dict[str, str]] = node.ask("last", "go", headers={"tenant": "a"}).get()

    assert seen[0]["tenant"] == "a"


def test_tells_broadcasts_and_events_are_traced(make_node: Callable[..., Node]) -> None:
    seen: list[Message[Any]] = []

    class Looker(Agent):
        subscriptions = ("news.*",)

        @handles
        def look(self, text: str) -> None:
            seen.append(self.message)

    node = make_node(middleware=Send(trace()))
    node.spawn(Looker, name="looker").tell("told")
    node.broadcast("broadcast")
    node.topic("news.today").publish("published")

    node.drain(10)
    assert [message.payload for message in seen] == ["told", "broadcast", "published"]
    assert all(TRACEPARENT.fullmatch(message.headers["traceparent"]) for message in seen)


def test_a_traced_ask_can_be_cancelled(make_node: Callable[..., Node]) -> None:
    told: SimpleQueue[str] = SimpleQueue()

    async def sleeper(_: str) -> None:
        told.put("started")
        try:
            await asyncio.Event().wait()
        finally:
            told.put("ended")

    node = make_node(middleware=Send(trace()))
    reply = node.spawn(agent(sleeper)).ask("sleep")
    started = told.get(timeout=10)

    reply.cancel()

    assert [started, told.get(timeout=10)] == ["started", "ended"]
