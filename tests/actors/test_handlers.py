"""Which handler takes which payload, seen from outside: by asking running agents."""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence  # noqa: TC003 - handlers need them
from dataclasses import dataclass
from typing import Annotated, Any, NewType, Optional, Protocol, Union

import pytest
from pydantic import BaseModel

from actorbus import (
    Agent,
    InvalidHandler,
    Message,
    MessageKind,
    Node,
    NoHandler,
    handles,
)

DEADLINE = 10.0


@pytest.fixture
def node() -> Iterator[Node]:
    with Node() as node:
        yield node


def answer(node: Node, cls: type[Agent], payload: Any) -> Any:
    """What an agent of that class replies to `payload`."""
    return node.spawn(cls).ask(payload).get(DEADLINE)


class Animal:
    pass


class Dog(Animal):
    pass


class Puppy(Dog):
    pass


class Colour(enum.StrEnum):
    RED = "red"


class Text(BaseModel):
    body: str


class Job(BaseModel):
    id: int
    body: str = ""


@dataclass
class Point:
    x: int
    y: int


UserId = NewType("UserId", int)


class TestMatching:
    def test_each_member_of_a_union_is_taken(self, node: Node) -> None:
        class Reader(Agent):
            @handles
            def new(self, payload: int | str) -> str:
                return f"new {payload}"

            @handles
            def old(self, payload: Union[bytes, float]) -> str:  # noqa: UP007
                return f"old {payload!r}"

        ref = node.spawn(Reader)

        replies = [ref.ask(payload).get(DEADLINE) for payload in (1, "a", b"b", 2.5)]

        assert replies == ["new 1", "new a", "old b'b'", "old 2.5"]

    @pytest.mark.parametrize("payload", ["a", None])
    def test_optional_takes_none_too(self, node: Node, payload: str | None) -> None:
        class Reader(Agent):
            @handles
            def read(self, payload: Optional[str]) -> list[str | None]:  # noqa: UP045
                return [payload]

        assert answer(node, Reader, payload) == [payload]

    def test_an_envelope_comes_with_its_payload(self, node: Node) -> None:
        class Reader(Agent):
            @handles
            def read(self, message: Message[int | str]) -> tuple[Any, ...]:
                return message.payload, message.kind, message is self.message

        assert answer(node, Reader, 3) == (3, MessageKind.REQUEST, True)
        assert answer(node, Reader, "a") == ("a", MessageKind.REQUEST, True)

    def test_an_envelope_of_anything_takes_anything(self, node: Node) -> None:
        class Reader(Agent):
            @handles
            def read(self, message: Message) -> str:  # type: ignore[type-arg]
                return message.type

        assert answer(node, Reader, Puppy()) == "Puppy"
        assert answer(node, Reader, None) == "NoneType"

    def test_the_nearest_class_wins_wherever_it_stands(self, node: Node) -> None:
        class Vet(Agent):
            @handles
            def anything(self, thing: object) -> str:
                return "object"

            @handles
            def animal(self, animal: Animal) -> str:
                return "animal"

            @handles
            def dog(self, dog: Dog) -> str:
                return "dog"

        ref = node.spawn(Vet)

        replies = [ref.ask(one).get(DEADLINE) for one in (Puppy(), Dog(), Animal(), 7, Puppy())]

        assert replies == ["dog", "dog", "animal", "object", "dog"]

    def test_a_bool_is_no_int(self, node: Node) -> None:
        class Counter(Agent):
            @handles
            def count(self, number: int) -> int:
                return number

        with pytest.raises(NoHandler):
            answer(node, Counter, True)

    def test_a_bool_is_what_says_bool_or_anything(self, node: Node) -> None:
        class Switch(Agent):
            @handles
            def count(self, number: int) -> str:
                return "int"

            @handles
            def switch(self, on: bool) -> str:
                return "bool"

        class Catch(Agent):
            @handles
            def count(self, number: int) -> str:
                return "int"

            @handles
            def catch(self, thing: Any) -> str:
                return "any"

        assert answer(node, Switch, True) == "bool"
        assert answer(node, Switch, 1) == "int"
        assert answer(node, Catch, False) == "any"

    @pytest.mark.parametrize(("payload", "taken"), [(1.0, False), ("1", False), (Colour.RED, True)])
    def test_nothing_is_coerced_but_subclasses_are_what_they_are(
        self, node: Node, payload: Any, taken: bool
    ) -> None:
        class Painter(Agent):
            @handles
            def paint(self, colour: Colour) -> str:
                return "colour"

            @handles
            def number(self, number: int) -> str:
                return "int"

        ref = node.spawn(Painter)

        reply = ref.ask(payload)

        if taken:
            assert reply.get(DEADLINE) == "colour"
        else:
            with pytest.raises(NoHandler):
                reply.get(DEADLINE)

    def test_hints_with_parameters_new_types_and_annotations_mean_their_class(
        self, node: Node
    ) -> None:
        class Reader(Agent):
            @handles
            def words(self, words: list[str]) -> str:
                return "list"

            @handles
            def user(self, user: UserId) -> str:
                return "int"

            @handles
            def noted(self, text: Annotated[str, "a note"]) -> str:
                return "str"

        assert answer(node, Reader, ["a"]) == "list"
        assert answer(node, Reader, UserId(3)) == "int"
        assert answer(node, Reader, "a") == "str"

    def test_an_abstract_class_takes_what_counts_as_one_after_what_derives_from_others(
        self, node: Node
    ) -> None:
        class Reader(Agent):
            @handles
            def anything(self, thing: object) -> str:
                return "object"

            @handles
            def table(self, table: Mapping[str, int]) -> str:
                return "mapping"

            @handles
            def row(self, row: Sequence[str]) -> str:
                return "sequence"

            @handles
            def word(self, word: str) -> str:
                return "str"

        ref = node.spawn(Reader)

        replies = [ref.ask(one).get(DEADLINE) for one in ({"a": 1}, ["a"], "a", 1, {})]

        assert replies == ["mapping", "sequence", "str", "object", "mapping"]

    def test_a_dict_goes_to_the_only_model_it_fits(self, node: Node) -> None:
        class Clerk(Agent):
            @handles
            def text(self, text: Text) -> Any:
                return text

            @handles
            def point(self, point: Point) -> Any:
                return point

        assert answer(node, Clerk, {"body": "a"}) == Text(body="a")
        assert answer(node, Clerk, {"x": 1, "y": 2}) == Point(1, 2)
        with pytest.raises(NoHandler):
            answer(node, Clerk, {"z": 1})

    def test_a_dict_that_fits_two_models_goes_to_none(self, node: Node) -> None:
        class Clerk(Agent):
            @handles
            def text(self, text: Text) -> None: ...

            @handles
            def job(self, job: Job) -> None: ...

        with pytest.raises(NoHandler, match="has no handler for dict; it handles Job, Text"):
            answer(node, Clerk, {"id": 1, "body": "a"})

    def test_a_dict_is_a_dict_where_a_handler_says_so(self, node: Node) -> None:
        class Clerk(Agent):
            @handles
            def text(self, text: Text) -> str:
                return "text"

            @handles
            def table(self, table: dict[str, Any]) -> str:
                return "dict"

        assert answer(node, Clerk, {"body": "a"}) == "dict"
        assert answer(node, Clerk, OrderedDict(body="a")) == "dict"

    def test_a_dict_prefers_the_model_it_fits_to_a_catch_all(self, node: Node) -> None:
        class Clerk(Agent):
            @handles
            def anything(self, thing: object) -> str:
                return "object"

            @handles
            def text(self, text: Text) -> str:
                return "text"

        ref = node.spawn(Clerk)

        replies = [ref.ask(one).get(DEADLINE) for one in ({"body": "a"}, {"no": 1}, {"body": "b"})]

        assert replies == ["text", "object", "text"]

    def test_on_message_gets_the_envelope_of_what_no_handler_takes(self, node: Node) -> None:
        class Clerk(Agent):
            @handles
            def text(self, text: str) -> str:
                return text

            def on_message(self, message: Message[Any]) -> str:
                return f"{message.kind} of {message.type}"

        assert answer(node, Clerk, 3) == "request of int"

    def test_an_on_message_that_hands_on_still_means_that_nobody_takes_it(self, node: Node) -> None:
        class Clerk(Agent):
            def on_message(self, message: Message[Any]) -> Any:
                if message.payload == "known":
                    return "yes"
                return super().on_message(message)

        assert answer(node, Clerk, "known") == "yes"
        with pytest.raises(NoHandler):
            answer(node, Clerk, "unknown")


