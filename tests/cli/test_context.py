"""``actorbus context``."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from typer.testing import Result

    from actorbus import Node
    from tests.cli.conftest import Commands


def test_a_key_that_is_set_is_what_nodes_and_commands_read(command: Commands, node: Node) -> None:
    first = command.json("context", "set", "plan", "todo", '{"left": [1, 2]}')
    second = command("context", "set", "plan", "todo", "-", stdin="7")

    assert first == {"key": "todo", "version": 1}
    assert second.stdout == "todo is version 2 now.\n"
    assert node.context.namespace("plan").get("todo") == 7
    assert command("context", "get", "plan", "todo").stdout == "7\n"
    told = command.json("context", "get", "plan", "todo")
    assert (told["value"], told["version"], told["author"]) == (7, 2, None)


def test_what_a_node_set_is_listed_with_its_versions(command: Commands, node: Node) -> None:
    plan = node.context.namespace("plan")
    plan.set("todo", "a\x1b[31m")
    plan.set("todo", "b")
    plan.set("done", "c")
    plan.delete("todo")

    assert command.json("context", "keys", "plan") == ["done"]
    assert command.json("context", "keys", "plan", "t") == []
    told = command.json("context", "history", "plan", "todo")
    assert [(one["version"], one["value"], one["deleted"]) for one in told] == [
        (1, "a\x1b[31m", False),
        (2, "b", False),
        (3, None, True),
    ]
    page = command("context", "history", "plan", "todo")
    assert "deleted" in page.stdout
    assert "\x1b" not in page.output


def test_a_key_is_deleted_once(command: Commands, node: Node) -> None:
    node.context.namespace("plan").set("todo", 1)

    assert command.json("context", "delete", "plan", "todo")["deleted"] is True
    assert command.json("context", "delete", "plan", "todo")["deleted"] is False


def test_a_key_is_set_only_at_the_version_that_is_meant(command: Commands, node: Node) -> None:
    made = command("context", "set", "plan", "todo", "1", "--if-version", "0")
    late = command("context", "set", "plan", "todo", "2", "--if-version", "0")

    assert (made.exit_code, late.exit_code) == (0, 1)
    assert "version" in late.stderr
    assert node.context.namespace("plan").get("todo") == 1


def test_a_private_namespace_is_read_as_its_agent_alone(command: Commands, node: Node) -> None:
    node.context.namespace("agent/counter").bound_to("counter").set("total", 3)

    outside = command("context", "get", "agent/counter", "total")
    as_agent = command("context", "get", "agent/counter", "total", "--agent", "counter")

    assert outside.exit_code == 1
    assert (as_agent.exit_code, as_agent.stdout) == (0, "3\n")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["get", "plan", "nothing"], 1),
        (["history", "plan", "nothing"], 1),
        (["get", "", "key"], 2),
        (["set", "plan", "todo", "no json"], 2),
        (["set", "plan", "todo", "1", "--ttl", "-1"], 2),
        (["set", "plan", "todo", "1", "--if-version", "-1"], 2),
        (["keys", "plan", "--bus", "memory://"], 2),
        (["keys", "plan", "--bus", "redis://:secret@127.0.0.1:1/0"], 1),
    ],
)
def test_what_cannot_be_done_ends_with_1_and_what_cannot_be_meant_with_2(
    command: Commands, node: Node, arguments: list[str], code: int
) -> None:
    result = command("context", *arguments)

    assert result.exit_code == code, result.output
    assert "secret" not in result.output


def test_changes_are_shown_as_they_come(command: Commands, node: Node) -> None:
    plan = node.context.namespace("plan")
    ended: list[Result] = []
    watching = threading.Thread(
        target=lambda: ended.append(command("context", "watch", "plan", "to", "-n", "2", "--json"))
    )
    watching.start()

    number = 0
    give_up = time.monotonic() + 20
    while watching.is_alive() and time.monotonic() < give_up:
        number += 1
        plan.set("todo", number)
        plan.set("other", number)
        watching.join(0.05)

    (result,) = ended
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0, result.output
    assert [one["key"] for one in told] == ["todo", "todo"]
    assert told[1]["value"] == told[0]["value"] + 1
