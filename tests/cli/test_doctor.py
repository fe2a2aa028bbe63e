from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from typer.testing import CliRunner

from actorbus.cli import app

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Cluster, Watched


def test_a_server_is_checked_in_a_table(redis_url: str) -> None:
    result = CliRunner().invoke(app, ["doctor", "--bus", redis_url])

    assert result.exit_code == 0
    for word in ("version", "persistence", "memory limit", "latency"):
        assert word in result.stdout


def test_and_as_json(redis_url: str) -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"], env={"ACTORBUS_BUS": redis_url})

    findings = json.loads(result.stdout)
    assert {"what", "verdict", "found", "change", "server"} == set(findings[0])


def test_one_that_cannot_carry_a_bus_ends_with_1(start_redis: Callable[..., Any]) -> None:
    process = start_redis("--maxmemory", "10mb", "--maxmemory-policy", "allkeys-lru")

    result = CliRunner().invoke(app, ["doctor", "--bus", process.url])

    assert result.exit_code == 1
    assert "refused" in result.stdout


def test_a_bus_that_keeps_nothing_may_forget(start_redis: Callable[..., Any]) -> None:
    process = start_redis("--maxmemory", "10mb", "--maxmemory-policy", "allkeys-lru")
    url = process.url.replace("unix:", "unix+pubsub:")

    result = CliRunner().invoke(app, ["doctor", "--bus", url])

    assert result.exit_code == 0
    assert "persistence" not in result.stdout


def test_every_server_of_a_cluster_is_looked_at(redis_cluster: Cluster) -> None:
    result = CliRunner().invoke(app, ["doctor", "--json", "--bus", redis_cluster.url])

    findings = json.loads(result.stdout)
    assert result.exit_code == 0
    for server in redis_cluster.servers:
        whats = [
            one["what"] for one in findings if one["server"] == f"primary 127.0.0.1:{server.port}"
        ]
        assert {"version", "persistence", "latency"} <= set(whats)
    (cluster,) = [one for one in findings if one["what"] == "cluster"]
    assert (cluster["found"], cluster["server"]) == ("ok, 16384 of 16384 slots served", "")


def test_the_servers_of_a_cluster_are_in_the_table(redis_cluster: Cluster) -> None:
    result = CliRunner().invoke(app, ["doctor", "--bus", redis_cluster.url], env={"COLUMNS": "200"})

    for server in redis_cluster.servers:
        assert f"primary 127.0.0.1:{server.port}" in result.stdout


def test_a_service_is_looked_at_with_its_replica_and_its_sentinels(
    start_watched: Callable[[], Watched],
) -> None:
    watched = start_watched()
    watched.sentinels[2].kill()

    result = CliRunner().invoke(app, ["doctor", "--json", "--bus", watched.url])

    findings = json.loads(result.stdout)
    master, replica = watched.servers
    places = {one["server"] for one in findings}
    assert result.exit_code == 0
    assert places == {
        "",
        f"primary 127.0.0.1:{master.port}",
        f"replica 127.0.0.1:{replica.port}",
        *(f"sentinel 127.0.0.1:{one.port}" for one in watched.sentinels),
    }
    (away,) = [one for one in findings if one["what"] == "reachable"]
    assert away["server"].endswith(str(watched.sentinels[2].port))
    assert away["verdict"] == "warning"
    assert {"sentinels", "spares"} <= {one["what"] for one in findings if not one["server"]}


def test_a_password_in_the_environment_is_used_and_not_shown(
    start_redis: Callable[..., Any],
) -> None:
    process = start_redis()
    with Redis.from_url(process.url) as client:
        client.acl_setuser("ann", enabled=True, passwords=["+s3cret"], categories=["+@all"])

    env = {"ACTORBUS_REDIS_USERNAME": "ann", "ACTORBUS_REDIS_PASSWORD": "s3cret"}
    right = CliRunner().invoke(app, ["doctor", "--bus", process.url], env=env)
    env["ACTORBUS_REDIS_PASSWORD"] = "wr0ng"
    wrong = CliRunner().invoke(app, ["doctor", "--bus", process.url], env=env)

    assert right.exit_code == 0
    assert wrong.exit_code == 1
    assert "the user or the password is wrong" in wrong.stderr
    assert "wr0ng" not in wrong.output


def test_one_that_is_not_there_is_one_sentence_without_the_password() -> None:
    result = CliRunner().invoke(app, ["doctor", "--bus", "redis://:secret@127.0.0.1:1/0"])

    assert result.exit_code == 1
    assert "Error: redis://:***@127.0.0.1:1/0" in result.stderr
    assert "secret" not in result.output


@pytest.mark.parametrize("url", ["memory://", "redis://host:port/0", "unix://"])
def test_what_is_no_server_is_wrong_usage(url: str) -> None:
    result = CliRunner().invoke(app, ["doctor", "--bus", url])

    assert result.exit_code == 2
    assert re.search(r"such as|Known: redis://", result.stderr)
