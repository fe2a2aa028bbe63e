"""``ask(expect=...)``: the value of a reply is of that class, or the asker is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from actorbus import Agent, InvalidArgument, Reply, UnexpectedReply, handles
from actorbus.testing import TestNode

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Count:
    words: int


@dataclass
class Detailed(Count):
    letters: int


class Answers(Agent):
    """Answers with what it was made with, to whoever asks."""

    capabilities = ("answer",)

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    @handles
    def answer_it(self, _: str) -> Any:
        return self.answer


class Forwards(Agent):
    @handles
    def forward(self, name: str) -> Reply[Any]:
        return self.ask(name, "?")


class Unchecked(Protocol):
    words: int


@pytest.fixture(params=[False, True], ids=["as it is", "checked"])
def node(request: pytest.FixtureRequest) -> Iterator[TestNode]:
    with TestNode(check_payloads=request.param) as node:
        yield node


@pytest.mark.parametrize(
    ("answer", "expect"),
    [
        (Count(1), Count),
        (Detailed(1, 2), Count),
        (None, type(None)),
        (True, bool),
        (True, object),
        ({"words": 1}, dict),
    ],
)
def test_a_value_of_the_class_comes_back(node: TestNode, answer: Any, expect: Any) -> None:
    ref = node.spawn(Answers, answer)

    assert ref.ask("?", expect=expect).get() is answer


@pytest.mark.parametrize(
    ("answer", "expect"), [(Count(1), Detailed), (None, Count), (True, int), ("1", int)]
)
def test_a_value_of_another_class_is_an_error_that_says_both(
    node: TestNode, answer: Any, expect: Any
) -> None:
    node.spawn(Answers, answer, name="counter")

    with pytest.raises(UnexpectedReply, match=r"'counter' answered with \w+ where") as raised:
        node.ask("counter", "?", expect=expect).get()

    assert (raised.value.expected, raised.value.got) == (expect, type(answer))
    assert node.dead_letters.list() == []


def test_any_and_all_hold_each_reply_to_it(node: TestNode) -> None:
    node.spawn(Answers, Count(1))
    node.spawn(Answers, "one")

    values = node.all("answer").ask("?", expect=Count).get()

    assert values[0] == Count(1)
    assert isinstance(values[1], UnexpectedReply)
    with pytest.raises(UnexpectedReply):
        node.any("answer").ask("?", expect=Detailed).get()


def test_a_reply_that_is_forwarded_is_held_to_it(node: TestNode) -> None:
    node.spawn(Answers, "one", name="answers")
    forwards = node.spawn(Forwards)

    with pytest.raises(UnexpectedReply):
        forwards.ask("answers", expect=Count).get()


@pytest.mark.parametrize("wrong", ["Count", 3, list[int], Unchecked, Count(1)])
def test_what_is_no_class_is_refused_at_once(node: TestNode, wrong: Any) -> None:
    ref = node.spawn(Answers, 1)

    with pytest.raises(InvalidArgument, match="it must be a class"):
        ref.ask("?", expect=wrong)
