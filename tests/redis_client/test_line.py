"""A connection that is written to now and read later, on a real server."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import fakeredis
import pytest

from actorbus.errors import TransportUnavailable
from actorbus.redis_client import NOTHING, Dial, Express, Line, NoSocket, RedisServer, Script, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE = 10.0


@pytest.fixture
def server(redis_url: str) -> Iterator[RedisServer]:
    server = RedisServer(redis_url)
    yield server
    server.close()


@pytest.fixture
def line(server: RedisServer) -> Iterator[Line]:
    line = server.line()
    yield line
    line.close()


def test_the_answer_to_what_is_sent_is_read_later(server: RedisServer, line: Line) -> None:
    key = uuid4().hex

    assert line.send("SET", key, b"\r\n\0", "PX", 10_000)
    assert line.wait(DEADLINE) == b"OK"
    assert line.send("GET", key)
    assert line.wait(DEADLINE) == b"\r\n\0"
    assert server.client.get(key) == b"\r\n\0"


def test_looking_for_an_answer_does_not_wait_for_it(server: RedisServer, line: Line) -> None:
    line.send("BLPOP", key := uuid4().hex, "0")

    first = line.look()
    server.client.rpush(key, "there")

    assert first is None
    assert line.wait(DEADLINE) == [key.encode(), b"there"]


def test_what_the_server_refuses_is_an_answer(line: Line) -> None:
    line.send("EVALSHA", "0" * 40, 0)

    answer = line.wait(DEADLINE)

    assert "NOSCRIPT" in str(answer)
    assert line.send("PING")


def test_an_answer_that_does_not_come_closes_the_line(line: Line) -> None:
    line.send("BLPOP", uuid4().hex, "5")

    with pytest.raises(TransportUnavailable, match="no answer within"):
        line.wait(0.01)

    assert not line.send("PING")


def test_a_server_that_hangs_up_closes_the_line(server: RedisServer, line: Line) -> None:
    line.send("CLIENT", "ID")
    ours = line.wait(DEADLINE)
    server.client.client_kill_filter(_id=str(ours))

    with contextlib.suppress(TransportUnavailable):
        while line.send("PING"):
            line.wait(DEADLINE)

    assert not line.send("PING")


def test_more_than_the_socket_takes_closes_the_line(line: Line) -> None:
    assert not line.send("PING", b"x" * 64_000_000)
    assert not line.send("PING")


def test_a_closed_line_gives_its_connection_back(server: RedisServer) -> None:
    lines = [server.line() for _ in range(3)]
    for line in lines:
        line.close()
        line.close()

    pool: Any = server.client.connection_pool
    assert not pool._in_use_connections


def test_there_is_none_where_no_socket_can_be_had() -> None:
    fake = RedisServer("redis://fake", make=lambda **_: fakeredis.FakeRedis(protocol=2))

    with pytest.raises(NoSocket):
        fake.line()


def test_there_is_none_to_a_cluster() -> None:
    with pytest.raises(NoSocket):
        RedisServer("redis+cluster://localhost:1").line()


def test_who_dials_where_no_line_can_be_had_finds_out_once() -> None:
    made: list[object] = []

    def make(**_: object) -> fakeredis.FakeRedis:
        made.append(None)
        return fakeredis.FakeRedis(protocol=2)

    dial = Dial(RedisServer("redis://fake", make=make))

    assert dial.open() is None
    assert not dial.may_be_had
    assert len(made) == 1


def test_a_line_that_was_lost_may_be_had_again_a_second_later(server: RedisServer) -> None:
    now = [100.0]
    dial = Dial(server, monotonic=lambda: now[0])
    first = dial.open()

    dial.hang_up()
    at_once = dial.open()
    now[0] += 1.0
    second = dial.open()

    assert first is not None
    assert at_once is None
    assert second is not None
    assert second is not first
    dial.hang_up()


ECHO = Script("return {KEYS[1], ARGV[1]}")


class TestExpress:
    def test_scripts_run_in_order_each_on_its_own(self, server: RedisServer) -> None:
        express = Express(server)
        ECHO(server.client, ["k"], ["loaded"])

        found = express.run_all([(ECHO, ["k"], [b"\r\n", 1][at : at + 1]) for at in range(2)])

        assert found == [[b"k", b"\r\n"], [b"k", b"1"]]
        express.close()

    def test_one_that_the_server_does_not_know_is_loaded(self, server: RedisServer) -> None:
        express = Express(server)
        server.client.script_flush()

        found = [express.run_all([(ECHO, ["k"], ["a"])]) for _ in range(2)]

        assert found == [[[b"k", b"a"]]] * 2
        express.close()

    def test_a_connection_that_breaks_is_another_ones_work(self, server: RedisServer) -> None:
        express = Express(server)
        ECHO(server.client, ["k"], ["loaded"])
        express.run_all([(ECHO, ["k"], ["a"])])
        line: Any = express._dial.line
        line._connection._sock.shutdown(2)

        assert express.run_all([(ECHO, ["k"], ["b"])]) == [[b"k", b"b"]]

        assert express._dial.line is None
        express.close()

    def test_where_no_line_can_be_had_redis_py_runs_them(self) -> None:
        fake = RedisServer("redis://fake", make=lambda **_: fakeredis.FakeRedis(protocol=2))

        assert Express(fake).run_all([(ECHO, ["k"], ["a"])]) == [[b"k", b"a"]]

    def test_what_is_done_meanwhile_is_done_while_the_scripts_are_under_way(
        self, server: RedisServer
    ) -> None:
        express, key = Express(server), uuid4().hex
        put = Script("return redis.call('SET', KEYS[1], ARGV[1], 'PX', 10000)")
        put(server.client, [key], ["1"])
        express.run_all([(put, [key], ["2"])])
        seen: list[Any] = []

        def meanwhile() -> None:
            give_up = time.monotonic() + DEADLINE
            while server.client.get(key) != b"3" and time.monotonic() < give_up:
                pass
            seen.append(server.client.get(key))

        express.run_all([(put, [key], ["3"])], meanwhile)

        assert seen == [b"3"]
        express.close()

    def test_where_a_line_must_be_opened_that_is_done_before(
        self, server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        express, order = Express(server), list[str]()
        line = server.line

        def open_it() -> Line:
            order.append("opened")
            return line()

        monkeypatch.setattr(server, "line", open_it)

        express.run_all([(ECHO, ["k"], ["a"])], lambda: order.append("done"))

        assert order == ["done", "opened"]
        express.close()

    def test_it_is_done_once_where_no_line_can_be_had(self) -> None:
        fake = RedisServer("redis://fake", make=lambda **_: fakeredis.FakeRedis(protocol=2))
        express, done = Express(fake), list[None]()

        answers = [express.run_all([(ECHO, ["k"], ["a"])], lambda: done.append(None)) for _ in "ab"]

        assert answers == [[[b"k", b"a"]]] * 2
        assert len(done) == 2

    def test_it_is_done_once_where_the_line_takes_nothing_or_its_answer_is_lost(
        self, server: RedisServer
    ) -> None:
        express, done = Express(server), list[None]()
        ECHO(server.client, ["k"], ["loaded"])
        express.run_all([(ECHO, ["k"], ["a"])])
        line: Any = express._dial.line

        def break_it() -> None:
            done.append(None)
            line._connection._sock.shutdown(2)

        assert express.run_all([(ECHO, ["k"], ["b"])], break_it) == [[b"k", b"b"]]
        assert len(done) == 1

        express._dial._rests_until = 0.0
        express.run_all([(ECHO, ["k"], ["c"])])
        much = b"x" * 64_000_000
        found = express.run_all([(ECHO, ["k"], [much])], lambda: done.append(None))

        assert found == [[b"k", much]]
        assert len(done) == 2
        express.close()

    def test_it_is_done_once_where_the_server_does_not_answer_in_time(
        self, server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slow = Script(
            "local function now() local t = redis.call('TIME') return t[1] * 1000000 + t[2] end "
            "local start = now() repeat until now() - start > 200000 return 1"
        )
        slow(server.client, ["k"], [])
        express, done = Express(server), list[None]()
        ECHO(server.client, ["k"], ["loaded"])
        express.run_all([(ECHO, ["k"], ["a"])])
        monkeypatch.setattr("actorbus.redis_client.line._ANSWERED_WITHIN", 0.01)

        with pytest.raises(TransportUnavailable, match="no answer"):
            express.run_all([(slow, ["k"], [])], lambda: done.append(None))

        assert len(done) == 1
        express.close()

    def test_it_is_done_once_in_a_process_that_may_not_use_the_server(
        self, server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def forked() -> None:
            raise TransportUnavailable("forked")

        express, done = Express(server), list[None]()
        monkeypatch.setattr(server, "check_process", forked)

        with pytest.raises(TransportUnavailable, match="forked"):
            express.run_all([(ECHO, ["k"], ["a"])], lambda: done.append(None))

        assert len(done) == 1

    @pytest.mark.parametrize("error", [TransportUnavailable("no"), KeyError("no")])
    def test_what_it_raises_comes_out_and_the_answers_are_nobodys(
        self, server: RedisServer, error: Exception
    ) -> None:
        def fail() -> None:
            done.append(None)
            raise error

        express, done = Express(server), list[None]()
        ECHO(server.client, ["k"], ["loaded"])
        express.run_all([(ECHO, ["k"], ["a"])])

        with pytest.raises(type(error), match="no"):
            express.run_all([(ECHO, ["k"], ["b"])], fail)

        assert len(done) == 1
        assert express.run_all([(ECHO, ["k"], ["c"])]) == [[b"k", b"c"]]
        express.close()

    def test_two_threads_at_a_time_each_get_their_answers(self, server: RedisServer) -> None:
        express = Express(server)
        ECHO(server.client, ["k"], ["loaded"])

        def ask(word: str) -> bool:
            return all(
                express.run_all([(ECHO, ["k"], [word])]) == [[b"k", word.encode()]]
                for _ in range(300)
            )

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(ask, "abcd"))
        express.close()


def test_what_a_wire_hears_together_it_tells_one_by_one(server: RedisServer) -> None:
    channel = uuid4().hex
    client: Any = server.subscriber()
    ear = client.pubsub()
    ear.subscribe(channel)
    wire = Wire(ear.connection)
    assert wire.read(DEADLINE)[0] == b"subscribe"
    for word in ("one", "two", "three"):
        server.client.publish(channel, word)

    heard = [wire.read(DEADLINE)[2] for _ in range(3)]
    nothing = timed(lambda: wire.read(0.02))

    assert heard == [b"one", b"two", b"three"]
    assert nothing[0] is NOTHING
    assert nothing[1] >= 0.015
    ear.close()
    client.close()


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.monotonic()
    return call(), time.monotonic() - start
