"""The transport in memory keeps the contract, and promises what the table of promises says."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest

from actorbus import Node
from actorbus.bus.transport import Guarantee, Guarantees
from actorbus.bus.transports.memory import MEMORY, MemoryTransport
from actorbus.testing.transport_contract import Receiver, TransportContract, needs

if TYPE_CHECKING:
    from actorbus.bus.transport import Transport


class TestMemoryTransport(TransportContract):
    guarantees = MEMORY

    def open(self) -> Transport:
        return MemoryTransport()


def test_it_promises_what_the_table_of_promises_says() -> None:
    assert (
        Guarantees(
            transport="memory",
            delivery="started at most once, plus the retries asked for; ends exactly once"
            " while the process lives",
            survives="-",
            order="yes",
            bounded="yes",
            unknown_recipient="error at once",
            fanout="to each mailbox",
            given=frozenset(Guarantee) - {Guarantee.AT_LEAST_ONCE, Guarantee.SURVIVES},
        )
        == MEMORY
    )


def test_a_node_states_the_guarantees_of_its_transport() -> None:
    assert Node().bus.guarantees is MEMORY


def test_each_transport_has_agents_of_its_own() -> None:
    first, second = MemoryTransport(), MemoryTransport()

    first.attach(Receiver("counter").mailbox)

    assert second.names() == []


class TestTheContract:
    """What is collected of the contract depends on what a transport gives."""

    def test_a_test_is_collected_only_where_its_guarantee_is_given(self) -> None:
        class Unordered(TransportContract):
            guarantees = _giving(Guarantee.BOUNDED)

        collected = {name for name, test in inspect.getmembers(Unordered, callable)}
        assert "test_an_inbox_never_holds_more_than_its_capacity" in collected
        assert "test_messages_from_one_sender_arrive_in_the_order_sent" not in collected
        assert "test_a_broadcast_reaches_everyone_but_its_sender" not in collected

    def test_every_guarantee_that_memory_gives_has_a_test(self) -> None:
        tested = {
            getattr(test, "_needed_guarantee", None) for test in vars(TransportContract).values()
        }

        assert tested - {None} == MEMORY.given

    def test_a_subclass_that_gives_more_gets_the_tests_back(self) -> None:
        class Unordered(TransportContract):
            guarantees = _giving()

        class Ordered(Unordered):
            guarantees = _giving(Guarantee.ORDERED)

        assert callable(Ordered.test_messages_from_one_sender_arrive_in_the_order_sent)

    def test_a_test_of_its_own_is_left_alone(self) -> None:
        class Special(TransportContract):
            guarantees = _giving()

            @needs(Guarantee.FANOUT)
            def test_a_broadcast_to_nobody_is_no_error(self) -> None:
                """Differs here."""

        assert Special.test_a_broadcast_to_nobody_is_no_error.__doc__ == "Differs here."

    def test_a_subclass_that_does_not_say_its_guarantees_is_refused(self) -> None:
        with pytest.raises(TypeError, match="must say which `guarantees`"):

            class Forgetful(TransportContract):
                pass


def _giving(*guarantees: Guarantee) -> Guarantees:
    return Guarantees("test", "", "", "", "", "", "", frozenset(guarantees))
