from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, Any

import fakeredis
import pytest

from actorbus.errors import TransportUnavailable, UnknownTransport
from actorbus.redis_client import RedisServer, Script, decoded, encoded, run_all, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from redis import Redis


@pytest.fixture(params=["fakeredis", "real"])
def client(request: pytest.FixtureRequest) -> Iterator[Redis]:
    if request.param == "fakeredis":
        made = fakeredis.FakeRedis(server=fakeredis.FakeServer())
        yield made
        made.close()
        return
    server = RedisServer(request.getfixturevalue("redis_url"))
    yield server.client
    server.close()


ECHO = Script("return {KEYS[1], ARGV[1]}")
FAIL = Script("return redis.error_reply('no such luck')")


class TestScripts:
    def test_one_that_the_server_does_not_know_is_loaded(self, client: Redis) -> None:
        client.script_flush()

        assert ECHO(client, ["k"], ["a"]) == [b"k", b"a"]
        assert ECHO(client, ["k"], ["b"]) == [b"k", b"b"]

    def test_many_run_in_one_go_and_those_unknown_are_loaded(self, client: Redis) -> None:
        client.script_flush()

        found = run_all(client, [(ECHO, ["k"], [number]) for number in range(3)])

        assert found == [[b"k", b"0"], [b"k", b"1"], [b"k", b"2"]]

    def test_one_that_the_server_forgets_before_it_is_called_runs_all_the_same(
        self, client: Redis
    ) -> None:
        forgotten = Script(ECHO.text)
        forgotten.digest = "0" * 40  # it cannot be known by that, as if it were flushed each time
        ECHO(client, ["k"], ["loaded"])

        found = run_all(client, [(one, ["k"], ["a"]) for one in (ECHO, forgotten, ECHO)])

        assert found == [[b"k", b"a"]] * 3
        assert forgotten(client, ["k"], ["b"]) == [b"k", b"b"]

    def test_what_one_raises_stands_in_its_place(self, client: Redis) -> None:
        found = run_all(client, [(ECHO, ["k"], ["a"]), (FAIL, ["k"], []), (ECHO, ["k"], ["b"])])

        assert found[0] == [b"k", b"a"]
        assert "no such luck" in str(found[1])
        assert found[2] == [b"k", b"b"]


class TestUrls:
    @pytest.mark.parametrize(
        "url", ["memory://", "redis", "http://host", "", "redis+pubsub://host", "://"]
    )
    def test_one_that_is_no_redis_servers_is_refused_with_those_that_are(self, url: str) -> None:
        with pytest.raises(UnknownTransport, match=r"redis://.*rediss://.*unix://"):
            RedisServer(url)

    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("redis://host:port", "such as redis://host:6379/0"),
            ("redis://host:99999", "such as redis://host:6379/0"),
            ("redis://[::1", "such as redis://host:6379/0"),
            ("redis://host/zero", "the database is a number"),
            ("unix://", "such as unix:///run/redis.sock"),
        ],
    )
    def test_one_that_cannot_be_meant_says_what_can(self, url: str, says: str) -> None:
        with pytest.raises(TransportUnavailable, match=says):
            RedisServer(url)

    @pytest.mark.parametrize(
        ("url", "people_see"),
        [
            ("redis://host:6379/0", "redis://host:6379/0"),
            ("redis://:secret@host/1", "redis://:***@host/1"),
            ("rediss://ann:s%40cret@host", "rediss://ann:***@host"),
            ("redis://host?password=secret", "redis://host"),
            ("unix://ann:secret@/run/r.sock?db=1", "unix://ann:***@/run/r.sock"),
            ("unix:///run/r.sock", "unix:///run/r.sock"),
            ("redis://:secret@host:port", "redis://:***@host:port"),
        ],
    )
    def test_people_see_no_password(self, url: str, people_see: str) -> None:
        assert "secret" not in shown(url)
        assert shown(url) in (people_see, "the Redis server")

    def test_an_error_has_no_password_in_it(self) -> None:
        server = RedisServer("redis://ann:s%40cret@127.0.0.1:1/0")

        with pytest.raises(TransportUnavailable) as raised, server.errors():
            server.client.ping()

        assert "cret" not in str(raised.value)
        assert "redis://ann:***@127.0.0.1:1/0" in str(raised.value)
        assert "cret" not in repr(server)


class TestServer:
    def test_its_version_is_told(self, redis_url: str) -> None:
        server = RedisServer(redis_url)

        assert server.version() >= (6, 2)
        server.close()

    @pytest.mark.parametrize("name", ["eu-1", "eu 1", "\u00e9", "\U0001f600", "{n}:~*%", "x" * 128])
    def test_whatever_a_node_is_called_may_be_its_name_there(
        self, redis_url: str, name: str
    ) -> None:
        server = RedisServer(redis_url, name=name)

        assert decoded(str(server.client.client_getname())) == name
        server.close()

    def test_one_too_old_is_refused(self) -> None:
        class Old:
            def info(self, _: str) -> dict[str, str]:
                return {"redis_version": "5.0.14"}

        server = RedisServer("redis://host", make=lambda **_: Old())  # type: ignore[arg-type]

        with pytest.raises(TransportUnavailable, match=r"Redis 5\.0\.14; 6\.2 or newer"):
            server.version()

    def test_one_that_is_away_is_said_within_seconds(self, start_redis: Callable[..., Any]) -> None:
        process = start_redis()
        server = RedisServer(process.url)
        server.client.ping()
        process.kill()

        with pytest.raises(TransportUnavailable), server.errors():
            server.client.ping()

        process.start()
        assert server.client.ping()
        server.close()

    def test_one_that_is_full_is_said_to_be_and_what_would_help(
        self, start_redis: Callable[..., Any]
    ) -> None:
        process = start_redis("--maxmemory", "1", "--maxmemory-policy", "noeviction")

        with (
            closing(RedisServer(process.url)) as server,
            pytest.raises(TransportUnavailable, match=r"its memory is full: .* raise maxmemory"),
            server.errors(),
        ):
            server.client.set("key", "value")

    def test_a_forked_child_may_not_use_its_parents_connections(self, redis_url: str) -> None:
        server = RedisServer(redis_url)
        server.client.ping()
        server._process = os.getpid() - 1  # as in a child

        with pytest.raises(TransportUnavailable, match="was forked; make a new Node"):
            server.client.ping()


@pytest.mark.parametrize("name", ["plain", "{tag}", "a:b", "\r\n", "naïve", "*", "..", "%41", "\0"])
def test_a_name_in_a_key_has_no_character_of_ours_and_comes_back(name: str) -> None:
    part = encoded(name)

    assert not set(part) & set("{}:*\r\n\0 /")
    assert decoded(part) == name
