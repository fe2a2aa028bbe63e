"""``actorbus send`` and ``actorbus ask``."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from actorbus import Priority
from tests.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from actorbus import Node
    from actorbus.bus.pull import PullMailbox
    from tests.cli.conftest import Commands

ABSENT = "redis://:secret@127.0.0.1:1/0"


@pytest.fixture
def box(node: Node) -> PullMailbox:
    return node.mailbox("box")


def payloads(box: PullMailbox) -> list[Any]:
    return [one.payload for one in box.take(1, timeout=5)]


# -- send


def test_what_is_sent_to_a_name_is_accepted_and_arrives(
    command: Commands, box: PullMailbox
) -> None:
    result = command("send", "counter", '{"some": ["text", 1]}', "--headers", "k=v=w")

    assert result.exit_code == 0, result.output
    assert result.stdout == "Accepted, for agent 'counter'.\n"
    (message,) = box.take(1, timeout=5)
    assert message.payload == {"some": ["text", 1]}
    assert message.headers["k"] == "v=w"


def test_a_payload_comes_from_a_file_or_from_stdin(
    command: Commands, box: PullMailbox, tmp_path: Path
) -> None:
    file = tmp_path / "payload.json"
    file.write_text('"from a file"')

    command("send", "counter", f"@{file}")
    from_file = payloads(box)
    command("send", "counter", "-", stdin='"from stdin"')

    assert (from_file, payloads(box)) == (["from a file"], ["from stdin"])


@pytest.mark.parametrize(
    "whom",
    [["--any", "count-words"], ["--all", "count-words"], ["--topic", "news.eu"], ["--broadcast"]],
)
def test_a_message_goes_to_who_can_do_it_to_all_or_to_a_topic(
    command: Commands, box: PullMailbox, whom: list[str]
) -> None:
    result = command("send", *whom, '"hello"', "--priority", "HIGH")

    assert result.exit_code == 0, result.output
    found = [one.payload for one in box.take(2 if whom == ["--broadcast"] else 1, timeout=5)]
    assert found[0] == "hello"


def test_a_delayed_message_outlives_the_command(command: Commands, box: PullMailbox) -> None:
    sent = time.monotonic()

    result = command("send", "counter", '"later"', "--delay", "0.3")

    assert "in 0.3 s" in result.stdout
    assert payloads(box) == ["later"]
    assert time.monotonic() - sent >= 0.3


def test_a_priority_and_a_ttl_are_carried(command: Commands, box: PullMailbox) -> None:
    result = command("send", "box", '"soon"', "--priority", "urgent", "--ttl", "60", "--json")

    (message,) = box.take(1, timeout=5)
    assert json.loads(result.stdout) == {"accepted": True, "to": "agent", "name": "box"}
    assert message.priority is Priority.URGENT
    assert message.deadline is not None


def test_an_unknown_name_ends_with_1_and_says_who_may_be_meant(
    command: Commands, node: Node
) -> None:
    result = command("send", "conter", "1")

    assert result.exit_code == 1
    assert "Did you mean 'counter'? Running: counter." in result.stderr


def test_nobody_who_can_do_it_ends_with_1(command: Commands, node: Node) -> None:
    result = command("send", "--any", "sing", "1")

    assert result.exit_code == 1
    assert "count-words" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["send", "counter"],
        ["send", "counter", "no json"],
        ["send", "counter", "NaN"],
        ["send", "counter", "[" * 100_000],
        ["send", "counter", "@/no/such/file"],
        ["send", "counter", "1", "--any", "count-words"],
        ["send", "--any", "count-words", "--broadcast", "1"],
        ["send", "counter", "1", "--priority", "hihg"],
        ["send", "counter", "1", "--headers", "none"],
        ["send", "counter", "1", "--ttl", "0"],
        ["send", "counter", "1", "--delay", "-1"],
        ["send", "--topic", "news.eu", "1", "--delay", "1"],
        ["send", "--topic", "news.*", "1"],
        ["send", "*", "1"],
        ["send", "a\x1b[31m", "1"],
        ["send", "counter", "1", "--bus", "memory://"],
        ["ask", "counter"],
        ["ask", "counter", "no json"],
        ["ask", "counter", "1", "--timeout", "0"],
    ],
)
def test_what_cannot_be_meant_ends_with_2(
    command: Commands, node: Node, arguments: list[str]
) -> None:
    result = command(*arguments)

    assert result.exit_code == 2, result.output
    assert "Error" in result.stderr


# -- ask


def test_a_reply_is_printed_as_json(command: Commands, node: Node) -> None:
    result = command("ask", "counter", '{"body": "to be or not"}')

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"words": 4}


def test_a_reply_comes_with_what_it_took(command: Commands, node: Node) -> None:
    told = command.json("ask", "--any", "count-words", '{"body": "to be"}')

    assert told["reply"] == {"words": 2}
    assert 0 < told["seconds"] < 30


def test_everybody_who_can_do_it_answers(command: Commands, node: Node) -> None:
    good = command("ask", "--all", "count-words", '{"body": "to be"}')
    bad = command("ask", "--all", "count-words", '{"body": "bad"}')

    assert (good.exit_code, json.loads(good.stdout)) == (0, [{"words": 2}])
    assert bad.exit_code == 1
    (told,) = json.loads(bad.stdout)
    assert (told["error"], told["error_type"]) == ("AgentFailed", "ValueError")


def test_an_error_of_the_agent_is_shown_inert_and_ends_with_1(
    command: Commands, node: Node
) -> None:
    result = command("ask", "counter", '{"body": "bad"}')

    assert result.exit_code == 1
    assert result.stdout == ""
    assert "AgentFailed: agent 'counter' failed with ValueError: bad \\x1b[31mtext" in result.stderr
    assert "\x1b" not in result.output


def test_an_error_is_told_to_programs_with_its_type(command: Commands, node: Node) -> None:
    result = command("ask", "counter", '{"body": "bad"}', "--json")

    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (told["error"], told["error_type"]) == ("AgentFailed", "ValueError")
    assert "raise ValueError" in told["traceback"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["counter", "7"], "Rejected"),
        (["conter", "7"], "UnknownRecipient"),
        (["--any", "sing", "7"], "NoProvider"),
    ],
)
def test_who_gets_no_reply_hears_why(
    command: Commands, node: Node, arguments: list[str], error: str
) -> None:
    result = command("ask", *arguments)

    assert result.exit_code == 1
    assert f"{error}: " in result.stderr


def test_an_ask_that_nobody_answers_ends_in_time(
    command: Commands, node: Node, box: PullMailbox
) -> None:
    began = time.monotonic()

    result = command("ask", "box", "1", "--timeout", "0.2")

    assert result.exit_code == 1
    assert "AskTimeout: " in result.stderr
    assert time.monotonic() - began < 10


# -- both


@pytest.mark.parametrize("what", ["send", "ask"])
def test_a_server_that_is_not_there_ends_with_1_and_without_the_password(
    command: Commands, what: str
) -> None:
    result = command(what, "counter", "1", "--bus", ABSENT)

    assert result.exit_code == 1
    assert "redis://:***@127.0.0.1:1/0" in result.stderr
    assert "secret" not in result.output


def test_a_namespace_where_nobody_ever_was_is_said_so_and_left_as_it_is(
    command: Commands, redis_url: str
) -> None:
    result = command("ask", "counter", "1")

    with Redis.from_url(redis_url) as client:
        assert list(client.scan_iter(f"*{command.namespace}*")) == []
    assert result.exit_code == 1
    assert "no node has run there" in result.stderr


def test_a_command_is_in_no_list_of_nodes_and_leaves_nothing_that_stays(
    command: Commands, node: Node, redis_url: str
) -> None:
    seen: list[str] = []
    node.registry.watch(lambda change: seen.append(str(change)))
    command("ask", "counter", '{"body": "warm"}')

    with Redis.from_url(redis_url) as client:
        # The node itself tells how busy it is, in its own time.
        until(lambda: client.exists(f"{{{command.namespace}.reg}}:loads"))
        before = set(client.scan_iter(f"*{command.namespace}*"))
        for _ in range(3):
            command("ask", "counter", '{"body": "to be"}')
        nodes = command.json("nodes")

        def staying() -> list[bytes]:
            left = set(client.scan_iter(f"*{command.namespace}*")) - before
            return [key for key in left if client.ttl(key) < 0]

        # What was asked is acknowledged soon after it was answered.
        until(lambda: staying() == [])

    assert [one["name"] for one in nodes] == ["eu"]
    assert not [one for one in seen if "cli-" in one]


def test_over_plain_pubsub_one_can_send_and_ask_too(command: Commands, redis_url: str) -> None:
    from actorbus import Node, Settings
    from tests.cli.conftest import Counter

    bus = redis_url.replace("unix:", "unix+pubsub:").replace("redis:", "redis+pubsub:")
    settings = Settings(namespace=command.namespace, log_level="off")
    with Node(bus, name="live", settings=settings) as live:
        live.spawn(Counter, name="counter")

        told = command("ask", "counter", '{"body": "to be"}', "--bus", bus)
        sent = command("send", "counter", '{"body": "to be"}', "--bus", bus)
        later = command("send", "counter", '{"body": "to be"}', "--bus", bus, "--delay", "1")

    assert json.loads(told.stdout) == {"words": 2}
    assert sent.exit_code == 0, sent.output
    assert later.exit_code == 2, "a command that ends would lose it"
    assert "its sender keeps it" in later.output


def test_nodes_that_do_not_hear_each_other_do_not_see_each_other(
    command: Commands, node: Node, redis_url: str
) -> None:
    """One namespace, and one bus that keeps messages beside one that does not."""
    from actorbus import Node, Settings
    from tests.cli.conftest import Counter

    bus = redis_url.replace("unix:", "unix+pubsub:").replace("redis:", "redis+pubsub:")
    settings = Settings(namespace=command.namespace, log_level="off")
    with Node(bus, name="live", settings=settings) as live:
        live.spawn(Counter, name="counter")

        seen = [command.json("nodes", "--bus", url) for url in (redis_url, bus)]
        owners = [command.json("agents", "--bus", url) for url in (redis_url, bus)]
        said = [
            command("ask", "counter", '{"body": "a"}', "--bus", url) for url in (redis_url, bus)
        ]

    assert [[one["name"] for one in nodes] for nodes in seen] == [["eu"], ["live"]]
    assert [[one["node"] for one in agents] for agents in owners] == [["eu"], ["live"]]
    assert [one.exit_code for one in said] == [0, 0]
