"""Who may send what to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from actorbus import Agent, Deliver, InvalidSettings, Reason, Rejected, Send, agent, handles
from actorbus.bus.middlewares import authorise

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus import Message, Node

DEADLINE: Final = 10.0


def librarian(text: str) -> str:
    return f"kept {text}"


async def later(text: str) -> str:
    return f"kept {text}"


class Scout(Agent):
    """Does what it is told to: sends to one, to all, or on a topic."""

    @handles
    def act(self, deed: tuple[str, str]) -> Any:
        verb, to = deed
        match verb:
            case "ask":
                return self.ask(to, "a finding")
            case "tell":
                return self.tell(to, "a finding")
            case "publish":
                return self.publish(to, "a finding")
            case _:
                return self.broadcast("a finding")


@pytest.mark.parametrize("side", [Send, Deliver])
@pytest.mark.parametrize("handler", [librarian, later])
class TestTable:
    def test_who_is_allowed_gets_through(
        self, make_node: Callable[..., Node], side: Any, handler: Any
    ) -> None:
        node = make_node(middleware=side(authorise({None: ["*"], "scout": ["librarian"]})))
        node.spawn(agent(handler), name="librarian")
        scout = node.spawn(Scout, name="scout")

        assert scout.ask(("ask", "librarian")).get() == "kept a finding"

    def test_who_is_not_allowed_is_rejected_and_told_why(
        self, make_node: Callable[..., Node], side: Any, handler: Any
    ) -> None:
        node = make_node(middleware=side(authorise({None: ["*"], "scout": ["editor"]})))
        node.spawn(agent(handler), name="librarian")
        scout = node.spawn(Scout, name="scout")

        reply = scout.ask(("ask", "librarian"))

        with pytest.raises(Rejected, match="'scout' may not send str to 'librarian'"):
            reply.get()

    def test_a_tell_that_is_not_allowed_is_a_dead_letter(
        self, make_node: Callable[..., Node], side: Any, handler: Any
    ) -> None:
        node = make_node(middleware=side(authorise({None: ["scout"]})))
        ref = node.spawn(agent(handler), name="librarian")

        ref.tell("a finding")

        node.drain(DEADLINE)
        [letter] = node.dead_letters.list()
        assert (letter.reason, letter.recipient) == (Reason.REFUSED, "librarian")
        assert "code that is no agent may not send str to 'librarian'" in str(letter.error)


class TestToMany:
    @pytest.mark.parametrize(
        ("rights", "deed", "allowed"),
        [
            (["*"], ("broadcast", ""), True),
            (["librarian"], ("broadcast", ""), False),
            (["news.today"], ("publish", "news.today"), True),
            (["librarian"], ("publish", "news.today"), False),
        ],
    )
    def test_a_sender_may_broadcast_or_publish_if_its_rights_say_so(
        self,
        make_node: Callable[..., Node],
        rights: list[str],
        deed: tuple[str, str],
        allowed: bool,
    ) -> None:
        node = make_node(middleware=Send(authorise({None: ["*"], "scout": rights})))
        taken: list[str] = []
        ref = node.spawn(agent(_keeper(taken)), name="librarian")
        ref.subscribe("news.*")
        scout = node.spawn(Scout, name="scout")

        scout.ask(deed).get()

        node.drain(DEADLINE)
        reasons = [letter.reason for letter in node.dead_letters.list()]
        assert (taken, reasons) == ((["a finding"], []) if allowed else ([], [Reason.REFUSED]))

    def test_on_the_deliver_side_each_recipient_is_decided_on(
        self, make_node: Callable[..., Node]
    ) -> None:
        node = make_node(middleware=Deliver(authorise({None: ["librarian"]})))
        taken: list[str] = []
        node.spawn(agent(_keeper(taken)), name="librarian")
        node.spawn(agent(_keeper(taken)), name="editor")

        node.broadcast("a finding")

        node.drain(DEADLINE)
        [letter] = node.dead_letters.list()
        assert taken == ["a finding"]
        assert letter.recipient == "editor"


class TestPolicy:
    def test_a_function_decides_by_the_message(self, make_node: Callable[..., Node]) -> None:
        def signed(message: Message[Any]) -> bool:
            return message.headers.get("token") == "good"

        node = make_node(middleware=Send(authorise(signed)))
        ref = node.spawn(agent(librarian), name="librarian")

        assert ref.ask("a finding", headers={"token": "good"}).get() == "kept a finding"
        with pytest.raises(Rejected, match="may not send"):
            ref.ask("a finding").get()

    def test_it_may_say_why_not(self, make_node: Callable[..., Node]) -> None:
        node = make_node(middleware=Send(authorise(lambda message: "it is Sunday")))
        ref = node.spawn(agent(librarian), name="librarian")

        with pytest.raises(Rejected, match="refused the message: it is Sunday"):
            ref.ask("a finding").get()

    @pytest.mark.parametrize("side", [Send, Deliver])
    def test_a_policy_that_raises_refuses_and_harms_no_agent(
        self, make_node: Callable[..., Node], side: Any
    ) -> None:
        def broken(message: Message[Any]) -> bool:
            raise LookupError("no such table")

        node = make_node(middleware=side(authorise(broken)))
        ref = node.spawn(agent(librarian), name="librarian")

        ref.tell("a finding")
        reply = ref.ask("a finding")

        with pytest.raises(Rejected, match="the policy raised LookupError: no such table"):
            reply.get()
        node.drain(DEADLINE)
        assert [letter.reason for letter in node.dead_letters.list()] == [Reason.REFUSED]

    @pytest.mark.parametrize("truthy", [1, "", None, 0, ["librarian"]])
    def test_nothing_but_true_lets_a_message_through(
        self, make_node: Callable[..., Node], truthy: Any
    ) -> None:
        node = make_node(middleware=Send(authorise(lambda message: truthy)))
        ref = node.spawn(agent(librarian), name="librarian")

        with pytest.raises(Rejected):
            ref.ask("a finding").get()


@pytest.mark.parametrize("wrong", [None, "scout", 7, ["scout"], {"scout": "librarian"}])
def test_what_is_neither_a_policy_nor_a_table_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidSettings, match="a function of a message, or a table"):
        authorise(wrong)


def test_a_table_that_is_changed_later_changes_nothing(make_node: Callable[..., Node]) -> None:
    table: dict[str | None, list[str]] = {None: []}
    node = make_node(middleware=Send(authorise(table)))
    ref = node.spawn(agent(librarian), name="librarian")

    table[None] = ["*"]

    with pytest.raises(Rejected):
        ref.ask("a finding").get()


def _keeper(taken: list[str]) -> Any:
    def keep(text: str) -> None:
        taken.append(text)

    return keep
