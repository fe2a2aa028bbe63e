from __future__ import annotations

import json
import math
from collections import deque
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from actorbus.persistence.payloads import encode


class Model(BaseModel):
    data: bytes


class Base(BaseModel):
    name: str


class Derived(Base):
    more: int


class Holder(BaseModel):
    held: Base


@dataclass
class Plain:
    data: bytes
    inner: Any


class Endless(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="constants")

    it: float = math.inf


class Keeper(BaseModel):
    data: bytes
    secret: str = Field("a secret", exclude=True)


class Colour(Enum):
    RED = "red"


class Order(BaseModel):
    id: UUID
    price: Decimal
    on: date
    scan: bytes
    text: str


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    ("payload", "stored"),
    [
        (None, None),
        ({"n": 1, "nested": [1, {"x": "é"}]}, {"n": 1, "nested": [1, {"x": "é"}]}),
        (b"\xff\x00", {"$bytes": "/wA="}),
        ({"data": [b"a"]}, {"data": [{"$bytes": "YQ=="}]}),
        (Model(data=b"text"), {"data": "text"}),
        (Model(data=b"\xff"), {"data": {"$bytes": "/w=="}}),
        (
            Plain(b"a", {"deep": b"b"}),
            {"data": {"$bytes": "YQ=="}, "inner": {"deep": {"$bytes": "Yg=="}}},
        ),
        (Holder(held=Derived(name="a", more=1)), {"held": {"name": "a", "more": 1}}),
        (float("nan"), "NaN"),
        ({"broken": "\ud800"}, {"broken": "\\ud800"}),
        ({"$bytes": "mine"}, {"$dict": {"$bytes": "mine"}}),
        ([deque([b"a"]), {b"b"}], [[{"$bytes": "YQ=="}], [{"$bytes": "Yg=="}]]),
        (Endless(), {"it": "Infinity"}),
    ],
    ids=str,
)
def test_a_payload_becomes_json(payload: Any, stored: Any) -> None:
    assert json.loads(encode(payload)) == stored


def test_an_unknown_object_is_its_repr_cut() -> None:
    class Long:
        def __repr__(self) -> str:
            return "x" * 5_000

    stored = json.loads(encode({"it": Long()}))

    assert stored["it"]["$repr"] == "x" * 999 + "…"


def test_an_object_whose_code_raises_is_still_recorded() -> None:
    stored = json.loads(encode({"it": Hostile()}))

    assert "no repr" in stored["it"]["$failed"]


def test_a_cycle_ends() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)

    assert json.loads(encode(cycle)) == [{"$repr": "[[...]]"}]


def test_a_cycle_that_branches_ends() -> None:
    cycle: list[Any] = []
    cycle += [cycle, cycle]

    stored = json.loads(encode({"cycle": cycle, "ours": 1}))

    assert stored["ours"] == 1
    assert list(stored["cycle"][0]) == ["$repr"]


def test_what_a_model_keeps_to_itself_is_kept_out_beside_what_cannot_be_written() -> None:
    stored = json.loads(encode(Keeper(data=b"\xff")))

    assert stored == {"data": {"$bytes": "/w=="}}


@pytest.mark.parametrize("digits", [4_301, 6_000])
def test_a_number_that_nobody_can_read_again_is_described(digits: int) -> None:
    stored = json.loads(encode({"number": 10**digits, "ours": "1" * digits}))

    assert list(stored["number"]) == ["$failed"]
    assert stored["ours"] == "1" * digits


def test_a_generator_is_left_to_its_recipient() -> None:
    numbers = (number for number in range(3))

    encode({"numbers": numbers})

    assert list(numbers) == [0, 1, 2]


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@example(math.nan)
@given(_anything)
def test_whatever_is_sent_becomes_json_in_utf_8(payload: Any) -> None:
    text = encode(payload).encode()

    assert type(json.loads(text)) is _stored_as(payload)


def _stored_as(payload: Any) -> type[Any]:
    """JSON has no word for bytes, for infinity and for what is no number."""
    if isinstance(payload, bytes):
        return dict
    if isinstance(payload, float) and not math.isfinite(payload):
        return str
    return type(payload)


def _a_cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


_refused = st.sampled_from(["\ud800", _a_cycle(), Model(data=b"\xff"), Hostile(), 10**5_000])
_leaves = (
    st.uuids()
    | st.decimals()
    | st.dates()
    | st.datetimes()
    | st.times()
    | st.timedeltas()
    | st.sampled_from(Colour)
    | st.binary()
    | st.text()
    | st.floats()
    | st.builds(
        Order,
        id=st.uuids(),
        price=st.decimals(allow_nan=False, allow_infinity=False),
        on=st.dates(),
        scan=st.text().map(str.encode),
        text=st.text(),
    )
)
_parts = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner)
        | st.dictionaries(st.text() | st.uuids() | st.dates() | st.booleans(), inner)
        | st.builds(Plain, data=st.binary(), inner=inner)
    ),
    max_leaves=10,
)


@given(_parts, _refused)
def test_a_part_looks_the_same_whatever_else_is_in_the_document(part: Any, other: Any) -> None:
    stored = json.loads(encode({"other": other, "part": part, "deeper": [part, other]}))

    alone = json.loads(encode(part))
    assert [stored["part"], stored["deeper"][0]] == [alone, alone]


@given(st.uuids(), st.dates(), st.decimals(allow_nan=False), st.datetimes())
def test_what_is_written_beside_broken_text_reads_back(
    id: UUID, day: date, price: Decimal, at: datetime
) -> None:
    stored = json.loads(encode({"id": id, "day": day, "price": price, "at": at, "x": "\udfff"}))

    assert UUID(stored["id"]) == id
    assert date.fromisoformat(stored["day"]) == day
    assert Decimal(stored["price"]) == price
    assert datetime.fromisoformat(stored["at"]) == at
