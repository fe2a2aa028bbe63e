from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

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

    assert "no repr" in stored["$failed"]


def test_a_cycle_ends() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)

    json.loads(encode(cycle))


def test_a_generator_is_left_to_its_recipient() -> None:
    numbers = (number for number in range(3))

    encode({"numbers": numbers})

    assert list(numbers) == [0, 1, 2]


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(_anything)
def test_whatever_is_sent_becomes_json_in_utf_8(payload: Any) -> None:
    text = encode(payload)

    text.encode()
    json.loads(text)
