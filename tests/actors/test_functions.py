"""Functions as agents."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from actorbus import (
    Agent,
    InvalidHandler,
    MailboxPolicy,
    Message,
    Node,
    NoHandler,
    Reject,
    Rejected,
    Supervision,
    agent,
)
from actorbus.actors.functions import agent_class, is_agent

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE = 10.0


class Text(BaseModel):
    body: str


def test_a_function_is_an_agent_that_replies_what_it_returns(node: Node) -> None:
    @agent
    def upper(text: str) -> str:
        return text.upper()

    ref = node.spawn(upper)

    assert ref.name == "upper-1"
    assert ref.ask("a").get(DEADLINE) == "A"


def test_it_can_still_be_called(node: Node) -> None:
    @agent(capabilities=("shout",))
    def upper(text: str, mark: str = "") -> str:
        return text.upper() + mark

    node.spawn(upper)

    assert upper("a", mark="!") == "A!"
    assert upper.__name__ == "upper"


def test_an_async_function_runs_on_the_loop(node: Node) -> None:
    @agent
    async def where(text: str) -> bool:
        await asyncio.sleep(0)
        return asyncio.get_running_loop().is_running()

    assert agent_class(where).runs_on == "loop"
    assert node.spawn(where).ask("a").get(DEADLINE) is True


def test_a_function_without_a_mark_can_be_spawned_too(node: Node) -> None:
    def backwards(text: str) -> str:
        return text[::-1]

    assert node.spawn(backwards, name="mirror").ask("ab").get(DEADLINE) == "ba"


def test_a_lambda_has_no_hint_and_is_refused(node: Node) -> None:
    with pytest.raises(InvalidHandler, match="has no type hint"):
        node.spawn(lambda text: text)


@pytest.mark.parametrize("given", [Agent, 3, "upper", None, len, dict])
def test_what_is_no_agent_is_refused(node: Node, given: Any) -> None:
    with pytest.raises(InvalidHandler, match="subclass"):
        node.spawn(given)


def test_an_envelope_comes_where_the_hint_asks_for_one(node: Node) -> None:
    @agent
    def whose(message: Message[str]) -> tuple[str, str | None]:
        return message.payload, message.recipient

    assert node.spawn(whose, name="whose").ask("a").get(DEADLINE) == ("a", "whose")


def test_a_dict_becomes_the_model_of_the_hint(node: Node) -> None:
    class Local(Text):
        pass

    @agent
    def read(text: Local) -> Any:
        return text

    assert node.spawn(read).ask({"body": "a"}).get(DEADLINE) == Local(body="a")


def test_what_it_does_not_take_has_no_handler(node: Node) -> None:
    @agent
    def count(number: int) -> int:
        return number

    ref = node.spawn(count)

    with pytest.raises(NoHandler, match="it handles int"):
        ref.ask("a").get(DEADLINE)


def test_a_function_may_reject(node: Node) -> None:
    @agent
    def picky(text: str) -> str:
        raise Reject("not that")

    with pytest.raises(Rejected, match="not that"):
        node.spawn(picky).ask("a").get(DEADLINE)


def test_keywords_are_the_class_attributes_of_agents(node: Node) -> None:
    mailbox = MailboxPolicy(capacity=7)
    supervision = Supervision(on_failure="stop")

    @agent(
        capabilities=["shout"],
        subscriptions=["prices.*"],
        mailbox=mailbox,
        supervision=supervision,
        dispatcher="thread",
        failover=True,
    )
    def upper(text: str) -> str:
        """Shouts."""
        return threading.current_thread().name

    cls = agent_class(upper)
    ref = node.spawn(upper)

    assert cls.capabilities == ("shout",)
    assert cls.subscriptions == ("prices.*",)
    assert (cls.mailbox, cls.supervision) == (mailbox, supervision)
    assert cls.failover
    assert cls.metadata() == {
        "doc": "Shouts.",
        "handles": ("str",),
        "subscriptions": ("prices.*",),
    }
    assert cls.agent_type == f"test_functions:{upper.__qualname__}"
    assert node.any("shout").ask("a").get(DEADLINE) == f"actorbus-{ref.name}"
    assert node.topic("prices.eur").publish("a") == 1


def test_an_async_function_may_be_at_work_several_times_at_once(node: Node) -> None:
    both = asyncio.Barrier(2)

    @agent(concurrency=2)
    async def meet(name: str) -> str:
        await asyncio.wait_for(both.wait(), DEADLINE)
        return name

    ref = node.spawn(meet)
    replies = [ref.ask("early"), ref.ask("late")]

    assert [reply.get(DEADLINE) for reply in replies] == ["early", "late"]


def _no_hint() -> Callable[..., Any]:
    @agent
    def nothing(text):  # type: ignore[no-untyped-def]  # noqa: ANN001
        return text

    return nothing


def _concurrent() -> Callable[..., Any]:
    @agent(concurrency=2)
    def two(text: str) -> str:
        return text

    return two


def _async_on_a_thread() -> Callable[..., Any]:
    @agent(dispatcher="thread")
    async def thread(text: str) -> str:
        return text

    return thread


def _of_a_word() -> Callable[..., Any]:
    unknown: Any = "pol"

    @agent(dispatcher=unknown)
    def pol(text: str) -> str:
        return text

    return pol


def _misspelt() -> Callable[..., Any]:
    misspelt: Any = {"capabilties": ("shout",)}

    @agent(**misspelt)
    def shout(text: str) -> str:
        return text

    return shout


def _of_a_string() -> Any:
    name: Any = "shout"
    return agent(name)


def _of_a_class() -> type[Any]:
    @agent
    class Shouter:
        """Should have been a subclass of Agent."""

    return Shouter


@pytest.mark.parametrize(
    ("define", "error"),
    [
        (_misspelt, "no 'capabilties'. Did you mean 'capabilities'"),
        (_of_a_string, "stands over a function with a type hint, not 'shout'"),
        (_of_a_class, "a subclass of Agent"),
        (_no_hint, "has no type hint"),
        (_concurrent, "needs `async def`"),
        (_async_on_a_thread, "leave out dispatcher='thread'"),
        (_of_a_word, "one of pool, loop, thread"),
    ],
)
def test_what_cannot_work_is_an_error_where_it_is_defined(
    define: Callable[[], Any], error: str
) -> None:
    with pytest.raises(InvalidHandler, match=error):
        define()


def test_only_what_was_marked_counts_as_meant_to_be_an_agent() -> None:
    @agent
    def marked(text: str) -> str:
        return text

    def unmarked(text: str) -> str:
        return text

    class Sub(Agent):
        pass

    assert is_agent(marked)
    assert is_agent(Sub)
    assert not any(map(is_agent, (unmarked, Agent, str, 3, Sub())))
