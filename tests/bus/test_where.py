"""Content filters: what passes, whatever the payload is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel

from actorbus import where
from actorbus.bus.where import compiled, matches
from actorbus.errors import InvalidArgument


class Address(BaseModel):
    city: str
    zip: str = "0150"


class Order(BaseModel):
    country: str
    total: float
    address: Address | None = None


@dataclass
class Tick:
    price: float
    tags: list[str] = field(default_factory=list)
    _secret: str = "hidden"


class Hostile:
    """Every way in which reading or comparing a payload can go wrong."""

    @property
    def price(self) -> float:
        raise RuntimeError("not today")

    @property
    def gone(self) -> float:
        raise AttributeError("gone")

    class Incomparable:
        def __eq__(self, other: object) -> bool:
            raise ValueError("the truth is ambiguous")

        __hash__ = None  # type: ignore[assignment]

    total = Incomparable()


def passes(payload: Any, conditions: Any) -> bool:
    return matches(compiled(conditions), payload)


@pytest.mark.parametrize(
    ("condition", "passing", "failing"),
    [
        (5, [5, 5.0], [4, "5", None]),
        (where.eq(5), [5], [6]),
        (where.ne(5), [6, "5", None], [5]),
        (where.gt(5), [6, 5.1], [5, 4]),
        (where.ge(5), [5, 6], [4]),
        (where.lt(5), [4], [5, 6]),
        (where.le(5), [5, 4], [6]),
        (where.one_of("NO", "SE"), ["NO", "SE"], ["DK", None, 1]),
        (where.prefix("ab"), ["ab", "abc"], ["a", "cab", None, 1]),
        (where.contains("ab"), ["cabin", ["ab"], {"ab": 1}], ["ba", [], 7, None]),
        (None, [None], [0, "", False]),
    ],
)
def test_a_condition_holds_for_the_values_it_means(
    condition: Any, passing: list[Any], failing: list[Any]
) -> None:
    assert [value for value in passing if not passes({"x": value}, {"x": condition})] == []
    assert [value for value in failing if passes({"x": value}, {"x": condition})] == []


@pytest.mark.parametrize(
    "payload",
    [
        {"country": "NO", "total": 120, "address": {"city": "Oslo"}},
        Order(country="NO", total=120, address=Address(city="Oslo")),
        {"country": "NO", "total": 120, "address": Address(city="Oslo")},
    ],
    ids=["dict", "model", "mixed"],
)
def test_dicts_and_models_are_filtered_alike_also_inside(payload: Any) -> None:
    assert passes(payload, {"country": "NO", "total": where.gt(100), "address.city": "Oslo"})
    assert not passes(payload, {"country": "NO", "total": where.gt(120)})
    assert not passes(payload, {"address.city": "Bergen"})


def test_dataclasses_are_filtered_by_their_fields() -> None:
    assert passes(Tick(1.5, ["eur"]), {"price": where.lt(2), "tags": where.contains("eur")})
    assert not passes(Tick(2.5), {"price": where.lt(2)})


@pytest.mark.parametrize(
    "path", ["missing", "address.missing", "country.x", "address.city.x", "a..b", ".", "total."]
)
def test_a_field_that_is_missing_passes_no_condition(path: str) -> None:
    order = Order(country="NO", total=1, address=Address(city="Oslo"))

    assert not passes(order, {path: where.ne("anything")})
    assert not passes(order.model_dump(), {path: where.ne("anything")})


def test_what_is_none_on_the_way_is_missing() -> None:
    assert not passes(Order(country="NO", total=1), {"address.city": where.ne("Oslo")})
    assert passes(Order(country="NO", total=1), {"address": None})


@pytest.mark.parametrize("payload", [None, 7, "text", b"bytes", [], object()])
def test_payloads_without_fields_pass_no_condition(payload: Any) -> None:
    assert not passes(payload, {"country": where.ne("NO")})


@pytest.mark.parametrize("payload", [None, 7, Tick(1), {}])
@pytest.mark.parametrize("empty", [None, {}])
def test_no_condition_lets_everything_through(payload: Any, empty: Any) -> None:
    assert passes(payload, empty)


@pytest.mark.parametrize(
    "path", ["__class__", "__class__.__name__", "_secret", "__dict__", "price.__class__"]
)
def test_private_attributes_are_out_of_reach(path: str) -> None:
    assert not passes(Tick(1.0), {path: where.ne(object())})


def test_a_dict_may_have_keys_of_any_name() -> None:
    assert passes({"_id": 7, "__class__": "x"}, {"_id": 7, "__class__": "x"})


@pytest.mark.parametrize(
    "condition", [where.gt("text"), where.lt(None), where.contains(1), where.gt(object())]
)
def test_what_cannot_be_compared_does_not_pass(condition: Any) -> None:
    assert not passes({"total": 5}, {"total": condition})


@pytest.mark.parametrize("field", ["price", "gone", "total"])
def test_a_payload_that_raises_does_not_pass_and_hurts_no_publisher(field: str) -> None:
    assert not passes(Hostile(), {field: 5})


def test_a_filter_does_not_change_when_the_mapping_it_came_from_does() -> None:
    conditions = {"country": "NO"}
    fixed = compiled(conditions)

    conditions["country"] = "SE"

    assert matches(fixed, {"country": "NO"})


@pytest.mark.parametrize("wrong", ["country", 7, ["country"], {7: "NO"}, {"": "NO"}, {None: 1}])
def test_what_is_no_filter_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidArgument):
        compiled(wrong)


@pytest.mark.parametrize("test", [lambda total: total > 100, where.gt(len), where.contains])
def test_a_function_is_refused_because_no_transport_can_carry_it(test: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"a condition on 'total'.*where\.gt\(100\)"):
        compiled({"total": test})
