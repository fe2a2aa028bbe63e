from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from benchmarks import workloads
from benchmarks.harness import plan
from benchmarks.redis.server import GIVEN, NoRedis, redis
from benchmarks.workload import Cores

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


@pytest.fixture
def given_redis(start_redis: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> str:
    url: str = start_redis().url
    monkeypatch.setenv(GIVEN, url)
    return url


def test_a_given_redis_is_left_empty(given_redis: str) -> None:
    with redis() as server:
        server.client.set("key", "value")

    with redis() as server:
        assert server.client.dbsize() == 0


def test_a_given_redis_that_holds_keys_is_left_alone(given_redis: str) -> None:
    with redis() as server:
        client = server.client
        client.set("before", "it")
        with pytest.raises(NoRedis, match="empty"), redis():
            pass

        assert client.get("before") == b"it"


def test_a_given_redis_must_persist_as_the_measurement_says(given_redis: str) -> None:
    with pytest.raises(NoRedis, match="appendonly yes"), redis(aof=True):
        pass


def test_our_messages_arrive_and_are_counted(given_redis: str) -> None:
    sample = workloads.load("redis_durable").case("actorbus").run(100)

    assert sample["rate"] > 0
    assert sample["enqueue"] >= sample["rate"]


def test_a_case_whose_library_is_missing_is_left_out() -> None:
    workload = workloads.load("redis_durable")
    cases = [replace(case, needs="no_such_module") for case in workload.cases]

    jobs = list(plan([replace(workload, cases=cases)], 1, list(Cores), quick=True))

    assert jobs == []


def test_processes_that_share_a_server_are_not_pinned_to_one_core() -> None:
    jobs = plan([workloads.load(name) for name in workloads.REDIS], 1, list(Cores), quick=True)

    assert {job.cores for job in jobs} == {Cores.FREE}
