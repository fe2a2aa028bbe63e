"""``actorbus dead-letters``."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from actorbus import Agent, handles
from actorbus.bus.transports.redis.dead_letters import DeploymentLetters
from actorbus.bus.transports.redis.log import InboxLog
from actorbus.codec import Codec, TypeBook
from actorbus.errors import UnknownMessage
from actorbus.message import parse_id
from actorbus.redis_client import RedisServer
from tests.cli.conftest import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actorbus import Node
    from tests.cli.conftest import Commands


class Fussy(Agent):
    """Fails until it is told not to."""

    failing = True

    @handles
    def read(self, text: Text) -> None:
        if Fussy.failing:
            raise ValueError(f"bad \x1b[31m{text.body}")
        self.tell("box", text.body)


@pytest.fixture
def fussy(node: Node) -> Iterator[type[Fussy]]:
    node.spawn(Fussy, name="fussy")
    Fussy.failing = True
    yield Fussy
    Fussy.failing = True


def kept(command: Commands, count: int) -> list[dict[str, Any]]:
    """The dead letters, once there are so many."""
    give_up = time.monotonic() + 5
    while True:
        found: list[dict[str, Any]] = command.json("dead-letters", "list")
        if len(found) == count or time.monotonic() > give_up:
            assert len(found) == count
            return found


@pytest.fixture
def letters(command: Commands, node: Node, fussy: type[Fussy]) -> list[dict[str, Any]]:
    """Two of `fussy`'s and one that `counter` refused, newest first."""
    for body in ("one", "two"):
        node.tell("fussy", Text(body=body))
        node.drain(5)
    node.tell("counter", 7)
    node.drain(5)
    return kept(command, 3)


def until_nobody_has_the_name(node: Node, name: str) -> None:
    """The server is told on a thread of the node's own."""
    transport: Any = node.bus.transport
    give_up = time.monotonic() + 10
    while transport.log.known([name]) != [None]:
        assert time.monotonic() < give_up
        time.sleep(0.005)


def test_dead_letters_are_listed_newest_first(
    command: Commands, letters: list[dict[str, Any]]
) -> None:
    table = command("dead-letters")

    assert [one["agent"] for one in letters] == ["counter", "fussy", "fussy"]
    assert [one["reason"] for one in letters] == ["rejected", "handler-error", "handler-error"]
    assert table.exit_code == 0
    for word in ("fussy", "rejected", "ValueError: bad \\x1b[31mtwo", letters[2]["id"]):
        assert word in table.stdout
    assert "\x1b" not in table.output


@pytest.mark.parametrize(
    ("body", "row"),
    [
        ("first\nsecond", "ValueError: bad \\x1b[31mfirst"),
        ("x" * 100_000, f"ValueError: bad \\x1b[31m{'x' * 179}…"),
        ("\n".join("lines" * 1_000), "ValueError: bad \\x1b[31ml"),
    ],
)
def test_a_list_says_what_was_raised_in_a_short_line(
    command: Commands, node: Node, fussy: type[Fussy], body: str, row: str
) -> None:
    node.tell("fussy", Text(body=body))
    node.drain(5)

    (letter,) = kept(command, 1)
    (_, line) = command("dead-letters", "list", COLUMNS="2000").stdout.splitlines()

    assert line.rstrip().endswith(row)
    assert len(letter["error"]) <= 4_096
    assert "raise ValueError" in letter["error"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--reason", "rejected"], ["counter"]),
        (["--reason", "expired"], []),
        (["--agent", "fussy"], ["fussy", "fussy"]),
        (["--agent", "fussy", "--limit", "1"], ["fussy"]),
    ],
)
def test_dead_letters_can_be_filtered(
    command: Commands, letters: list[dict[str, Any]], options: list[str], found: list[str]
) -> None:
    told = command.json("dead-letters", "list", *options)

    assert [one["agent"] for one in told] == found


def test_a_letter_is_shown_with_its_payload_and_its_traceback(
    command: Commands, letters: list[dict[str, Any]]
) -> None:
    told = command.json("dead-letters", "show", letters[2]["id"])
    page = command("dead-letters", "show", letters[2]["id"])

    assert (told["payload"], told["type"], told["kind"]) == ({"body": "one"}, "Text", "tell")
    assert "raise ValueError" in told["error"]
    assert "raise ValueError" in page.stdout
    assert "\x1b" not in page.output


def test_a_letter_that_is_sent_again_is_handled_as_its_class_under_a_new_id(
    command: Commands, node: Node, fussy: type[Fussy], letters: list[dict[str, Any]]
) -> None:
    box = node.mailbox("box")
    fussy.failing = False

    told = command.json("dead-letters", "requeue", letters[2]["id"])

    (message,) = box.take(1, timeout=5)
    (done,) = told["requeued"]
    assert message.payload == "one"
    assert message.causation_id == parse_id(done["new_id"])
    assert done["id"] == letters[2]["id"] != done["new_id"]
    assert letters[2]["id"] not in [one["id"] for one in kept(command, 2)]


