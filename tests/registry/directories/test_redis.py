"""The directory on Redis: what all directories promise, and what is its own."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from actorbus.errors import BusClosed, NameTaken, TransportUnavailable, Undecodable
from actorbus.registry.directories.redis.records import Figures, worth_telling
from actorbus.registry.directories.redis.table import Departure, Joining, Position
from actorbus.registry.directory import ChangeKind, DirectoryChange
from actorbus.registry.entry import AgentStatus, Capability
from actorbus.testing.directory_contract import DirectoryContract, ListedAgent, entry
from tests.registry.directories.redis_tables import Tables, on_fake, on_real
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actorbus.registry.directories.redis import RedisDirectory
    from actorbus.registry.directory import Directory
    from tests.conftest import Cluster


@pytest.fixture(params=["fakeredis", "real"])
def tables(request: pytest.FixtureRequest) -> Iterator[Tables]:
    fake = request.param == "fakeredis"
    tables = on_fake() if fake else on_real(request.getfixturevalue("redis_url"))
    yield tables
    tables.close()


class TestRedisDirectory(DirectoryContract):
    tolerance = 0.5
    """The server's clock runs on meanwhile."""

    @pytest.fixture(autouse=True)
    def _tables(self, tables: Tables) -> None:
        self.tables = tables

    def open(self) -> Directory:
        return self.tables.open(dead_after=self.dead_after)

    def pass_time(self, seconds: float) -> None:
        self.tables.pass_time(seconds)


class TestRedisDirectoryUnderATransport(TestRedisDirectory):
    holds_names = False

    def open(self) -> Directory:
        return self.tables.open(dead_after=self.dead_after, names_held=True)


def found(directory: Directory, name: str) -> str | None:
    """On which node an agent is."""
    one = directory.get(name)
    return None if one is None else one.node


def names(directory: Directory, capability: str | None = None) -> list[str]:
    return [one.member.name for one in directory.members(capability)]


# -- between processes


def test_what_joins_at_one_node_is_found_at_another_as_it_is(tables: Tables) -> None:
    here, there = tables.open(), tables.open()
    here.join("a")
    there.join("b")
    reads = Capability("read", "2.1", {"type": "object"})
    agent = ListedAgent("reader", ("count", reads), metadata={"cost": 3}, load=4, message_count=7)

    here.register(entry(agent, "a"))

    until(lambda: there.get("reader"))
    one = there.get("reader")
    assert one is not None
    assert (one.node, one.capabilities) == ("a", ("count", "read"))
    seen = one.member
    assert seen.capabilities == ("count", reads)
    assert (seen.agent_type, seen.metadata) == (agent.agent_type, {"cost": 3})
    assert (seen.status, seen.load, seen.message_count) == (AgentStatus.IDLE, 4, 7)
    assert names(there, "read") == ["reader"]


def test_who_joins_later_finds_those_that_were_there(tables: Tables) -> None:
    here, there = tables.open(), tables.open()
    here.join("a")
    here.register(entry(ListedAgent("counter", ("count",)), "a"))

    there.join("b")

    assert found(there, "counter") == "a"
    assert names(there, "count") == ["counter"]


def test_changes_at_one_node_are_heard_at_another_in_order(tables: Tables) -> None:
    here, there = tables.open(), tables.open()
    here.join("a")
    there.join("b")
    heard: list[tuple[ChangeKind, str]] = []
    there.listen(lambda change: heard.append((change.kind, change.entry.member.name)))

    here.register_all([entry(ListedAgent(name), "a") for name in ("one", "two")])
    here.unregister("one", "a")
    until(lambda: len(heard) == 3)
    here.leave("a")

    until(lambda: len(heard) == 4)
    joined, left = ChangeKind.JOINED, ChangeKind.LEFT
    assert heard == [(joined, "one"), (joined, "two"), (left, "one"), (left, "two")]


