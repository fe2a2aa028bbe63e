"""Against a real cluster of three masters."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from redis import Redis
from redis.cluster import ClusterNode

from actorbus.errors import TransportUnavailable
from actorbus.redis_client import RedisServer, Script, run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.conftest import Cluster, RedisProcess

ADD = Script("redis.call('INCRBY', KEYS[1], ARGV[1]) return {KEYS[1], redis.call('GET', KEYS[1])}")
NOBODY: Any = ClusterNode("127.0.0.1", 1, "primary")  # type: ignore[no-untyped-call]
FAIL = Script("return redis.error_reply('no such luck')")


@pytest.fixture
def server(redis_cluster: Cluster) -> Iterator[RedisServer]:
    server = RedisServer(redis_cluster.url)
    yield server
    server.close()


@pytest.fixture
def keys() -> list[str]:
    """In slots of all three."""
    mine = uuid4().hex
    return [f"{{{mine}.p{number}}}" for number in range(32)]


def calls(keys: Sequence[str], amount: int = 1) -> list[tuple[Script, list[Any], list[Any]]]:
    return [(ADD, [key], [amount]) for key in keys]


def answers(keys: Sequence[str], amount: int) -> list[list[bytes]]:
    return [[key.encode(), str(amount).encode()] for key in keys]


@contextmanager
def direct(process: RedisProcess) -> Iterator[Any]:
    with Redis.from_url(process.url, protocol=2) as client:
        yield client


class TestManyScripts:
    def test_each_runs_where_its_key_is_and_answers_in_its_place(
        self, server: RedisServer, keys: list[str], redis_cluster: Cluster
    ) -> None:
        found = run_all(server.client, calls(keys))

        assert found == answers(keys, 1)
        for process in redis_cluster.servers:
            with direct(process) as client:
                assert list(client.scan_iter(f"{keys[0][:20]}*", count=1_000))

    def test_a_server_that_does_not_know_one_is_given_it(
        self, server: RedisServer, keys: list[str], redis_cluster: Cluster
    ) -> None:
        run_all(server.client, calls(keys))
        with direct(redis_cluster.servers[1]) as client:
            client.script_flush()

        assert run_all(server.client, calls(keys)) == answers(keys, 2)

    def test_one_that_servers_forget_before_it_is_called_runs_all_the_same(
        self, server: RedisServer, keys: list[str]
    ) -> None:
        forgotten = Script(ADD.text)
        forgotten.digest = "0" * 40  # it cannot be known by that, as if it were flushed each time

        found = run_all(server.client, [(forgotten, [key], [1]) for key in keys])

        assert found == answers(keys, 1)

    def test_what_one_raises_stands_in_its_place(
        self, server: RedisServer, keys: list[str]
    ) -> None:
        few = calls(keys)
        few[7] = (FAIL, [keys[7]], [])

        found = run_all(server.client, few)

        assert "no such luck" in str(found[7])
        assert found[:7] + found[8:] == answers(keys[:7] + keys[8:], 1)

    def test_none_are_no_trouble(self, server: RedisServer) -> None:
        assert run_all(server.client, []) == []


class TestSlotsThatMove:
    @pytest.fixture
    def keys(self, keys: list[str], redis_cluster: Cluster) -> list[str]:
        """The first in a slot that holds no key, of other tests either: no other can be moved."""
        drawn = (f"{{{uuid4().hex}}}" for _ in range(1_000))
        return [next(one for one in drawn if not _holds_any(redis_cluster, one)), *keys[1:]]

    def test_a_slot_that_has_moved_is_found_where_it_is(
        self, server: RedisServer, keys: list[str], redis_cluster: Cluster
    ) -> None:
        client: Any = server.client
        slot = client.keyslot(keys[0])
        old, new = _holder_and_another(redis_cluster, slot)
        with direct(old) as source, direct(new) as target:
            _begin_to_move(slot, source, target)
            _end_the_move(slot, source, target)

        assert run_all(client, calls(keys)) == answers(keys, 1)
        assert ADD(client, [keys[0]], [1]) == [keys[0].encode(), b"2"]
        with direct(new) as target:
            assert target.get(keys[0]) == b"2"

    def test_a_slot_that_is_moving_is_asked_for_where_it_goes(
        self, server: RedisServer, keys: list[str], redis_cluster: Cluster
    ) -> None:
        client: Any = server.client
        slot = client.keyslot(keys[0])
        old, new = _holder_and_another(redis_cluster, slot)
        with direct(old) as source, direct(new) as target:
            _begin_to_move(slot, source, target)

        assert run_all(client, calls(keys)) == answers(keys, 1)

        with direct(old) as source, direct(new) as target:
            assert not source.dbsize() or keys[0].encode() not in source.keys(f"{keys[0]}*")
            assert keys[0].encode() in target.keys(f"{keys[0]}*")
            _end_the_move(slot, source, target)

    def test_who_was_told_where_a_slot_is_goes_there_though_others_have_not_heard_of_it(
        self, server: RedisServer, keys: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client: Any = server.client
        nodes = client.nodes_manager
        slot = client.keyslot(keys[0])
        holder = nodes.slots_cache[slot][0].name
        before = next(one for one in client.get_primaries() if one.name != holder)
        old = {**nodes.slots_cache, slot: [before]}

        def read_an_old_table(**_: Any) -> None:
            nodes.slots_cache = dict(old)

        read_an_old_table()
        monkeypatch.setattr(nodes, "initialize", read_an_old_table)

        assert run_all(client, calls(keys)) == answers(keys, 1)


class TestBells:
    def test_what_is_published_anywhere_is_heard_by_every_subscriber(
        self, server: RedisServer
    ) -> None:
        channel = uuid4().hex
        clients: list[Any] = [server.subscriber() for _ in range(6)]
        ears = [client.pubsub(ignore_subscribe_messages=True) for client in clients]
        for ear in ears:
            ear.subscribe(channel)
            ear.get_message(timeout=5.0)

        server.client.publish(channel, "ding")

        for ear, client in zip(ears, clients, strict=True):
            assert _first(ear)["data"] == b"ding"
            ear.close()
            client.close()

    def test_a_script_rings_for_all_as_well(self, server: RedisServer, keys: list[str]) -> None:
        ring = Script("return redis.call('PUBLISH', KEYS[1] .. ':bell', 'ding')")
        clients: list[Any] = [server.subscriber() for _ in range(6)]
        ears = [client.pubsub(ignore_subscribe_messages=True) for client in clients]
        for ear in ears:
            ear.subscribe(f"{keys[0]}:bell")
            ear.get_message(timeout=5.0)

        ring(server.client, [keys[0]], [])

        for ear, client in zip(ears, clients, strict=True):
            assert _first(ear)["data"] == b"ding"
            ear.close()
            client.close()


class TestAServerThatIsAway:
    def test_its_calls_go_to_whoever_has_its_slots_by_now(
        self, server: RedisServer, keys: list[str]
    ) -> None:
        client: Any = server.client
        run_all(client, calls(keys))
        slots = client.nodes_manager.slots_cache
        gone = slots[client.keyslot(keys[0])][0].name
        for slot, (holder, *_) in slots.copy().items():
            slots[slot] = [NOBODY] if holder.name == gone else [holder]

        assert run_all(client, calls(keys)) == answers(keys, 2)

    def test_a_publisher_comes_to_one_that_lives(self, redis_cluster: Cluster) -> None:
        server = RedisServer(
            f"redis+cluster://127.0.0.1:1,127.0.0.1:{redis_cluster.servers[0].port}"
        )

        answered = {_answers(server) for _ in range(60)}

        assert answered == {True, False}

    def test_when_all_have_moved_the_hosts_of_the_url_are_asked_again(
        self, server: RedisServer
    ) -> None:
        client: Any = server.client
        gone = {NOBODY.name: NOBODY}
        nodes = client.nodes_manager
        nodes.startup_nodes, nodes.nodes_cache = gone, gone
        nodes.slots_cache = {slot: [NOBODY] for slot in range(16_384)}

        with pytest.raises(TransportUnavailable), server.errors():
            client.get("key")

        assert server.client.get("key") is None

    def test_none_at_all_is_one_sentence_within_seconds(self) -> None:
        server = RedisServer("redis+cluster://ann:s3cret@127.0.0.1:1,127.0.0.1:2")

        with pytest.raises(TransportUnavailable, match=r"redis\+cluster://ann:\*\*\*@") as raised:
            server.client.ping()

        assert "s3cret" not in str(raised.value)

    def test_a_server_that_is_no_cluster_is_said(
        self, start_redis: Callable[..., RedisProcess], free_port: int
    ) -> None:
        server = RedisServer(f"redis+cluster://127.0.0.1:{start_redis(port=free_port).port}")

        with pytest.raises(TransportUnavailable, match=r"use a scheme without \+cluster"):
            server.client.ping()

    def test_one_of_a_cluster_is_said(self, redis_cluster: Cluster) -> None:
        server = RedisServer(f"redis://127.0.0.1:{redis_cluster.servers[0].port}")

        elsewhere = next(key for key in map(str, range(64)) if not _has(redis_cluster, 0, key))

        with (
            pytest.raises(TransportUnavailable, match=r"use a scheme with \+cluster"),
            server.errors(),
        ):
            server.client.get(elsewhere)

        server.close()


def _holder_and_another(cluster: Cluster, slot: int) -> tuple[RedisProcess, RedisProcess]:
    with direct(cluster.servers[0]) as client:
        told = client.cluster("slots")
    (port,) = [one[2][1] for one in told if one[0] <= slot <= one[1]]
    (holder,) = [one for one in cluster.servers if one.port == port]
    another = next(one for one in cluster.servers if one.port != port)
    return holder, another


def _has(cluster: Cluster, number: int, key: str) -> bool:
    with direct(cluster.servers[number]) as client:
        slot = client.cluster("keyslot", key)
    return _holder_and_another(cluster, slot)[0] is cluster.servers[number]


def _begin_to_move(slot: int, source: Any, target: Any) -> None:
    target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", _id_of(source))
    source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", _id_of(target))


def _end_the_move(slot: int, source: Any, target: Any) -> None:
    # Who imported it has the newest epoch from here on, so no gossip from before undoes it.
    for one in (target, source):
        one.execute_command("CLUSTER SETSLOT", slot, "NODE", _id_of(target))


def _id_of(client: Any) -> str:
    return str(client.execute_command("CLUSTER MYID").decode())


def _holds_any(cluster: Cluster, key: str) -> bool:
    """Whether a server has keys in the slot of that key."""
    for server in cluster.servers:
        with direct(server) as client:
            slot = client.cluster("keyslot", key)
            if client.cluster("countkeysinslot", slot):
                return True
    return False


def _first(ear: Any) -> Any:
    for _ in range(100):
        heard = ear.get_message(timeout=0.1)
        if heard is not None:
            return heard
    raise AssertionError("nothing was heard")


def _answers(server: RedisServer) -> bool:
    client = server.publisher()
    try:
        with server.errors():
            return bool(client.ping())
    except TransportUnavailable:
        return False
    finally:
        client.close()
