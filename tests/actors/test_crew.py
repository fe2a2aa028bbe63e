"""Agents that any node could run: how they are recorded, and made again from that."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from actorbus import Agent, MailboxPolicy, NameTaken, Node, UnsupportedPayload, agent, handles
from actorbus.actors.crew import Crew
from actorbus.codec import Codec, TypeBook
from actorbus.errors import Undecodable

if TYPE_CHECKING:
    from actorbus.actors.ref import Ref


@dataclass
class Style:
    mark: str


class Speaker(Agent):
    failover = True
    mailbox = MailboxPolicy(capacity=7)

    def __init__(self, word: str, *, style: Style | None = None) -> None:
        self.word = word
        self.style = style

    @handles
    def speak(self, times: int) -> str:
        return self.word * times + ("" if self.style is None else self.style.mark)


class Settled(Agent):
    @handles
    def stay(self, text: str) -> str:
        return text


class Holder(Agent):
    failover = True

    def __init__(self, held: Any) -> None:
        self.held = held


@agent
def double(text: str) -> str:
    return text * 2


class Offers(list[tuple[str, MailboxPolicy, bytes]]):
    """What was offered to other nodes."""

    def take(self, name: str, policy: MailboxPolicy, spec: bytes) -> None:
        self.append((name, policy, spec))


def _never(_: str) -> bool:
    """Whether an agent that runs nowhere will run again."""
    return False


_ALONE: Any = {"muster": lambda _, __: (0, 1), "nobodys": set}


@pytest.fixture
def offers() -> Offers:
    return Offers()


@pytest.fixture
def crew(node: Node, offers: Offers) -> Crew:
    return Crew(node._runtime, Codec(node.types, limit=1 << 20), offers.take, _never, **_ALONE)


@pytest.fixture
def stranger(node: Node) -> Crew:
    """Of a node that has seen no agent yet."""
    return Crew(node._runtime, Codec(TypeBook(), limit=1 << 20), Offers().take, _never, **_ALONE)


def inbox_of(ref: Ref) -> Any:
    return ref._cell.mailbox  # type: ignore[union-attr]


def test_an_agent_is_made_again_with_what_it_was_made_with(node: Node, crew: Crew) -> None:
    first = node.spawn(Speaker, "ha", style=Style("!"), name="speaker")
    spec = crew.spec(inbox_of(first))

    crew.make("heir", spec)

    assert crew.can_make("heir", spec)
    assert node.ask("heir", 2).get() == first.ask(2).get() == "haha!"
    assert node._runtime.cells["heir"].failover


def test_an_heir_is_recorded_like_the_agent_it_follows(node: Node, crew: Crew) -> None:
    spec = crew.spec(inbox_of(node.spawn(Speaker, "ha", name="speaker")))

    crew.make("heir", spec)

    assert crew.spec(inbox_of(node.ref("heir"))) == spec


def test_a_function_is_made_again_too(node: Node, crew: Crew) -> None:
    spec = crew.spec(inbox_of(node.spawn(double, name="double", failover=True)))

    crew.make("heir", spec)

    assert node.ask("heir", "ab").get() == "abab"


def test_who_is_not_marked_failover_runs_nowhere_else(node: Node, crew: Crew) -> None:
    settled = node.spawn(Settled, name="settled")
    kept = node.spawn(Speaker, "ha", name="kept", failover=False)

    assert crew.spec(inbox_of(settled)) == b""
    assert crew.spec(inbox_of(kept)) == b""
    assert crew.spec(inbox_of(node.spawn(Settled, name="moves", failover=True))) != b""


def test_a_mailbox_that_code_takes_from_runs_nowhere_else(node: Node, crew: Crew) -> None:
    assert crew.spec(node.mailbox("desk").inbox) == b""


def test_a_class_that_somebody_only_named_is_never_made(
    node: Node, crew: Crew, stranger: Crew
) -> None:
    spec = crew.spec(inbox_of(node.spawn(Speaker, "ha", name="speaker")))

    assert not stranger.can_make("heir", spec)
    stranger.know(Speaker)
    assert stranger.can_make("heir", spec)


def test_a_class_that_was_spawned_here_is_known_though_its_agent_does_not_move(
    node: Node, crew: Crew, stranger: Crew
) -> None:
    moves = node.spawn(Settled, name="moves", failover=True)
    stays = node.spawn(Settled, name="stays")
    spec = crew.spec(inbox_of(moves))

    stranger.spec(inbox_of(stays))

    assert stranger.can_make("moves", spec)


@pytest.mark.parametrize("spec", [b"", b"\xc1", b"no spec at all", b"\x93\x01\x02\x03"])
def test_bytes_that_say_nothing_make_nobody(crew: Crew, spec: bytes) -> None:
    assert not crew.can_make("heir", spec)
    with pytest.raises(Undecodable):
        crew.make("heir", spec)


@pytest.mark.parametrize(
    "what", ["text", ["only a name"], ["a name", "no list", {}], [1, [], {}], ["a name", [], []]]
)
def test_a_payload_that_is_no_record_makes_nobody(node: Node, crew: Crew, what: Any) -> None:
    spec = Codec(node.types, limit=1 << 20).encode_payload(what)

    assert not crew.can_make("heir", spec)
    with pytest.raises(Undecodable):
        crew.make("heir", spec)


def test_arguments_that_cannot_be_carried_are_an_error(node: Node, crew: Crew) -> None:
    holder = node.spawn(Holder, threading.Lock(), name="holder")

    with pytest.raises(UnsupportedPayload):
        crew.spec(inbox_of(holder))


def test_a_name_that_is_taken_here_makes_nobody(node: Node, crew: Crew) -> None:
    speaker = node.spawn(Speaker, "ha", name="speaker")
    spec = crew.spec(inbox_of(speaker))

    with pytest.raises(NameTaken):
        crew.make("speaker", spec)

    assert speaker.ask(1).get() == "ha"


def test_who_stands_by_is_offered_with_its_mailbox_and_can_be_made(
    node: Node, crew: Crew, offers: Offers
) -> None:
    crew.stand_by("settled", Settled)

    ((name, policy, spec),) = offers
    crew.make(name, spec)

    assert (name, policy) == ("settled", Settled.mailbox)
    assert crew.can_make(name, spec)
    assert node.ask("settled", "here").get() == "here"


def test_a_ref_among_the_arguments_is_a_ref_to_the_heir(node: Node) -> None:
    codec = Codec(node.types, limit=1 << 20, make_ref=node.ref)
    crew = Crew(node._runtime, codec, Offers().take, _never, **_ALONE)
    settled = node.spawn(Settled, name="settled")
    spec = crew.spec(inbox_of(node.spawn(Holder, settled, name="holder")))

    crew.make("heir", spec)

    heir: Any = node._runtime.cells["heir"].agent
    assert heir.held.ask("still here").get() == "still here"