class TestHints:
    def test_classes_local_to_a_function_are_found_behind_string_hints(self, node: Node) -> None:
        class Local(BaseModel):
            n: int

        class Reader(Agent):
            @handles
            def read(self, local: Local) -> int:
                return local.n

        assert isinstance(Reader.read.__annotations__["local"], str)
        assert answer(node, Reader, Local(n=3)) == 3

    def test_a_handler_may_take_a_class_inside_its_own(self, node: Node) -> None:
        class Reader(Agent):
            class Page(BaseModel):
                n: int

            @handles
            def read(self, page: Page) -> int:
                return page.n

        assert answer(node, Reader, Reader.Page(n=4)) == 4

    def test_a_hint_that_cannot_be_resolved_is_an_error(self) -> None:
        with pytest.raises(
            InvalidHandler, match=r"Reader\.read: .*'Nowhere' is not defined.*before the agent"
        ):

            class Reader(Agent):
                @handles
                def read(self, page: Nowhere) -> int:  # type: ignore[name-defined]  # noqa: F821
                    return 0

    def test_a_missing_hint_is_an_error(self) -> None:
        with pytest.raises(InvalidHandler, match=r"'page' has no type hint.*as in `page: Text`"):

            class Reader(Agent):
                @handles
                def read(self, page):  # type: ignore[no-untyped-def]  # noqa: ANN001
                    return 0

    def test_what_is_no_class_is_an_error(self) -> None:
        class Readable(Protocol):
            def read(self) -> str: ...

        with pytest.raises(InvalidHandler, match="is no payload type"):

            class Reader(Agent):
                @handles
                def read(self, page: Readable) -> int:
                    return 0

    def test_two_handlers_of_one_type_clash(self) -> None:
        with pytest.raises(InvalidHandler, match="'first' and 'second' both handle int"):

            class Reader(Agent):
                @handles
                def first(self, page: int) -> int:
                    return 0

                @handles
                def second(self, page: str | int) -> int:
                    return 0

    def test_the_same_class_twice_in_one_hint_is_no_clash(self, node: Node) -> None:
        class Reader(Agent):
            @handles
            def read(self, page: list[int] | list[str]) -> int:
                return len(page)

        assert answer(node, Reader, ["a"]) == 1

    def test_handlers_take_exactly_one_argument(self) -> None:
        with pytest.raises(InvalidHandler, match="exactly one argument"):

            class Nothing(Agent):
                @handles
                def read(self) -> int:
                    return 0

        with pytest.raises(InvalidHandler, match="exactly one argument"):

            class Two(Agent):
                @handles
                def read(self, page: int, line: int) -> int:
                    return 0

        with pytest.raises(InvalidHandler, match="exactly one argument"):

            class Named(Agent):
                @handles
                def read(self, *, page: int) -> int:
                    return 0

    def test_more_arguments_are_fine_if_they_have_defaults(self, node: Node) -> None:
        class Reader(Agent):
            @handles
            def read(self, page: int, line: int = 7, *rest: int, **more: int) -> int:
                return page + line

        assert answer(node, Reader, 1) == 8

    def test_generators_are_no_handlers(self) -> None:
        with pytest.raises(InvalidHandler, match="yields; a handler returns its one reply"):

            class Reader(Agent):
                @handles
                def read(self, page: int) -> Iterator[int]:
                    yield page

        with pytest.raises(InvalidHandler, match="yields"):

            class AsyncReader(Agent):
                @handles
                async def read(self, page: int) -> AsyncIterator[int]:
                    yield page

    @pytest.mark.parametrize("name", ["tell", "ask", "name", "ref", "stop", "spawn", "_cell"])
    def test_a_name_that_agents_need_cannot_be_taken(self, name: str) -> None:
        with pytest.raises(InvalidHandler, match=f"own '{name}'; choose another name"):
            type("Reader", (Agent,), {name: lambda self, page: None})

    def test_a_mark_in_the_wrong_place_is_an_error(self) -> None:
        with pytest.raises(InvalidHandler, match="marks a method"):
            handles(3)  # type: ignore[type-var]