def test_two_processes_register_one_name_and_one_of_them_gets_it(tables: Tables) -> None:
    here, there = tables.open(), tables.open()
    here.join("a")
    there.join("b")
    outcomes: list[str] = []
    start = threading.Barrier(2)

    def register(directory: RedisDirectory, node: str) -> None:
        start.wait(10)
        for number in range(20):
            try:
                directory.register(entry(ListedAgent(f"agent-{number}"), node))
                outcomes.append(f"{number} has {node}")
            except NameTaken:
                outcomes.append(f"{number} refused {node}")

    threads = [
        threading.Thread(target=register, args=(here, "a")),
        threading.Thread(target=register, args=(there, "b")),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(outcomes) == 40
    for number in range(20):
        (owner,) = [one.split()[2] for one in outcomes if one.startswith(f"{number} has ")]
        for directory in (here, there):
            until(lambda: directory.get(f"agent-{number}"))  # noqa: B023 - called at once
            assert found(directory, f"agent-{number}") == owner


def test_of_two_of_one_name_that_register_together_the_first_has_it(tables: Tables) -> None:
    directory = tables.open()
    directory.join("a")
    first, second = ListedAgent("counter", ("count",)), ListedAgent("counter", ("sort",))

    refusals = directory.register_all([entry(first, "a"), entry(second, "a"), entry(first, "a")])

    assert [str(one) for one in refusals] == [str(NameTaken("counter", "a"))]
    assert (names(directory, "count"), names(directory, "sort")) == (["counter"], [])


def test_a_name_that_was_given_up_can_be_had_at_another_node(tables: Tables) -> None:
    here, there = tables.open(), tables.open()
    here.join("a")
    there.join("b")
    here.register(entry(ListedAgent("counter"), "a"))
    until(lambda: there.get("counter"))

    here.unregister("counter", "a")
    until(lambda: there.get("counter") is None)
    there.register(entry(ListedAgent("counter"), "b"))

    until(lambda: found(here, "counter") == "b")


def test_two_processes_cannot_have_one_nodes_name(tables: Tables) -> None:
    here, there = tables.open(), tables.open()
    here.join("a")

    with pytest.raises(NameTaken, match="running node"):
        there.join("a")


def test_nodes_of_another_namespace_are_not_seen(tables: Tables) -> None:
    here, elsewhere = tables.open(), tables.open(namespace=f"{tables.namespace}-2")
    here.join("a")
    here.register(entry(ListedAgent("counter"), "a"))

    elsewhere.join("a")

    assert elsewhere.get("counter") is None
    elsewhere.register(entry(ListedAgent("counter"), "a"))
    elsewhere.close()
    assert found(here, "counter") == "a"


HOSTILE = [
    "{x}",
    "a b",
    "a:b",
    "%7B",
    "é 漢字",
    "-1",
    "0 0 0",
    "nil",
    "'; return 1 --",
    "x" * 128,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_mean_something_elsewhere_are_names_like_others(
    tables: Tables, name: str
) -> None:
    here, there = tables.open(), tables.open()
    here.join(name)
    there.join("b")

    here.register(entry(ListedAgent(name, (name,)), name))

    until(lambda: there.get(name))
    assert found(there, name) == name
    assert names(there, name) == [name]
    assert set(there.beat("b")) == {name, "b"}


# -- how busy


def test_a_load_that_changed_is_told_and_one_that_did_not_is_not(tables: Tables) -> None:
    here, there = tables.open(), tables.open()
    here.join("a")
    there.join("b")
    busy, idle = ListedAgent("busy"), ListedAgent("idle")
    here.register_all([entry(busy, "a"), entry(idle, "a")])
    until(lambda: there.get("idle"))

    busy.load, busy.status = 9, AgentStatus.BUSY

    until(lambda: there.get("busy").member.load == 9)  # type: ignore[union-attr]
    one = there.get("busy")
    assert one is not None
    assert one.member.status is AgentStatus.BUSY
    (report,) = tables.client.xrange(tables.key("loads"))
    assert (b"busy" in report[1]) is True
    assert (b"idle" in report[1]) is False


def test_a_load_that_is_hardly_another_is_not_worth_telling() -> None:
    before = Figures(AgentStatus.BUSY, 100, 1000)

    assert not worth_telling(before, before)
    assert not worth_telling(before, before._replace(load=104))
    assert worth_telling(before, before._replace(load=106))
    assert worth_telling(before, before._replace(load=89))
    assert worth_telling(before, before._replace(status=AgentStatus.IDLE))


# -- nodes that are no more


def test_a_node_that_leaves_is_gone_at_once_and_nothing_of_it_stays(tables: Tables) -> None:
    here, there = tables.open(), tables.open()
    here.join("a")
    there.join("b")
    here.register_all([entry(ListedAgent(f"agent-{at}", ("count",)), "a") for at in range(700)])
    until(lambda: len(there.members("count")) == 700)

    here.leave("a")

    until(lambda: not there.members("count"))
    assert [one.name for one in there.nodes()] == ["b"]
    assert tables.client.hlen(tables.key("agents")) == 0
    left = {key.decode().rpartition(":")[2] for key in tables.client.scan_iter(tables.key("*"))}
    living = {token.decode() for token in tables.client.hkeys(tables.key("nodes"))}
    assert left <= {"nodes", "names", "facts", "meta", "log", "loads"} | living | left_wakes(left)


def left_wakes(keys: set[str]) -> set[str]:
    """Keys by which a thread was woken; they expire."""
    return {key for key in keys if len(key) == 32}


def test_nothing_stays_of_agents_that_end_right_before_their_node(tables: Tables) -> None:
    directory = tables.open()
    directory.join("a")
    directory.register_all([entry(ListedAgent(f"agent-{at}"), "a") for at in range(20)])

    for at in range(20):
        directory.unregister(f"agent-{at}", "a")
    directory.leave("a")

    assert tables.client.hlen(tables.key("agents")) == 0


def test_what_a_node_that_died_left_behind_is_swept_once_its_name_is_taken(
    tables: Tables,
) -> None:
    dying, living = tables.open(), tables.open()
    dying.join("a")
    living.join("b")
    dying.register_all([entry(ListedAgent(f"agent-{at}"), "a") for at in range(20)])
    until(lambda: len(living.members()) == 20)
    kill(dying)
    for _ in range(10):
        tables.pass_time(1.0)
        living.beat("b")

    tables.open().join("a")

    until(lambda: not living.members())
    until(lambda: tables.client.hlen(tables.key("agents")) == 0)


def test_news_take_no_room_once_they_are_old_and_those_of_now_stay(tables: Tables) -> None:
    here = tables.open()
    here.join("a")
    here.register(entry(ListedAgent("counter"), "a"))
    log = tables.key("log")
    *old, (newest, told) = tables.client.xrange(log)
    tables.client.delete(log)
    for at, (_, fields) in enumerate(old):
        tables.client.xadd(log, fields, id=f"{int(newest[:-2]) - 6_000_000 + at}-0")
    tables.client.xadd(log, told, id=newest)

    here.beat("a")

    assert len(old) >= 1
    assert [at for at, _ in tables.client.xrange(log)] == [newest]
    there = tables.open()
    there.join("b")
    assert found(there, "counter") == "a"


def test_a_node_that_was_dead_for_an_hour_is_forgotten(tables: Tables) -> None:
    dying, living = tables.open(), tables.open()
    dying.join("a")
    living.join("b")
    dying.register(entry(ListedAgent("counter"), "a"))
    until(lambda: living.get("counter"))
    kill(dying)
    back = round(3600 * 1e6)
    for token, told in tables.client.hgetall(tables.key("nodes")).items():
        stamp, _, name = told.partition(b" ")
        if name == b"a":
            tables.client.hset(tables.key("nodes"), token, b"%d a" % (int(stamp) - back))

    assert set(living.beat("b")) == {"b"}

    until(lambda: living.get("counter") is None)
    until(lambda: tables.client.hlen(tables.key("agents")) == 0)


def test_a_node_that_was_forgotten_comes_back_with_its_agents(tables: Tables) -> None:
    here, there = tables.open(), tables.open()
    here.join("a")
    there.join("b")
    here.register(entry(ListedAgent("counter"), "a"))
    (token,) = [
        token
        for token, told in tables.client.hgetall(tables.key("nodes")).items()
        if told.endswith(b" a")
    ]
    there._table.leave(token.decode())
    until(lambda: there.get("counter") is None)

    here.beat("a")

    until(lambda: found(there, "counter") == "a")
    assert found(here, "counter") == "a"


def test_a_node_that_was_dead_gives_way_to_who_has_its_agents_name(tables: Tables) -> None:
    troubles: list[Exception] = []
    paused, living = tables.open(failed=troubles.append), tables.open()
    paused.join("a")
    living.join("b")
    paused.register(entry(ListedAgent("counter"), "a"))
    until(lambda: living.get("counter"))
    for _ in range(10):
        tables.pass_time(1.0)
        living.beat("b")

    living.register(entry(ListedAgent("counter"), "b"))

    until(lambda: found(paused, "counter") == "b")
    until(lambda: troubles)
    assert isinstance(troubles[0], NameTaken)


def test_where_the_transport_holds_the_names_who_registers_last_has_it(tables: Tables) -> None:
    troubles: list[Exception] = []
    here = tables.open(names_held=True, failed=troubles.append)
    there = tables.open(names_held=True)
    here.join("a")
    there.join("b")
    here.register(entry(ListedAgent("counter"), "a"))
    until(lambda: found(there, "counter") == "a")

    there.register(entry(ListedAgent("counter"), "b"))

    until(lambda: found(here, "counter") == "b")
    until(lambda: troubles)
    assert isinstance(troubles[0], NameTaken)
    with pytest.raises(NameTaken, match="on node 'b'"):
        there.register(entry(ListedAgent("counter"), "b"))


def test_many_that_register_one_by_one_are_told_of_together(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = on_real(redis_url)
    here, there = tables.open(names_held=True), tables.open()
    here.join("a")
    there.join("b")
    told: list[int] = []
    tell = here._table.register

    def count_and_tell(
        token: str, kinds: Any, agents: Sequence[Joining], since: Position, **how: bool
    ) -> Any:
        told.append(len(agents))
        return tell(token, kinds, agents, since, **how)

    monkeypatch.setattr(here._table, "register", count_and_tell)

    for number in range(1_000):
        here.register(entry(ListedAgent(f"counter-{number}", ("count",)), "a"))
        assert found(here, f"counter-{number}") == "a"

    until(lambda: len(there.members("count")) == 1_000)
    assert sum(told) == 1_000
    assert len(told) <= 100
    tables.close()


def test_who_left_before_the_table_was_told_was_never_there(tables: Tables) -> None:
    here, there = tables.open(names_held=True), tables.open()
    here.join("a")
    there.join("b")
    heard: list[DirectoryChange] = []
    there.listen(heard.append)

    with here._writing:  # so that it is not told before
        here.register(entry(ListedAgent("brief"), "a"))
        here.unregister("brief", "a")
    here.register(entry(ListedAgent("last"), "a"))

    until(lambda: found(there, "last") == "a")
    assert [change.entry.member.name for change in heard] == ["last"]


def test_what_the_table_says_of_before_does_not_displace_who_it_was_not_told_of(
    tables: Tables,
) -> None:
    here, there = tables.open(names_held=True), tables.open(names_held=True)
    here.join("a")
    there.join("b")
    there.register(entry(ListedAgent("counter"), "b"))
    until(lambda: found(here, "counter") == "b")

    with here._writing:
        here.register(entry(ListedAgent("counter"), "a"))
        here._reload(lost=False)
        assert found(here, "counter") == "a"

    until(lambda: found(there, "counter") == "a")
    assert found(here, "counter") == "a"


def test_who_could_not_be_told_of_until_its_node_was_dead_takes_no_name(tables: Tables) -> None:
    troubles: list[Exception] = []
    here = tables.open(names_held=True, dead_after=0.05, failed=troubles.append)
    there = tables.open(names_held=True)
    here.join("a")
    there.join("b")

    with here._writing:
        here.register(entry(ListedAgent("counter"), "a"))
        began = time.monotonic()
        there.register(entry(ListedAgent("counter"), "b"))
        until(lambda: tables.client.hexists(tables.key("agents"), "counter"))
        until(lambda: time.monotonic() - began > 0.05)

    until(lambda: found(here, "counter") == "b")
    until(lambda: troubles)
    assert isinstance(troubles[0], NameTaken)
    assert found(there, "counter") == "b"


def kill(directory: RedisDirectory) -> None:
    """End as a process does that is killed: without a word."""
    directory._closing.set()
    directory._kick.set()
    for thread in directory._threads:
        thread.join(10)
    directory._threads = []
    directory._homes.clear()


# -- whoever only looks


def test_who_is_no_node_can_look(tables: Tables) -> None:
    node, visitor = tables.open(incarnation="a~1234", version="1.2.3"), tables.open()
    node.join("a")
    node.register_all([entry(ListedAgent(f"agent-{at}", load=2), "a") for at in range(3)])

    visitor.look()
    (one,) = visitor.nodes()

    assert len(visitor.members()) == 3
    assert (one.name, one.incarnation, one.agents, one.load) == ("a", "a~1234", 3, 6)
    assert (one.pid, one.host) == (os.getpid(), socket.gethostname())
    assert one.version == "1.2.3"
    assert 0 <= one.silence < 10
    assert set(node.beat("a")) == {"a"}


# -- a table that others have written to


def test_records_that_nobody_can_read_are_told_of_and_hide_nobody(tables: Tables) -> None:
    troubles: list[Exception] = []
    here, there = tables.open(), tables.open(failed=troubles.append)
    here.join("a")
    here.register(entry(ListedAgent("counter"), "a"))
    tables.client.hset(tables.key("agents"), "broken", "what is this?")
    tables.client.hset(tables.key("agents"), b"\xff", "1 x 1 1 idle 0 0")

    there.join("b")

    assert names(there) == ["counter"]
    assert len(troubles) == 2


def test_a_kind_that_nobody_can_read_hides_its_agents_and_no_others(tables: Tables) -> None:
    troubles: list[Exception] = []
    here, there = tables.open(), tables.open(failed=troubles.append)
    here.join("a")
    here.register(entry(ListedAgent("counter"), "a"))
    here.register(entry(ListedAgent("sorter", ("sort",)), "a"))
    kinds = tables.key(f"kinds:{here._homes['a'].token}")
    tables.client.hset(kinds, min(set(tables.client.hgetall(kinds)) - {b"up"}, key=int), b"\xc1")

    there.join("b")

    assert names(there) == ["sorter"]
    assert [type(one) for one in troubles] == [Undecodable]


def test_changes_that_nobody_can_read_do_not_stop_those_that_follow(tables: Tables) -> None:
    troubles: list[Exception] = []
    here, there = tables.open(), tables.open(failed=troubles.append)
    here.join("a")
    there.join("b")
    meta, log = tables.key("meta"), tables.key("log")
    before = int(tables.client.hget(meta, "log"))
    fields = {"after": before, "joined": "broken", "as": "what is this?"}
    tables.client.hset(meta, "log", before + 1)
    tables.client.xadd(log, fields, id=f"{before + 1}-0")

    here.register(entry(ListedAgent("counter"), "a"))

    until(lambda: there.get("counter"))
    assert any(isinstance(one, Undecodable) for one in troubles)


def test_who_missed_changes_reads_the_whole_table(tables: Tables) -> None:
    here, visitor = tables.open(), tables.open()
    here.join("a")
    here.register(entry(ListedAgent("old"), "a"))
    visitor.look()
    assert names(visitor) == ["old"]

    here.unregister("old", "a")
    here.register(entry(ListedAgent("new"), "a"))
    here.register(entry(ListedAgent("latest"), "a"))
    tables.client.xtrim(tables.key("log"), maxlen=1, approximate=False)
    visitor.look()

    assert names(visitor) == ["new", "latest"]


def test_a_table_of_another_release_is_left_alone(tables: Tables) -> None:
    tables.open().join("a")
    tables.client.hset(tables.key("meta"), "layout", "99")

    with pytest.raises(TransportUnavailable, match="layout 99"):
        tables.open().join("b")


# -- called twice, as a client does whose answer was lost


def test_every_call_may_be_sent_twice(tables: Tables) -> None:
    directory = tables.open()
    directory.join("a")
    table, token = directory._table, directory._homes["a"].token
    joining = [Joining("counter", 901, 900, Figures(AgentStatus.IDLE, 0, 0))]
    figures = [("counter", 901, Figures(AgentStatus.BUSY, 3, 0))]
    departures = [Departure(token, "counter", 901, 900)]

    def state() -> dict[str, object]:
        agents = tables.client.hgetall(tables.key("agents"))
        kinds = tables.client.hgetall(tables.key(f"kinds:{token}"))
        log = [fields for _, fields in tables.client.xrange(tables.key("log"))]
        known = tables.client.hgetall(tables.key("names"))
        return {"agents": agents, "kinds": kinds, "log": log, "names": known}

    for call in (
        lambda: table.join("a", token, b""),
        lambda: table.beat("a", token),
        lambda: table.register(token, {900: b"k"}, joining, Position()),
        lambda: table.tell_loads(token, figures),
        lambda: table.unregister(token, departures),
        lambda: table.forget(["counter"]),
        lambda: table.leave(token),
    ):
        call()
        once = state()
        call()

        assert state() == once


# -- in a cluster


def test_nodes_on_a_cluster_see_each_other(redis_cluster: Cluster) -> None:
    tables = on_real(redis_cluster.url)
    here, there = tables.open(), tables.open()
    here.join("a")
    there.join("b")

    here.register(entry(ListedAgent("counter"), "a"))
    until(lambda: there.get("counter"))
    here.leave("a")

    until(lambda: there.get("counter") is None)
    assert set(there.beat("b")) == {"b"}
    tables.close()


# -- life


def test_closing_twice_or_before_joining_is_no_mistake(tables: Tables) -> None:
    unused, used = tables.open(), tables.open()
    used.join("a")

    unused.close()
    used.close()
    used.close()

    assert not [one for one in threading.enumerate() if one.name.startswith("actorbus-registry")]
    with pytest.raises(BusClosed):
        used.join("a")


def test_a_listener_may_register_what_it_hears_of_and_hears_all_in_order(tables: Tables) -> None:
    directory = tables.open()
    directory.join("a")
    heard: list[str] = []

    def answer(change: DirectoryChange) -> None:
        heard.append(change.entry.member.name)
        if heard == ["one"]:
            directory.register(entry(ListedAgent("two"), "a"))

    directory.listen(answer)
    directory.register(entry(ListedAgent("one"), "a"))

    assert heard == ["one", "two"]
