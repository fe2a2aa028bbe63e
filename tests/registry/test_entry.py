from __future__ import annotations

from typing import Any, cast

import pytest

from actorbus.errors import InvalidArgument, InvalidName
from actorbus.registry.entry import (
    AgentStatus,
    Capability,
    Entry,
    capability_names,
    describe,
    statuses,
)
from actorbus.testing.directory_contract import ListedAgent


def test_a_plain_str_is_a_capability_of_that_name() -> None:
    assert Capability.parse("count") == Capability("count", version="", schema=None)


def test_a_capability_stays_as_it_is() -> None:
    capability = Capability("count", version="2", schema={"type": "object"})

    assert Capability.parse(capability) is capability


@pytest.mark.parametrize("value", ["", "*", "a\nb", "x" * 10_000, Capability(" count"), 7, None])
def test_what_cannot_name_a_capability_is_an_invalid_name(value: Any) -> None:
    with pytest.raises(InvalidName):
        Capability.parse(value)
    with pytest.raises(InvalidName):
        capability_names((value,))


def test_capabilities_are_found_by_their_names() -> None:
    assert capability_names(("count", Capability("sort", version="2"))) == ("count", "sort")


def test_names_that_are_plain_take_no_room_of_their_own() -> None:
    names = ("count", "sort")

    assert capability_names(names) is names


@pytest.mark.parametrize("value", ["count-words", ["count-words"], None, {"count-words": 1}])
def test_capabilities_that_are_no_tuple_are_refused_with_what_would_work(value: object) -> None:
    with pytest.raises(InvalidArgument, match=r"write a tuple, as in \('count-words',\)"):
        capability_names(value)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("active", {AgentStatus.BUSY, AgentStatus.IDLE}),
        ("busy", {AgentStatus.BUSY}),
        (AgentStatus.DEAD, {AgentStatus.DEAD}),
        (AgentStatus("hibernating"), {"hibernating"}),
    ],
)
def test_a_word_for_a_status_means_these(word: str, meant: set[AgentStatus]) -> None:
    assert statuses(word) == meant


def test_an_unknown_word_for_a_status_gets_help() -> None:
    with pytest.raises(
        InvalidArgument, match=r"known are active, starting.*Did you mean 'parked'\?"
    ):
        statuses("praked")


@pytest.mark.parametrize("word", [7, "", ["idle"], True])
def test_what_is_no_word_at_all_is_no_status(word: object) -> None:
    with pytest.raises(InvalidArgument, match="known are active"):
        statuses(cast("str", word))


def test_an_agent_is_described_as_it_stands_now() -> None:
    capability = Capability("sort", version="2")
    member = ListedAgent("counter", ("count", capability), metadata={"zone": "eu"})
    registration = Entry(member, "a", ("count", "sort"))
    member.load, member.message_count = 3, 7

    info = describe(registration, status=AgentStatus.BUSY, last_heartbeat=12.5)

    assert (info.name, info.node, info.agent_type) == ("counter", "a", "tests.ListedAgent")
    assert info.capabilities == (Capability("count"), capability)
    assert (info.status, info.load, info.message_count) == (AgentStatus.BUSY, 3, 7)
    assert (info.last_heartbeat, info.metadata) == (12.5, {"zone": "eu"})
