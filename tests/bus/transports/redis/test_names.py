"""Fault 21: names that want to be somebody else's keys, slots or commands, or to break a script."""

from __future__ import annotations

import re
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from actorbus.bus.transports.redis.loads import Outgoing
from actorbus.bus.transports.redis.log import InboxLog, Letter
from actorbus.bus.transports.redis.ownership import START, Cursor
from actorbus.errors import InvalidName
from actorbus.message import Priority, check_name
from actorbus.redis_client import decoded, encoded

if TYPE_CHECKING:
    from actorbus.redis_client import RedisServer

TTL: Final = 10.0
NORMAL: Final = int(Priority.NORMAL)

NAMES: Final = [
    "{", "}", "{}", "{p0}", "}{", "{{p1}}", "a}", "{a", ":", "a:b", "a:i:b:2", ":a:", "-", "~",
    "%", "%7B", "%25", "%%", "*", "?", "[a-z]", "h*llo", "\\", "\\x00", "..", ".", "a/../b",
    "/etc/passwd", "'", '"', "' OR 1=1 --", "; FLUSHALL", "$-1", "EVAL", "0", "00", "-1", "1e9",
    "nan", "nil", "true", "__class__", "__init__", "{0.__class__}", "%s%n", "${jndi:x}", "<b>",
    "a b", "a  b", "a\u00a0b", "e\u0301", "\u00e9", "\u0435", "e", "\u202etxt", "\u200b",
    "\ufeff", "K", "\u212a", "\U0001f600", "\uffff", "p0", "p:q", "node", "tok", "depth", "due",
    "dlq", "own", "rdy:-", "x" * 128, "\u00e9" * 64,
]  # fmt: skip
RAW: Final = ["", " ", "\n", "\r\n", "a\r\nSET k v\r\n", "\x00", "a\x00b", "\x1b[31m", "y" * 10_000]
"""Names that no agent can have, and that the keys stand all the same."""


class TestParts:
    @given(st.text(), st.text())
    @settings(max_examples=300, deadline=None)
    @example("%7B", "{")
    @example("\u00e9", "e\u0301")
    def test_no_two_names_are_one_part_of_a_key(self, one: str, other: str) -> None:
        assert decoded(encoded(one)) == one
        assert (encoded(one) == encoded(other)) == (one == other)

    @given(st.text())
    @settings(max_examples=300, deadline=None)
    @example("}{x}")
    def test_none_leaves_its_part_or_chooses_its_slot(self, name: str) -> None:
        part = encoded(name)

        assert re.fullmatch(r"[A-Za-z0-9._~%-]*", part)
        tag = f"{{{encoded('bus')}.p3}}"
        assert key_slot(f"{tag}:a:{part}".encode()) == key_slot(tag.encode())

    @pytest.mark.parametrize("name", [*NAMES, *RAW])
    def test_nor_does_a_namespace(self, name: str) -> None:
        log = InboxLog(_nowhere(), namespace=name, partitions=64)

        slots = {key_slot(f"{tag}:a:{encoded(name)}".encode()) for tag in log.tags}

        assert slots == {key_slot(tag[1:-1].encode()) for tag in log.tags}
        assert len(set(log.tags)) == 64

    @pytest.mark.parametrize("name", RAW)
    def test_what_no_agent_can_be_called_is_refused_before_it_gets_here(self, name: str) -> None:
        with pytest.raises(InvalidName):
            check_name("an agent", name)


class TestInboxes:
    def test_each_gets_its_own_and_nothing_else(self, log: InboxLog, server: RedisServer) -> None:
        names = [*NAMES, *RAW]
        owners = {name: log.acquire(name, f"node {name}~00ff", ttl=TTL) for name in names}

        sent = log.send("p {x}", [_message(name, 1) for name in names])
        sent += log.send("p:q", [_message(name, 1, level=0) for name in names])

        assert {one.taken.value for one in sent} == {"OK"}
        for name, owner in owners.items():
            items = log.fetch(owner, START).items
            assert [item.blob for item in items] == [name.encode("utf-8", "replace")] * 2
        assert _slots(server, log) == {key_slot(log.tags[0].encode())}

    def test_each_owner_has_its_own_agents(self, log: InboxLog) -> None:
        for name in [*NAMES, *RAW]:
            log.acquire(f"of {name}", f"{name}~00ff", ttl=TTL)

        for name in [*NAMES, *RAW]:
            assert log.owned(f"{name}~00ff") == [f"of {name}"]

    def test_ending_one_ends_no_other(self, log: InboxLog) -> None:
        names = [*NAMES, *RAW]
        owners = {name: log.acquire(name, "n1", ttl=TTL) for name in names}
        log.send("p", [_message(name, 1) for name in names])

        for name in names[::2]:
            log.drop(owners[name], "stopped")

        assert [log.depth(name) for name in names] == [number % 2 for number in range(len(names))]
        assert {letter["agent"] for letter in log.letters()} == set(names[::2])

    def test_a_dead_letter_keeps_its_name_and_its_reason(self, log: InboxLog) -> None:
        for name in [*NAMES, *RAW]:
            owner = log.acquire(name, "n1", ttl=TTL)
            log.send("p", [_message(name, 1)])
            [item] = log.fetch(owner, START).items
            done = list(START)
            done[item.level] = Cursor(item.position + 1, item.id)
            letter = Letter(item.level, item.position, "refused", 1, f"because of {name}")
            a, b, c, d = done
            log.acknowledge(owner, (a, b, c, d), [letter])

            [newest, *_] = log.letters(limit=1)
            assert (newest["agent"], newest["error"]) == (name, f"because of {name}")

    @pytest.mark.parametrize("blob", [b"", b" 2 0 x", b"a 1 0 \xff\n", b"\r\n", b"0" * 30, b"{x}"])
    def test_what_was_delayed_comes_out_as_it_went_in(self, log: InboxLog, blob: bytes) -> None:
        owners = {name: log.acquire(name, "n1", ttl=TTL) for name in [*NAMES, *RAW] if name}
        delayed = [Outgoing(name, 1, NORMAL, uuid4().bytes, blob, delay=0.001) for name in owners]
        log.send("p", delayed)

        _all_due(log)

        for outgoing in delayed:
            [item] = log.fetch(owners[outgoing.agent], START).items
            assert (item.id, item.blob) == (outgoing.id, blob)

    def test_one_deployment_sees_nothing_of_another(self, server: RedisServer) -> None:
        run = uuid4().hex
        spaces = [f"{run}{name}" for name in ("", "{}", "}", ".p0", ".p0}", "*", "?", ":a:x")]
        logs = [InboxLog(server, namespace=space) for space in spaces]

        for log in logs:
            log.send("p", [_message("x", 1)], create=True)

        for one, other in combinations(logs, 2):
            assert one.tags != other.tags
        assert [log.depth("x") for log in logs] == [1] * len(logs)


def _message(name: str, sequence: int, *, level: int = NORMAL) -> Outgoing:
    return Outgoing(name, sequence, level, uuid4().bytes, name.encode("utf-8", "replace"))


def _all_due(log: InboxLog) -> None:
    """Until nothing is delayed any more."""
    for _ in range(10_000):
        _, wait = log.tick()
        if wait is None:
            return
    pytest.fail("something stays delayed")


def _slots(server: RedisServer, log: InboxLog) -> set[int]:
    """The slots of all keys that a deployment has."""
    start = log.tags[0].partition(".p")[0]
    keys: list[Any] = list(server.client.scan_iter(count=1_000))
    return {key_slot(key) for key in keys if key.startswith(start.encode())}


def _nowhere() -> Any:
    return None