class TestInheritance:
    def test_handlers_are_inherited_and_replaced(self, node: Node) -> None:
        class Base(Agent):
            @handles
            def text(self, text: str) -> str:
                return f"base {text}"

            @handles
            def number(self, number: int) -> str:
                return f"base {number}"

        class Derived(Base):
            @handles
            def number(self, number: int) -> str:
                return f"derived, {super().number(number)}"

            @handles
            def data(self, data: bytes) -> str:
                return "data"

        ref = node.spawn(Derived)

        replies = [ref.ask(one).get(DEADLINE) for one in ("a", 1, b"")]

        assert replies == ["base a", "derived, base 1", "data"]

    def test_handlers_of_a_mix_in_count(self, node: Node) -> None:
        class Pings:
            @handles
            def ping(self, word: str) -> str:
                return "pong"

        class Server(Pings, Agent):
            pass

        assert answer(node, Server, "ping") == "pong"

    def test_replacing_a_handler_without_marking_it_is_an_error(self) -> None:
        class Base(Agent):
            @handles
            def text(self, text: str) -> str:
                return text

        with pytest.raises(InvalidHandler, match="not marked @handles itself"):

            class Derived(Base):
                def text(self, text: str) -> str:
                    return text

    def test_a_replaced_handler_may_take_another_type(self, node: Node) -> None:
        class Base(Agent):
            @handles
            def take(self, thing: Any) -> str:
                return "base"

        class Derived(Base):
            @handles
            def take(self, thing: int) -> str:
                return "derived"

        assert answer(node, Derived, 1) == "derived"
        with pytest.raises(NoHandler):
            answer(node, Derived, "a")


