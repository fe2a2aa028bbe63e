"""Payloads come back from history as what they were."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, computed_field

from actorbus import Agent, Node, Ref, handles
from actorbus.errors import NotReplayable
from actorbus.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.persistence.answers import MessageView

    Recorded = Callable[..., list[MessageView]]


class Colour(Enum):
    RED = "red"


class Line(BaseModel):
    sku: str
    price: Decimal


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: UUID
    on: date
    lines: list[Line]
    colour: Colour = Colour.RED
    scan: bytes = b""
    country: str = Field("NO", alias="land")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> Decimal:
        return sum((line.price for line in self.lines), Decimal(0))


class Scan(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    pixels: bytes


class Raw(BaseModel):
    """Its bytes are no text, and it does not say how else they look."""

    pixels: bytes
    note: str = Field("", alias="remark")


class Exact(BaseModel):
    model_config = ConfigDict(strict=True)

    at: datetime


@dataclass(frozen=True)
class Point:
    x: int
    y: tuple[float, ...]
    raw: bytes


class Answer(BaseModel):
    """No handler's hints name it."""

    words: int


ORDER = Order(
    id=UUID(int=7),
    on=date(2026, 3, 1),
    lines=[Line(sku="a", price=Decimal("1.10"))],
    scan=b"hello",
    land="SE",
)
VALUES = [
    ORDER,
    Exact(at=datetime.fromisoformat("2026-03-01T12:00:00+00:00")),
    Scan(pixels=b"\x00\xff"),
    Raw(pixels=b"\x00\xff", remark="dark"),
    Point(1, (2.0, 3.5), b"\x00\xff"),
    Colour.RED,
    "text",
    5,
    5.0,
    float("inf"),
    True,
    None,
    b"\x00\xff",
    (1, "two"),
    {3},
    {"deep": [b"\xff", {"x": 1}]},
    [1, [2]],
    UUID(int=9),
]


class Keeper(Agent):
    def __init__(self, kept: list[Any]) -> None:
        self.kept = kept

    @handles
    def keep(
        self,
        value: Order
        | Exact
        | Scan
        | Raw
        | Point
        | Colour
        | str
        | int
        | float
        | bool
        | bytes
        | tuple[Any, ...]
        | set[Any]
        | dict[str, Any]
        | list[Any]
        | UUID
        | None,
    ) -> None:
        self.kept.append(value)


def kept_again(recorded: Recorded, value: Any) -> Any:

    kept: list[Any] = []
    views = recorded({}, lambda node: node.spawn(Keeper, [], name="keeper").tell(value))

    outcome = Replay(views, agents={"keeper": functools.partial(Keeper, kept)}).run()

    assert outcome.same, outcome.divergence
    assert outcome.unknown_types == ()
    return kept[0]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:24])
def test_a_payload_is_rebuilt_as_its_class(recorded: Recorded, value: Any) -> None:
    again = kept_again(recorded, value)

    assert again == value
    assert type(again) is type(value)


def test_a_ref_comes_back_as_a_ref(recorded: Recorded) -> None:
    class Greeter(Agent):
        @handles
        def greet(self, asked: dict) -> None:  # type: ignore[type-arg]
            asked["reply_to"].tell("hello")

    def drive(node: Node) -> None:
        node.mailbox("visitor")
        node.tell("greeter", {"reply_to": node.ref("visitor")})

    views = recorded({"greeter": Greeter}, drive)

    outcome = Replay(views, agents={"greeter": Greeter}).run()

    assert outcome.same, outcome.divergence
    assert outcome.steps[1].said.recipient == "visitor"
    assert Ref.__name__ in str(views[0].payload)


class Reader(Agent):
    @handles
    def read(self, text: str) -> int:
        return int(self.ask("model", text).get().words)


def answered_by_model(recorded: Recorded, answer: type[Any]) -> list[MessageView]:
    class Model(Agent):
        @handles
        def answer(self, text: str) -> Any:
            return answer(words=len(text.split()))

    return recorded(
        {"reader": Reader, "model": Model}, lambda node: node.ask("reader", "to be").get()
    )


def test_an_answer_of_the_agents_own_module_is_found(recorded: Recorded) -> None:
    outcome = Replay(answered_by_model(recorded, Answer), agents={"reader": Reader}).run()

    assert outcome.same, outcome.divergence


def test_a_class_that_nobody_names_is_plain_json_and_said_to_be(recorded: Recorded) -> None:
    class Hidden(BaseModel):
        words: int

    views = answered_by_model(recorded, Hidden)

    plain = Replay(views, agents={"reader": Reader}).run()
    named = Replay(views, agents={"reader": Reader}, types=[Hidden]).run()

    assert plain.unknown_types == (Hidden.__qualname__,)
    assert plain.divergence is not None
    assert "name it in types=" in plain.divergence.note
    assert named.same, named.divergence


def test_a_class_that_changed_since_is_said(recorded: Recorded) -> None:
    views = recorded({}, lambda node: node.spawn(Keeper, [], name="keeper").tell(ORDER))
    older = [replace(view, payload={"id": 1}) for view in views]

    with pytest.raises(NotReplayable, match=r"no Order any more; was .*\.Order changed since"):
        Replay(older, agents={"keeper": functools.partial(Keeper, [])}).run()
