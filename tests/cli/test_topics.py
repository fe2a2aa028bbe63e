"""``actorbus topics``."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import pytest

from actorbus import where

if TYPE_CHECKING:
    from typer.testing import Result

    from actorbus import Node
    from tests.cli.conftest import Commands


def test_who_subscribed_to_what_is_listed_those_of_classes_too(
    command: Commands, node: Node
) -> None:
    node.ref("counter").subscribe("orders.>", where={"total": where.gt(100)})

    told = command.json("topics")

    assert [(one["pattern"], one["agent"]) for one in told["subscriptions"]] == [
        ("news.>", "counter"),
        ("orders.>", "counter"),
    ]
    assert told["subscriptions"][0]["where"] is None
    assert told["subscriptions"][1]["where"] == {"total": ["gt", 100]}


def test_what_the_log_holds_is_counted_by_topic(command: Commands, node: Node) -> None:
    for topic in ("prices.eur", "prices.nok", "prices.eur"):
        node.topic(topic).publish({"price": 1})
    node.flush(5)

    told = command.json("topics")["log"]
    page = command("topics")

    assert (told["published"], told["looked_at"]) == (3, 3)
    assert told["topics"] == {"prices.eur": 2, "prices.nok": 1}
    assert page.exit_code == 0
    for word in ("news.>", "counter", "prices.eur", "3 events"):
        assert word in page.stdout


def test_a_log_without_events_is_no_failure(command: Commands, node: Node) -> None:
    result = command("topics")

    assert result.exit_code == 0
    assert "the log holds none" in result.stdout


@pytest.mark.parametrize("as_json", [True, False])
def test_events_are_shown_as_they_come(command: Commands, node: Node, *, as_json: bool) -> None:
    ended: list[Result] = []
    options = ["topics", "--follow", "prices.*", "-n", "2", *(["--json"] if as_json else [])]
    following = threading.Thread(target=lambda: ended.append(command(*options)))
    following.start()

    give_up = time.monotonic() + 20
    while following.is_alive() and time.monotonic() < give_up:
        node.topic("orders.new").publish({"no": 1})
        node.topic("prices.eur").publish({"text": "a\x1b[31m"})
        following.join(0.05)

    (result,) = ended
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    if as_json:
        told = [json.loads(line) for line in lines]
        assert [one["topic"] for one in told] == ["prices.eur"] * 2
        assert told[0]["payload"] == {"text": "a\x1b[31m"}
        assert told[0]["id"] < told[1]["id"]
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--follow", "a..b"], 2),
        (["--bus", "memory://"], 2),
        (["--bus", "redis+pubsub://127.0.0.1:1"], 2),
        (["--bus", "redis://:secret@127.0.0.1:1/0"], 1),
        (["--namespace", "nobody-ever-was-here"], 1),
    ],
)
def test_what_cannot_be_done_ends_with_1_and_what_cannot_be_meant_with_2(
    command: Commands, node: Node, arguments: list[str], code: int
) -> None:
    result = command("topics", *arguments)

    assert result.exit_code == code, result.output
    assert "Error: " in result.stderr
    assert "secret" not in result.output
