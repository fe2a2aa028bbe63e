"""Rules: the first that fits decides, and a file that is wrong says on which line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from actorbus import Deliver, InvalidSettings, Reason, Rejected, Send, agent
from actorbus.bus.middlewares import Rule, Rules, authorise
from actorbus.codec.signing import NODE_HEADER
from actorbus.message import IdSource, Message, MessageKind, Priority

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from actorbus import Node
    from actorbus.bus.middlewares.rules import Effect


class Finding(BaseModel):
    text: str = ""


class Rumour(Finding):
    pass


@dataclass
class Order:
    amount: int = 1


def a_message(
    payload: Any = "text",
    *,
    sender: str | None = "scout",
    to: str | None = "librarian",
    topic: str | None = None,
    node: str | None = None,
    claims: str | None = None,
) -> Message[Any]:
    ids = IdSource()
    return Message(
        id=ids.make(1.0),
        kind=MessageKind.TELL if to else MessageKind.EVENT if topic else MessageKind.BROADCAST,
        sender=sender,
        recipient=to,
        topic=topic,
        payload=payload,
        priority=Priority.NORMAL,
        created_at=1.0,
        deadline=None,
        correlation_id=ids.make(1.0),
        causation_id=None,
        run_id=None,
        attempt=0,
        hops=0,
        headers=None if node is None else {NODE_HEADER: node},
        type=claims,
    )


def allows(rule: Rule, message: Message[Any], **more: Any) -> bool:
    return Rules([rule], **more)(message) is True


class TestFitting:
    @pytest.mark.parametrize(
        ("pattern", "sender", "fits"),
        [
            ("scout", "scout", True),
            ("scout", "scout-1", False),
            ("scout-*", "scout-1", True),
            ("scout-?", "scout-12", False),
            ("scout-[12]", "scout-3", False),
            ("*", None, True),
            ("?*", None, False),
            ("", None, True),
            ("", "scout", False),
            (["editor", "scout"], "scout", True),
            ("Scout", "scout", False),
            ("a.b", "axb", False),
            ("a|b", "b", False),
            ("[ab]", "[ab]", False),
            ("[[]ab]", "[ab]", True),
        ],
    )
    def test_by_the_sender(self, pattern: Any, sender: str | None, fits: bool) -> None:
        assert allows(Rule("allow", sender=pattern), a_message(sender=sender)) is fits

    @pytest.mark.parametrize(
        ("rule", "message", "fits"),
        [
            ({"to": "librarian"}, {}, True),
            ({"to": "lib*"}, {}, True),
            ({"to": "editor"}, {}, False),
            ({"to": "?*"}, {"to": None}, True),
            ({"to": "lib*"}, {"to": None}, False),
            ({"topic": "news.>"}, {"to": None, "topic": "news.eu.no"}, True),
            ({"topic": "news.*"}, {"to": None, "topic": "news.eu.no"}, False),
            ({"topic": ">"}, {}, False),
            ({"to": "*"}, {"to": None, "topic": "news.eu"}, False),
            ({"to": "librarian", "topic": "news.>"}, {}, True),
            ({"to": "librarian", "topic": "news.>"}, {"to": None, "topic": "news.x"}, True),
            ({}, {"to": None, "topic": "news.x"}, True),
        ],
    )
    def test_by_where_it_goes(
        self, rule: dict[str, Any], message: dict[str, Any], fits: bool
    ) -> None:
        assert allows(Rule("allow", **rule), a_message(**message)) is fits

    @pytest.mark.parametrize(
        ("effect", "name", "payload", "decided"),
        [
            ("allow", "Finding", Finding(), True),
            ("allow", f"{__name__}:Finding", Finding(), True),
            ("allow", "other:Finding", Finding(), False),
            ("allow", "Finding", Rumour(), False),
            ("allow", "str", "text", True),
            ("deny", "Finding", Rumour(), True),
            ("deny", "Order", Rumour(), False),
            ("deny", "Finding", Finding(), True),
        ],
    )
    def test_by_the_class_of_the_payload(
        self, effect: Any, name: str, payload: Any, decided: bool
    ) -> None:
        other: Effect = "deny" if effect == "allow" else "allow"
        rules = Rules([Rule(effect, type=name)], default=other)

        assert (rules(a_message(payload)) is True) is (decided is (effect == "allow"))

    def test_by_what_the_payload_is_and_not_what_its_sender_calls_it(self) -> None:
        lie = a_message(Order(), claims="Finding")

        assert not allows(Rule("allow", type="Finding"), lie)

    @pytest.mark.parametrize(
        ("pattern", "node", "fits"),
        [("eu-*", "eu-1", True), ("eu-*", "us-1", False), ("?*", None, False), ("", None, True)],
    )
    def test_by_the_node_that_vouches(self, pattern: str, node: str | None, fits: bool) -> None:
        assert allows(Rule("allow", node=pattern), a_message(node=node)) is fits

    def test_by_what_the_sender_can_do(self) -> None:
        offered = {"scout": ("look", "report")}
        rule = Rule("allow", capability="report")

        assert allows(rule, a_message(), capabilities=offered.__getitem__)
        assert not allows(rule, a_message(sender=None), capabilities=offered.__getitem__)
        assert not allows(
            Rule("allow", capability="repor*"), a_message(), capabilities=offered.__getitem__
        )

    def test_only_if_all_its_fields_do(self) -> None:
        rule = Rule("allow", sender="scout", type="str", to="librarian")

        assert allows(rule, a_message())
        assert not allows(rule, a_message(7))
        assert not allows(rule, a_message(to="editor"))
        assert not allows(rule, a_message(sender="other"))


class TestDeciding:
    def test_the_first_that_fits_decides(self) -> None:
        rules = Rules([Rule("deny", sender="scout-7"), Rule("allow", sender="scout-*")])

        assert rules(a_message(sender="scout-1")) is True
        assert rules(a_message(sender="scout-7")) == (
            "rule 1 forbids 'scout-7' to send str to 'librarian'"
        )

    def test_where_none_fits_the_default_decides_and_it_denies(self) -> None:
        assert Rules([])(a_message()) == "no rule allows 'scout' to send str to 'librarian'"
        assert Rules([], default="allow")(a_message()) is True

    def test_a_refusal_names_its_rule_and_who_vouched(self) -> None:
        rules = Rules([Rule("deny", name="no orders", type="Order")], default="allow")

        assert rules(a_message(Order(), sender=None, node="eu-1")) == (
            "rule 1, 'no orders', forbids code that is no agent on node 'eu-1' to send Order"
            " to 'librarian'"
        )


class TestOnANode:
    @pytest.mark.parametrize("side", [Send, Deliver])
    def test_an_ask_gets_an_error_and_a_tell_is_a_dead_letter_with_the_rule(
        self, make_node: Callable[..., Node], side: Any
    ) -> None:
        rules = Rules([Rule("deny", name="no text", type="str")], default="allow")
        node = make_node(middleware=side(authorise(rules)))
        ref = node.spawn(agent(lambda_of_text), name="librarian")

        reply = ref.ask("a finding")
        ref.tell("a finding")

        with pytest.raises(Rejected, match="rule 1, 'no text', forbids"):
            reply.get()
        node.drain(10)
        [letter] = node.dead_letters.list()
        assert (letter.reason, "'no text'" in str(letter.error)) == (Reason.REFUSED, True)

    def test_capabilities_are_looked_up_in_the_registry(
        self, make_node: Callable[..., Node]
    ) -> None:
        def offered(name: str) -> Any:
            found = node.registry.get(name)
            return () if found is None else found.capabilities

        rules = Rules([Rule("allow", capability="report")], capabilities=offered)
        node = make_node(middleware=Deliver(authorise(rules)))
        node.spawn(agent(lambda_of_text), name="librarian")

        with pytest.raises(Rejected, match="no rule allows code that is no agent"):
            node.ask("librarian", "a finding").get()

    def test_an_event_on_a_topic_is_decided_for_each_who_gets_it(
        self, make_node: Callable[..., Node]
    ) -> None:
        rules = Rules([Rule("deny", topic="news.>", to="editor"), Rule("allow", topic="news.>")])
        node = make_node(middleware=Deliver(authorise(rules)))
        node.spawn(agent(lambda_of_text), name="librarian").subscribe("news.*")

        node.topic("news.today").publish("a finding")
        node.topic("gossip").publish("a finding")

        node.drain(10)
        [letter] = node.dead_letters.list()
        assert "rule 1 forbids" in str(letter.error)


class TestFiles:
    def test_toml_and_json_say_the_same(self, tmp_path: Path) -> None:
        toml, as_json = tmp_path / "policy.toml", tmp_path / "policy.json"
        toml.write_text(
            'default = "deny"\n\n[[rule]]\neffect = "allow"\nsender = ["scout", ""]\nto = "l*"\n'
        )
        as_json.write_text(
            json.dumps({"rule": [{"effect": "allow", "sender": ["scout", ""], "to": "l*"}]})
        )

        for path in (toml, as_json):
            rules = Rules.load(path)
            assert rules(a_message()) is True
            assert rules(a_message(sender=None)) is True
            assert rules(a_message(to="editor")) is not True

    @pytest.mark.parametrize(
        ("text", "line", "says"),
        [
            ('default = "deny"\n[[rule]]\neffect = allow\n', None, "at line 3"),
            ('\ndefault = "maybe"\n', 2, "default: 'allow' or 'deny', not 'maybe'"),
            ("\nrules = []\n", 2, "no 'rules' here. Did you mean 'rule'?"),
            ('[[rule]]\neffect = "allow"\n\n[[rule]]\nto = "x"\n', 4, "rule 2: it has no effect"),
            ('[[rule]]\neffect = "permit"\n', 2, "rule 1: effect: 'allow' or 'deny'"),
            ('[[rule]]\neffect = "allow"\nsenders = "x"\n', 3, "Did you mean 'sender'?"),
            ('[[rule]]\neffect = "allow"\n\nto = 7\n', 4, "to: a str or a list of them, not 7"),
            ('[[rule]]\neffect = "allow"\nto = []\n', 3, "to: an empty list fits nothing"),
            ('[[rule]]\neffect = "allow"\ntopic = "a..b"\n', 3, "rule 1: topic: 'a..b'"),
            ('[[rule]]\neffect = "allow"\nname = 7\n', 3, "rule 1: name: a str"),
            ('rule = "x"\n', 1, "rule: a list was expected"),
            ('rule = [{effect = "no"}]\n', None, "rule 1: effect"),
        ],
    )
    def test_what_is_wrong_in_toml_is_said_with_its_line(
        self, tmp_path: Path, text: str, line: int | None, says: str
    ) -> None:
        file = tmp_path / "policy.toml"
        file.write_text(text)

        with pytest.raises(InvalidSettings) as error:
            Rules.load(file)

        place = f"{file}, line {line}: " if line else f"{file}: "
        assert str(error.value).startswith(place)
        assert says in str(error.value)

    @pytest.mark.parametrize(
        ("text", "line", "says"),
        [
            ('{\n "rule": [\n}', None, "line 3 column 1"),
            ('{\n "default": 1\n}', 2, "default: 'allow' or 'deny', not 1"),
            (
                '{"rule": [\n {"effect": "allow", "name": "]"},\n\n {"to": "x"}\n]}',
                4,
                "rule 2: it has no effect",
            ),
            (
                '{"rule": [\n {"effect": "allow"},\n {"effect": "deny",\n  "node": {}}\n]}',
                4,
                "rule 2: node: a str or a list",
            ),
            ('{"rule": [\n {"effect": "allow", "to": null}]}', 2, "to: a str or a list"),
            ('{"rule": [\n 7]}', 2, "rule 1: a table was expected, not 7"),
            ("[]", None, "a table"),
            ('{"rule": [{"to": ' + "7" * 5_000 + "}]}", None, "Exceeds the limit"),
            ('{"default": "\\"rule\\": [x"}', 1, "default: 'allow' or 'deny'"),
            ("[" * 100_000, None, "nested too deep"),
        ],
    )
    def test_and_in_json(self, tmp_path: Path, text: str, line: int | None, says: str) -> None:
        file = tmp_path / "policy.json"
        file.write_text(text)

        with pytest.raises(InvalidSettings) as error:
            Rules.load(file)

        place = f"{file}, line {line}: " if line else f"{file}: "
        assert str(error.value).startswith(place)
        assert says in str(error.value)

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (None, "policy.toml: No such file"),
            (b"default = 'deny'\n# \xff", "policy.toml, line 2: not text in UTF-8"),
            (b"#" * ((1 << 20) + 1), "more than 1,048,576 bytes"),
        ],
    )
    def test_a_file_that_cannot_be_read_says_why(
        self, tmp_path: Path, content: bytes | None, says: str
    ) -> None:
        file = tmp_path / "policy.toml"
        if content is not None:
            file.write_bytes(content)

        with pytest.raises(InvalidSettings, match=says):
            Rules.load(file)

    def test_a_rule_by_capability_wants_to_know_how_to_look_them_up(self, tmp_path: Path) -> None:
        file = tmp_path / "policy.toml"
        file.write_text('[[rule]]\neffect = "allow"\ncapability = "report"\n')

        with pytest.raises(InvalidSettings, match="capabilities=lambda name"):
            Rules.load(file)
        assert Rules.load(file, capabilities=lambda name: ["report"])(a_message()) is True


@pytest.mark.parametrize(
    "wrong", [{"effect": "yes"}, {"effect": "allow", "to": 7}, {"effect": "allow", "name": None}]
)
def test_a_wrong_rule_in_python_is_counted(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettings, match="rule 2: "):
        Rules([Rule("allow"), Rule(**wrong)])


def lambda_of_text(text: str) -> str:
    return text
