"""``actorbus nodes`` and ``actorbus agents``."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from typer.testing import CliRunner

from actorbus.cli import app
from actorbus.registry.entry import AgentStatus, Capability
from actorbus.testing.directory_contract import ListedAgent, entry
from tests.registry.directories.redis_tables import Tables, on_real

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typer.testing import Result

    from tests.conftest import RedisProcess


@pytest.fixture
def tables(redis_url: str) -> Iterator[Tables]:
    """Two nodes: on `a` a reader that is busy and an idle counter, on `b` a parked counter."""
    tables = on_real(redis_url)
    one, other = tables.open(incarnation="a~12ab", version="1.2.3"), tables.open()
    one.join("a")
    other.join("b")
    reads = Capability("read", "2.1")
    one.register_all(
        [
            entry(ListedAgent("reader", (reads,), status=AgentStatus.BUSY, load=3), "a"),
            entry(ListedAgent("counter", ("count",), message_count=7), "a"),
        ]
    )
    other.register(entry(ListedAgent("spare", ("count",), status=AgentStatus.PARKED), "b"))
    yield tables
    tables.close()


@pytest.fixture
def run(tables: Tables, redis_url: str) -> Any:
    def run(*arguments: str) -> Result:
        env = {"ACTORBUS_BUS": redis_url, "ACTORBUS_NAMESPACE": tables.namespace, "COLUMNS": "200"}
        return CliRunner().invoke(app, list(arguments), env=env)

    return run


def listed(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def test_nodes_are_listed_with_where_they_run_and_how_busy_they_are(run: Any) -> None:
    a, b = listed(run("nodes", "--json"))

    silence = a.pop("silence")
    assert 0 <= silence < 60
    assert a == {
        "name": "a",
        "status": "alive",
        "incarnation": "a~12ab",
        "agents": 2,
        "load": 3,
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "version": "1.2.3",
    }
    assert (b["name"], b["agents"], b["load"]) == ("b", 1, 0)


def test_nodes_are_listed_in_a_table(run: Any) -> None:
    result = run("nodes")

    assert result.exit_code == 0
    for word in ("alive", "a~12ab", "1.2.3", "s ago", str(os.getpid())):
        assert word in result.stdout


def test_a_node_that_is_silent_is_shown_as_suspect_or_dead_and_its_agents_too(
    tables: Tables, run: Any
) -> None:
    def pass_time_without_b(rounds: int) -> None:
        for _ in range(rounds):
            tables.pass_time(2)
            tables.opened[0].beat("a")

    pass_time_without_b(3)
    at_first = {one["name"]: one["status"] for one in listed(run("nodes", "--json"))}
    pass_time_without_b(2)

    standing = {one["name"]: one["status"] for one in listed(run("nodes", "--json"))}
    agents = {one["name"]: one["status"] for one in listed(run("agents", "--json"))}
    assert at_first == {"a": "alive", "b": "suspect"}
    assert standing == {"a": "alive", "b": "dead"}
    assert agents == {"reader": "busy", "counter": "idle", "spare": "dead"}


def test_agents_are_listed_by_name(run: Any) -> None:
    counter, reader, spare = listed(run("agents", "--json"))

    assert [one["name"] for one in (counter, reader, spare)] == ["counter", "reader", "spare"]
    assert reader == {
        "name": "reader",
        "status": "busy",
        "node": "a",
        "load": 3,
        "handled": 0,
        "capabilities": [{"name": "read", "version": "2.1"}],
        "type": "tests.ListedAgent",
    }
    assert (counter["handled"], spare["status"]) == (7, "parked")


def test_agents_are_listed_in_a_table(run: Any) -> None:
    result = run("agents")

    assert result.exit_code == 0
    for word in ("reader", "read 2.1", "busy", "tests.ListedAgent"):
        assert word in result.stdout


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--capability", "count"], ["counter", "spare"]),
        (["--capability", "sing"], []),
        (["--status", "active"], ["counter", "reader"]),
        (["--status", "parked"], ["spare"]),
        (["--node", "b"], ["spare"]),
        (["--node", "a", "--capability", "count", "--status", "idle"], ["counter"]),
    ],
)
def test_agents_can_be_filtered(run: Any, options: list[str], names: list[str]) -> None:
    found = listed(run("agents", "--json", *options))

    assert [one["name"] for one in found] == names


def test_a_deployment_without_nodes_is_no_failure(run: Any) -> None:
    for command in ("nodes", "agents"):
        result = run(command, "--namespace", "nobody-lives-here")

        assert result.exit_code == 0
        assert f"No {command} in" in result.stderr
        assert listed(run(command, "--json", "--namespace", "nobody-lives-here")) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["agents", "--status", "sleepy"],
        ["agents", "--capability", "*"],
        ["nodes", "--bus", "memory://"],
        ["agents", "--bus", "memory://"],
        ["nodes", "--bus", "redis://host:port/0"],
        ["ask", "counter", "1", "--bus", "redis+pubsub://host/zero"],
        ["dead-letters", "--bus", "redis+cluster://host/3"],
    ],
)
def test_what_cannot_be_meant_ends_with_2(run: Any, arguments: list[str]) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert "Error: " in result.stderr


@pytest.mark.parametrize("command", ["nodes", "agents"])
def test_a_deployment_of_another_layout_is_not_read(
    start_redis: Callable[..., RedisProcess], command: str
) -> None:
    url = start_redis().url
    with Redis.from_url(url) as client:
        client.hset("{actorbus.meta}", mapping={"layout": "99", "partitions": "1"})

    result = CliRunner().invoke(app, [command, "--bus", url])

    assert (result.exit_code, result.stdout) == (1, "")
    assert "of layout 99, and this is layout" in result.stderr


@pytest.mark.parametrize("command", ["nodes", "agents"])
def test_a_server_that_is_not_there_ends_with_1_and_without_the_password(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--bus", "redis://:secret@127.0.0.1:1/0"])

    assert result.exit_code == 1
    assert "Error: redis://:***@127.0.0.1:1/0" in result.stderr
    assert "secret" not in result.output
