"""Many programs write to one namespace of a real server."""

from __future__ import annotations

import multiprocessing

import pytest

from actorbus.codec import Codec, TypeBook
from actorbus.context import Context
from actorbus.context.stores.redis import RedisStore
from actorbus.redis_client import RedisServer
from actorbus.telemetry import Telemetry
from actorbus.testing.store_contract import contents, revision_of, run_in_threads

from .conftest import LIMIT

_DEADLINE = 100


def _increment(url: str, deployment: str, times: int) -> None:
    server = RedisServer(url)
    store = RedisStore(server, Codec(TypeBook(), limit=LIMIT), namespace=deployment)
    context = Context(store, post=lambda _: None, telemetry=Telemetry())
    for _ in range(times):
        context.increment("n")
    context.update("finished", lambda names: [*names, times], default=[])
    store.close()
    server.close()


@pytest.mark.parametrize("times", [100, pytest.param(1_000, marks=pytest.mark.stress)])
def test_what_8_processes_count_adds_up(
    redis_url: str, deployment: str, real_server: RedisServer, times: int
) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [
        spawn.Process(target=_increment, args=(redis_url, deployment, times)) for _ in range(8)
    ]

    for process in processes:
        process.start()
    for process in processes:
        process.join(_DEADLINE)

    store = RedisStore(real_server, Codec(TypeBook(), limit=LIMIT), namespace=deployment)
    assert [process.exitcode for process in processes] == [0] * 8
    assert contents(store) == {"n": 8 * times, "finished": [times] * 8}


@pytest.mark.usefixtures("restless_threads")
@pytest.mark.parametrize("times", [5, pytest.param(100, marks=pytest.mark.stress)])
def test_64_writers_of_one_key_lose_nothing(
    real_server: RedisServer, deployment: str, times: int
) -> None:
    store = RedisStore(real_server, Codec(TypeBook(), limit=LIMIT), namespace=deployment)
    context = Context(store, post=lambda _: None, telemetry=Telemetry())

    def compare_and_set() -> None:
        for _ in range(times):
            context.update("n", lambda value: value + 1, default=0)

    run_in_threads(compare_and_set, 64)

    assert contents(store) == {"n": 64 * times}
    assert revision_of(store) == 64 * times