class TestClassAttributes:
    @pytest.mark.parametrize(
        ("attributes", "error"),
        [
            ({"capabilities": "shout"}, r"capabilities is a tuple of str, as in \('name',\)"),
            ({"subscriptions": "prices"}, "subscriptions is a tuple of str"),
            ({"mailbox": 10}, "mailbox is a MailboxPolicy"),
            ({"supervision": "restart"}, "supervision is a Supervision"),
            ({"dispatcher": "pol"}, "one of pool, loop, thread"),
            ({"concurrency": 0}, "an int of 1 or more"),
            ({"concurrency": True}, "an int of 1 or more"),
            ({"concurrency": 2}, "needs `async def` handlers"),
        ],
    )
    def test_what_cannot_be_meant_is_an_error(self, attributes: dict[str, Any], error: str) -> None:
        with pytest.raises(InvalidHandler, match=error):
            type("Reader", (Agent,), attributes)

    def test_async_handlers_need_the_loop(self) -> None:
        with pytest.raises(InvalidHandler, match="leave out dispatcher='pool'"):

            class Reader(Agent):
                dispatcher = "pool"

                @handles
                async def read(self, page: int) -> None: ...

    def test_on_failure_cannot_be_async(self) -> None:
        with pytest.raises(InvalidHandler, match="on_failure cannot be async"):

            class Reader(Agent):
                async def on_failure(self, *_: Any) -> None: ...  # type: ignore[override]
