"""What holds for the store in Redis beyond the contract, on a fake server and on a real one."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from actorbus.bus.transports.redis.log import InboxLog
from actorbus.codec import Codec, TypeBook
from actorbus.context.store import Commit, Delete, Increment, Set
from actorbus.context.stores.redis import Fence, RedisStore
from actorbus.errors import (
    InvalidOperation,
    PayloadTooLarge,
    StaleOwner,
    TransportUnavailable,
    Undecodable,
    UnsupportedPayload,
)
from actorbus.testing.store_contract import contents, put, revision_of, value_of, write

from .conftest import LIMIT, OpenStore

if TYPE_CHECKING:
    from actorbus.redis_client import RedisServer

HOSTILE = [
    "{other}", "a}b{c", "plan:keys", "*", "a b", "\u202e", "é", "e\u0301", "__class__", "%7B",
    "'; DROP", "../..", "n" * 128, "-", "=",
]  # fmt: skip


@dataclass
class Plan:
    steps: int


def eventually(holds: Any, within: float = 20.0) -> bool:
    give_up = time.monotonic() + within
    while not holds():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.01)
    return True


def test_stores_of_one_deployment_see_the_same(open_store: OpenStore, deployment: str) -> None:
    ours, theirs = open_store(), open_store()

    put(ours, "k", {"a": [1, b"\x00\xff", None]})

    assert value_of(theirs, "k") == {"a": [1, b"\x00\xff", None]}
    assert put(theirs, "k", "b").version == 2


def test_deployments_on_one_server_are_apart(open_store: OpenStore, deployment: str) -> None:
    ours, other = open_store(), open_store(namespace="other{}" * 3)
    put(ours, "k", "a")

    assert other.read("global", "k", None) is None


def test_a_class_is_rebuilt_where_it_is_known_and_never_imported(
    open_store: OpenStore, server: RedisServer, deployment: str
) -> None:
    ours = open_store(namespace=deployment)
    knows = TypeBook()
    knows.add(Plan)
    theirs = RedisStore(server, Codec(knows, limit=LIMIT), namespace=deployment)
    put(ours, "k", Plan(3))

    assert value_of(theirs, "k") == Plan(3)
    assert value_of(open_store(namespace=deployment), "k") == {"steps": 3}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_reaches_beyond_itself(open_store: OpenStore, name: str) -> None:
    store = open_store()
    put(store, "plain", "theirs", namespace="plan")

    put(store, name, "ours", namespace=name)
    put(store, name, "private", namespace=f"agent/{name}", author=name)

    assert value_of(store, name, namespace=name) == "ours"
    assert value_of(store, name, namespace=f"agent/{name}", principal=name) == "private"
    assert [one.key for one in store.scan(name, "", None)] == [name]
    assert [one.key for one in store.scan("plan", "", None)] == ["plain"]


def test_all_that_is_private_to_an_agent_is_where_its_inbox_is(
    server: RedisServer, deployment: str
) -> None:
    store = RedisStore(
        server, Codec(TypeBook(), limit=LIMIT), namespace=deployment + "{}", partitions=64
    )
    log = InboxLog(server, namespace=deployment + "{}", partitions=64)
    store.commit("agent/editor", Commit("editor", (Set("k", 1, ttl=60), Set("l", 2))))
    store.grant("agent/editor", "reader", "read", "editor")

    keys = [key.decode() for key in server.client.scan_iter(f"{{{deployment}*", count=10_000)]
    store.close()

    assert len(keys) > 6
    assert {key.partition(":")[0] for key in keys} == {log.tag("editor")}


def test_a_value_may_be_as_large_as_the_limit_and_no_larger(open_store: OpenStore) -> None:
    store = open_store()
    fits = b"x" * (LIMIT - 16)

    put(store, "k", fits)
    with pytest.raises(PayloadTooLarge):
        write(store, Set("other", 1), Set("k", b"x" * LIMIT))
    with pytest.raises(UnsupportedPayload):
        put(store, "k", object())

    assert contents(store) == {"k": fits}


def test_what_does_not_fit_into_one_answer_is_read_whole(open_store: OpenStore) -> None:
    store = open_store()
    for number in range(6):
        write(store, Set("k", bytes([number]) * 400_000), Set(f"n{number}", b"x" * 400_000))

    history = store.history("global", "k", None)
    news = store.changes("global", "k", 0, 100, None)

    assert [one.value[0] for one in history] == [0, 1, 2, 3, 4, 5]
    assert [one.version for one in news.changes] == [1, 2, 3, 4, 5, 6]
    assert list(contents(store)) == ["k", *(f"n{number}" for number in range(6))]


def test_a_commit_that_would_hold_up_everybody_is_refused(open_store: OpenStore) -> None:
    store = open_store()

    with pytest.raises(InvalidOperation, match="1,001 operations; at most 1,000"):
        write(store, *(Set(f"k{number}", 1) for number in range(1_001)))
    with pytest.raises(InvalidOperation, match=r"at most 16,777,216 fit into one"):
        write(store, *(Set(f"k{number}", b"x" * 1_000_000) for number in range(17)))

    assert revision_of(store) == 0


def test_a_thousand_operations_are_one_commit(open_store: OpenStore) -> None:
    store = open_store(log=1)

    changes = write(store, *(Set(f"k{number:04}", number) for number in range(1_000)))

    assert len(changes) == 1_000
    assert contents(store) == {f"k{number:04}": number for number in range(1_000)}
    assert store.changes("global", "", 0, 1_000, None).changes == changes


def test_the_log_holds_no_more_bytes_than_it_may(open_store: OpenStore) -> None:
    store = open_store(log_bytes=10_000)
    for _ in range(20):
        put(store, "k", b"x" * 1_000)

    assert not store.changes("global", "", 5, 100, None).complete
    assert len(store.changes("global", "", 12, 100, None).changes) == 8


@pytest.mark.parametrize(
    ("start", "by", "total"),
    [
        (2**53 - 2, 1, 2**53 - 1),
        (2**53 - 1, 2, 2**53 + 1),
        (2**53 - 1, 0.5, 2**53 - 0.5),
        (-(2**53) + 1, -2, -(2**53) - 1),
        (2**70, 1, 2**70 + 1),
        (0, 10**400, 10**400),
        (0.1, 0.2, 0.1 + 0.2),
        (1e308, 1e308, float("inf")),
        (True, 1, None),
    ],
)
def test_sums_are_those_of_python(
    open_store: OpenStore, start: Any, by: float, total: float | None
) -> None:
    store = open_store()
    put(store, "n", start)

    if total is None:
        with pytest.raises(InvalidOperation, match="holds a bool"):
            write(store, Increment("n", by))
        return
    [change] = write(store, Increment("n", by))

    assert (change.value, type(change.value)) == (total, type(total))
    assert value_of(store, "n") == total


def test_sums_that_no_script_can_make_are_not_lost_either(open_store: OpenStore) -> None:
    store = open_store()

    def work() -> None:
        for _ in range(20):
            write(store, Increment("n", 2**60), Increment("small", 1))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert contents(store) == {"n": 80 * 2**60, "small": 80}


def test_scripts_that_the_server_forgot_are_loaded_again(
    open_store: OpenStore, server: RedisServer
) -> None:
    store = open_store()
    put(store, "k", "a")

    server.client.script_flush()

    assert put(store, "k", "b").version == 2


def test_bytes_that_nobody_can_read_are_said_to_be_so(
    open_store: OpenStore, server: RedisServer, deployment: str
) -> None:
    store = open_store(namespace=deployment)
    put(store, "k", "a")
    server.client.hset(f"{{{deployment}.p0}}:x:global:past", "1:k", b"1 1000000 m -\n\xc1")
    server.client.xadd(f"{{{deployment}.p0}}:x:global:log", {"k": b"2 1000000 m -\n\xc1"}, id="2-0")
    server.client.hset(f"{{{deployment}.p0}}:x:global:meta", "revision", 2)

    with pytest.raises(Undecodable):
        store.read("global", "k", None)
    news = store.changes("global", "", 0, 10, None)

    assert (news.changes, news.complete, news.revision) == ((), False, 2)


def test_a_log_that_lost_its_tail_says_so(
    open_store: OpenStore, server: RedisServer, deployment: str
) -> None:
    store = open_store(namespace=deployment)
    for number in range(5):
        put(store, "k", number)
    server.client.delete(*server.client.scan_iter(f"{{{deployment}.*", count=10_000))
    put(store, "k", "anew")

    news = store.changes("global", "", 5, 10, None)

    assert (news.complete, news.revision) == (False, 1)


class TestFences:
    def test_who_owns_the_agent_writes_and_who_did_once_does_not(
        self, server: RedisServer, deployment: str
    ) -> None:
        log = InboxLog(server, namespace=deployment)
        mine = log.acquire("editor", "node-1", ttl=10)

        def fence(agent: str) -> Fence | None:
            if agent != "editor":
                return None
            return Fence(f"{log.tag(agent)}:a:{agent}", mine.token)

        store = RedisStore(
            server, Codec(TypeBook(), limit=LIMIT), namespace=deployment, fence=fence
        )
        put(store, "k", "a", namespace="agent/editor", author="editor")
        log.hand_off(mine, "node-2")

        with pytest.raises(StaleOwner):
            put(store, "k", "b", namespace="agent/editor", author="editor")
        with pytest.raises(StaleOwner):
            put(store, "k", "b", namespace="agent/other", author="other")
        put(store, "shared", "b", author="editor")

        assert value_of(store, "k", namespace="agent/editor", principal="editor") == "a"


class TestExpiry:
    def test_what_nobody_looks_at_goes_all_the_same(
        self, open_store: OpenStore, server: RedisServer, deployment: str
    ) -> None:
        store = open_store(namespace=deployment)
        put(store, "k", "a", ttl=0.05, namespace="abandoned")

        gone = eventually(
            lambda: not server.client.exists(f"{{{deployment}.p0}}:x:abandoned:names")
        )

        assert gone
        assert server.client.zcard(f"{{{deployment}.p0}}:x-due") == 0

    def test_more_than_one_call_may_do_expires_all_the_same(self, open_store: OpenStore) -> None:
        store = open_store()
        write(store, *(Set(f"k{number}", 1, ttl=0.001) for number in range(900)))

        assert eventually(lambda: store.scan("global", "", None) == ())
        assert revision_of(store) == 1_800


class TestListening:
    def test_other_programs_ring(self, open_store: OpenStore) -> None:
        ours, theirs = open_store(), open_store()
        rang = threading.Event()
        listening = ours.listen("global", rang.set, None)

        put(theirs, "k", "a")

        assert rang.wait(20)
        listening.stop()
        listening.stop()

    def test_a_key_that_expires_rings(self, open_store: OpenStore) -> None:
        store = open_store()
        put(store, "k", "a", ttl=0.3)
        rang = threading.Event()
        store.listen("global", rang.set, None)

        assert rang.wait(20)
        assert store.read("global", "k", None) is None

    def test_a_bell_that_was_lost_is_found_by_the_sweep(
        self, open_store: OpenStore, server: RedisServer, deployment: str
    ) -> None:
        store = open_store(namespace=deployment)
        rang = threading.Event()
        store.listen("global", rang.set, None)
        rang.clear()

        server.client.hset(f"{{{deployment}.p0}}:x:global:meta", "revision", 1)

        assert rang.wait(20)

    def test_nobody_listens_nothing_runs(self, open_store: OpenStore) -> None:
        before = threading.active_count()
        store = open_store()

        put(store, "k", "a")

        assert threading.active_count() == before
        store.close()
        store.close()

    def test_a_store_that_is_closed_lets_nobody_listen(self, open_store: OpenStore) -> None:
        store = open_store()
        store.listen("global", lambda: None, None)
        store.close()

        with pytest.raises(TransportUnavailable, match="closed"):
            store.listen("global", lambda: None, None)
        assert not [one for one in threading.enumerate() if one.name == "actorbus-context"]


def test_what_is_gone_leaves_a_number_and_no_more(
    open_store: OpenStore, server: RedisServer, deployment: str
) -> None:
    store = open_store(namespace=deployment, log=3, history=2)
    for number in range(10):
        put(store, f"k{number}", b"x" * 1_000, ttl=60)
        write(store, Delete(f"k{number}"))
    for _ in range(5):
        put(store, "other", 1)

    base = f"{{{deployment}.p0}}:x:global"
    assert server.client.hlen(f"{base}:keys") == 11
    assert server.client.hlen(f"{base}:past") == 2
    assert server.client.zcard(f"{base}:due") == 0
    assert server.client.xlen(f"{base}:log") == 3