def test_all_that_the_options_leave_is_sent_again_in_the_order_it_was_given_up(
    command: Commands, node: Node, fussy: type[Fussy], letters: list[dict[str, Any]]
) -> None:
    box = node.mailbox("box")
    fussy.failing = False

    told = command.json("dead-letters", "requeue", "--all", "--agent", "fussy")

    found: list[Any] = []
    give_up = time.monotonic() + 10
    while len(found) < 2 and time.monotonic() < give_up:
        found += [one.payload for one in box.take(2, timeout=5)]
    assert found == ["one", "two"]
    assert len(told["requeued"]) == 2
    assert [one["agent"] for one in kept(command, 1)] == ["counter"]


def test_what_cannot_be_sent_again_is_kept_and_ends_with_1(
    command: Commands, node: Node, letters: list[dict[str, Any]]
) -> None:
    node.ref("fussy").stop()
    until_nobody_has_the_name(node, "fussy")

    result = command("dead-letters", "requeue", "--all", "--agent", "fussy", "--json")

    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [one["error"] for one in told["failed"]] == ["UnknownRecipient"] * 2
    assert "is kept" in result.stderr
    kept(command, 3)


def test_letters_are_discarded(command: Commands, letters: list[dict[str, Any]]) -> None:
    one = command.json("dead-letters", "discard", letters[0]["id"])
    rest = command.json("dead-letters", "discard", "--all")
    none = command("dead-letters")

    assert (one, rest) == ({"discarded": 1}, {"discarded": 2})
    assert (none.exit_code, none.stderr) == (0, "No dead letters.\n")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["show", "01a1fe1a-9326-78fa-81b4-36c994000000"], 1),
        (["requeue", "01a1fe1a-9326-78fa-81b4-36c994000000"], 1),
        (["show", "no id"], 2),
        (["requeue"], 2),
        (["discard"], 2),
        (["discard", "--all", "01a1fe1a-9326-78fa-81b4-36c994000000"], 2),
        (["list", "--reason", "sleepy"], 2),
        (["list", "--limit", "0"], 2),
        (["list", "--bus", "memory://"], 2),
        (["list", "--bus", "redis+pubsub://127.0.0.1:1"], 2),
        (["list", "--bus", "redis://:secret@127.0.0.1:1/0"], 1),
    ],
)
def test_what_cannot_be_done_ends_with_1_and_what_cannot_be_meant_with_2(
    command: Commands, node: Node, arguments: list[str], code: int
) -> None:
    result = command("dead-letters", *arguments)

    assert result.exit_code == code, result.output
    assert "Error: " in result.stderr
    assert "secret" not in result.output


# -- the letters themselves


@pytest.fixture
def stored(redis_url: str, command: Commands) -> Iterator[DeploymentLetters]:
    server = RedisServer(redis_url)
    log = InboxLog(server, namespace=command.namespace)
    yield DeploymentLetters(server, log, Codec(TypeBook(), limit=1 << 20))
    server.close()


def test_a_letter_is_sent_once_by_whoever_comes_twice_or_late(
    stored: DeploymentLetters, node: Node, fussy: type[Fussy], letters: list[dict[str, Any]]
) -> None:
    box = node.mailbox("box")
    fussy.failing = False
    letter = stored.get(parse_id(letters[2]["id"]))

    first = stored.requeue(letter)
    second = stored.requeue(letter)

    assert first == second
    assert [one.payload for one in box.take(2, timeout=5)] == ["one"]
    assert box.take(1, timeout=0.1) == []


def test_a_letter_that_was_discarded_is_sent_by_nobody(
    stored: DeploymentLetters, letters: list[dict[str, Any]]
) -> None:
    letter = stored.get(parse_id(letters[2]["id"]))
    assert (stored.discard([letter]), stored.discard([letter])) == (1, 0)

    with pytest.raises(UnknownMessage):
        stored.requeue(letter)


def test_letters_of_many_pages_are_found(stored: DeploymentLetters, redis_url: str) -> None:
    server = RedisServer(redis_url)
    tag = stored._tags[0]
    ids = [uuid4().int for _ in range(1_203)]
    with server.client.pipeline(transaction=False) as pipeline:
        for one in ids:
            item = b"0" * 14 + one.to_bytes(16, "big") + b"\x01no message"
            pipeline.xadd(
                f"{tag}:dlq",
                {"agent": "a", "level": 2, "reason": "expired", "attempts": 0, "error": "",
                 "owner": "", "item": item},
            )  # fmt: skip
        pipeline.execute()
    server.close()

    found = [one.id for one in stored.list(limit=5_000)]

    assert found == ids[::-1]
    assert stored.get(parse_id(ids[0])).id == ids[0]
    assert stored.discard(stored.list(limit=5_000)) == len(ids)
