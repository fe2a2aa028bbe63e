from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from typer.testing import CliRunner

from actorbus.cli import app

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_server_is_checked_in_a_table(redis_url: str) -> None:
    result = CliRunner().invoke(app, ["doctor", "--bus", redis_url])

    assert result.exit_code == 0
    for word in ("version", "persistence", "memory limit", "latency"):
        assert word in result.stdout


def test_and_as_json(redis_url: str) -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"], env={"ACTORBUS_BUS": redis_url})

    findings = json.loads(result.stdout)
    assert {"what", "verdict", "found", "change"} == set(findings[0])


def test_one_that_cannot_carry_a_bus_ends_with_1(start_redis: Callable[..., Any]) -> None:
    process = start_redis("--maxmemory", "10mb", "--maxmemory-policy", "allkeys-lru")

    result = CliRunner().invoke(app, ["doctor", "--bus", process.url])

    assert result.exit_code == 1
    assert "refused" in result.stdout


def test_one_that_is_not_there_is_one_sentence_without_the_password() -> None:
    result = CliRunner().invoke(app, ["doctor", "--bus", "redis://:secret@127.0.0.1:1/0"])

    assert result.exit_code == 1
    assert "Error: redis://:***@127.0.0.1:1/0" in result.stderr
    assert "secret" not in result.output


def test_what_is_no_server_is_wrong_usage() -> None:
    result = CliRunner().invoke(app, ["doctor", "--bus", "memory://"])

    assert result.exit_code == 2
    assert "redis://" in result.stderr
