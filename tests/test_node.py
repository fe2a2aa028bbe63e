"""The life of a node: what it checks, how it starts, drains and stops."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from actorbus import (
    Agent,
    AgentStopped,
    Audit,
    AuditUnavailable,
    BusClosed,
    InvalidArgument,
    InvalidName,
    InvalidSettings,
    InvalidUrl,
    NameTaken,
    Node,
    NotDrained,
    NotStopped,
    Reason,
    Send,
    Settings,
    Status,
    Supervision,
    UnknownRecipient,
    UnknownTransport,
    handles,
)
from actorbus.bus.transports.memory import MemoryTransport
from actorbus.message import format_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from actorbus.errors import ActorbusError

SOON = 20.0
QUIET = Settings(log_level="off")


class Echo(Agent):
    capabilities = ("echo",)

    @handles
    def echo(self, word: str) -> str:
        return word


class Held(Agent):
    """Holds its message until it is let go."""

    def __init__(self, gate: threading.Event, started: threading.Event) -> None:
        self.gate = gate
        self.started = started

    @handles
    def hold(self, word: str) -> str:
        self.started.set()
        self.gate.wait(SOON)
        return word


def run_apart(code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in an interpreter of its own."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )


# -- arguments


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"bus": "redi://host"}, UnknownTransport, "memory://"),
        ({"bus": "http://host"}, UnknownTransport, "memory://"),
        ({"bus": "redis-host"}, UnknownTransport, "the bus 'redis-host'"),
        ({"bus": "REDIS://host:port"}, InvalidUrl, r"such as redis://host:6379/0"),
        ({"bus": "redi://:secret@host"}, UnknownTransport, r"bus .redi:.\. Did you mean .redis."),
        ({"bus": ""}, UnknownTransport, r"the bus ''\. Known: memory://"),
        ({"bus": 5}, UnknownTransport, r"the bus 5\. Known: memory://"),
        ({"bus": None}, UnknownTransport, r"the bus None\. Known: memory://"),
        ({"name": ""}, InvalidName, "empty"),
        ({"name": "x" * 10_000}, InvalidName, "128 bytes"),
        ({"name": "a\nb"}, InvalidName, "control"),
        ({"name": 7}, InvalidName, "str"),
        ({"audit": "mysql://host/db"}, AuditUnavailable, "sqlite"),
        ({"audit": 3}, AuditUnavailable, "URL"),
        ({"metrics_port": 70_000}, InvalidSettings, "65535"),
        ({"metrics_port": "80"}, InvalidSettings, "port"),
        ({"settings": {"ask_timeout": 3}}, InvalidSettings, "Settings"),
        ({"middleware": [lambda handle: handle]}, InvalidSettings, r"Send\(...\)"),
        ({"middleware": [Send("not callable")]}, InvalidSettings, "called"),  # type: ignore[arg-type]
    ],
)
def test_an_argument_that_cannot_be_meant_says_what_can(
    arguments: dict[str, Any], error: type[ActorbusError], says: str
) -> None:
    with pytest.raises(error, match=says):
        Node(**arguments)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"ask_timeout": 0}, "ask_timeout"),
        ({"ask_timout": 3}, "Did you mean 'ask_timeout'"),
        ({"pool_threads": "many"}, "pool_threads"),
        ({"beat": 20}, "suspect_after"),
    ],
)
def test_a_setting_that_cannot_be_meant_says_what_can(values: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidSettings, match=says):
        Settings(**values)


@pytest.mark.parametrize("failover", ["yes", "", 2, [True]])
def test_a_failover_that_cannot_be_meant_is_refused_and_nobody_is_spawned(failover: Any) -> None:
    with Node(settings=QUIET) as node:
        with pytest.raises(InvalidArgument, match="it must be True or False"):
            node.spawn(Echo, name="echo", failover=failover)

        assert node.registry.find() == []


@pytest.mark.parametrize(
    ("messages", "error", "says"),
    [
        ([("a", 1), ("a",)], InvalidArgument, r"message 1 cannot be \('a',\): it must be a pair"),
        ([("a", 1, 2)], InvalidArgument, "message 0 "),
        ([("a", 1), "ab"], InvalidArgument, "message 1 cannot be 'ab'"),
        ([("a", 1), 7], InvalidArgument, "message 1 cannot be 7"),
        ({"a": 1}, InvalidArgument, "message 0 cannot be 'a'"),
        (7, InvalidArgument, "messages cannot be 7: they must be pairs"),
        (None, InvalidArgument, "messages cannot be None"),
        ([("a", 1), (7, 1)], InvalidName, "no name for the recipient of message 1"),
    ],
)
def test_messages_that_are_no_pairs_are_told_to_nobody(
    messages: Any, error: type[ActorbusError], says: str
) -> None:
    with Node(settings=QUIET) as node:
        box = node.mailbox("a")

        with pytest.raises(error, match=says):
            node.tell_many(messages)

        assert box.take(1, timeout=0) == []


def test_shared_state_is_read_and_not_written_once_the_node_has_stopped() -> None:
    with Node(settings=QUIET) as node:
        node.context.set("a", 1)
        private = node.context.namespace("agent/writer").bound_to("writer")
        private.set("b", 1)
    late: list[Callable[[], object]] = [
        lambda: node.context.set("a", 2),
        lambda: node.context.delete("a"),
        lambda: node.context.increment("a"),
        lambda: node.context.update("a", lambda old: old + 1),
        lambda: node.context.compare_and_set("a", 2, 1),
        lambda: node.context.commit(set={"a": 2}),
        lambda: node.context.watch("a", print),
        lambda: private.set("b", 2),
        lambda: private.grant("reader", "read"),
    ]

    for write in late:
        with pytest.raises(BusClosed, match="the node has stopped"):
            write()

    assert node.context.snapshot() == {"a": 1}
    assert private.get("b") == 1


@pytest.mark.parametrize("call", ["drain", "flush", "stop"])
@pytest.mark.parametrize("timeout", [-1, "5", float("nan"), float("inf")])
def test_a_wait_that_cannot_be_meant_is_refused(call: str, timeout: Any) -> None:
    with Node(settings=QUIET) as node, pytest.raises(InvalidArgument, match="seconds"):
        getattr(node, call)(timeout)


def test_a_setting_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTORBUS_ASK_TIMEOUT", "7")

    assert Settings().ask_timeout == 7


def test_a_variable_that_is_no_setting_says_which_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTORBUS_ASK_TIMOUT", "7")

    with pytest.raises(InvalidSettings, match="ACTORBUS_ASK_TIMEOUT"):
        Settings()


def test_an_unwritable_history_is_said_at_the_start(tmp_path: Path) -> None:
    node = Node(audit=f"sqlite:///{tmp_path}/missing/folder/h.db")

    with pytest.raises(AuditUnavailable):
        node.start()


# -- start and stop


def test_a_node_that_is_not_running_takes_nothing() -> None:
    node = Node(settings=QUIET)

    with pytest.raises(BusClosed, match="with Node"):
        node.spawn(Echo)
    with pytest.raises(BusClosed):
        node.tell("echo", "x")
    with pytest.raises(BusClosed):
        node.ask("echo", "x").get()
    with pytest.raises(BusClosed):
        node.broadcast("x")


def test_stopping_twice_or_before_starting_does_nothing() -> None:
    never_started, stopped = Node(settings=QUIET), Node(settings=QUIET).start()

    never_started.stop()
    stopped.stop()
    stopped.stop()

    with pytest.raises(BusClosed, match="new Node"):
        never_started.start()
    with pytest.raises(BusClosed, match="new Node"):
        stopped.start()


def test_starting_twice_is_starting_once() -> None:
    with Node(settings=QUIET).start() as node:
        assert node.spawn(Echo).ask("x").get() == "x"


def test_no_thread_outlives_its_node() -> None:
    before = set(threading.enumerate())
    with Node(settings=QUIET) as node:
        node.spawn(Echo).ask("x").get()
        node.context.watch("", print)
        node.context.set("a", 1)
        node.spawn(type("Own", (Echo,), {"dispatcher": "thread"})).ask("x").get()

    assert set(threading.enumerate()) - before == set()


def test_leaving_normally_handles_what_waits() -> None:
    seen: list[int] = []

    class Slow(Agent):
        @handles
        def work(self, number: int) -> None:
            seen.append(number)

    with Node(settings=QUIET) as node:
        ref = node.spawn(Slow)
        for number in range(5_000):
            ref.tell(number)

    assert seen == list(range(5_000))


def test_leaving_by_an_exception_stops_at_once() -> None:
    gate, started = threading.Event(), threading.Event()
    node = Node(settings=QUIET)

    def fail_with_work_waiting() -> None:
        with node:
            ref = node.spawn(Held, gate, started, name="held")
            ref.tell("in hand")
            assert started.wait(SOON)
            ref.tell("waits")
            threading.Timer(0.05, gate.set).start()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_with_work_waiting()

    assert [letter.message.payload for letter in node.dead_letters.list()] == ["waits"]
    assert node.dead_letters.list()[0].reason is Reason.STOPPED


def test_a_drain_that_takes_too_long_names_who_is_at_work() -> None:
    gate, started = threading.Event(), threading.Event()
    with Node(settings=QUIET) as node:
        node.spawn(Held, gate, started, name="held").tell("x")

        with pytest.raises(NotDrained) as late:
            node.drain(0.02)
        gate.set()
        node.drain()

    assert late.value.names == ("held",)


def test_a_handler_that_does_not_return_is_left_behind_and_named() -> None:
    gate, started = threading.Event(), threading.Event()
    node = Node(settings=QUIET).start()
    ref = node.spawn(Held, gate, started, name="held")
    in_hand = ref.ask("in hand")
    assert started.wait(SOON)
    waiting = ref.ask("waits")

    with pytest.raises(NotStopped, match="held"):
        node.stop(0.05)

    for reply in (in_hand, waiting):
        with pytest.raises(AgentStopped):
            reply.get()
    gate.set()


def test_what_a_handler_left_behind_would_try_again_is_a_dead_letter() -> None:
    gate, started = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    class Failing(Agent):
        supervision = Supervision(retries=1)

        @handles
        def fail(self, word: str) -> None:
            threads.append(threading.current_thread())
            started.set()
            assert gate.wait(SOON)
            raise ValueError(word)

    node = Node(settings=QUIET).start()
    node.spawn(Failing).tell("in hand")
    assert started.wait(SOON)
    with pytest.raises(NotStopped):
        node.stop(0.05)

    gate.set()
    threads[0].join(SOON)

    letters = [(letter.message.payload, letter.reason) for letter in node.dead_letters.list()]
    assert letters == [("in hand", Reason.STOPPED)]


def test_stopping_lets_the_message_in_hand_end_and_drains_on_request() -> None:
    gate, started = threading.Event(), threading.Event()
    with Node(settings=QUIET) as node:
        ref = node.spawn(Held, gate, started, name="held")
        first = ref.ask("first")
        assert started.wait(SOON)
        second = ref.ask("second")

        ref.stop(drain=True)
        with pytest.raises(AgentStopped):
            ref.tell("third")
        gate.set()

        assert (first.get(), second.get()) == ("first", "second")


def test_a_name_is_free_again_once_its_agent_has_stopped() -> None:
    with Node(settings=QUIET) as node:
        old = node.spawn(Echo, name="echo")
        with pytest.raises(NameTaken):
            node.spawn(Echo, name="echo")
        future = old.actor_ref.stop(block=True, timeout=SOON)

        node.spawn(Echo, name="echo")

        assert future
        assert old.ask("x").get() == "x"


def test_two_nodes_on_one_transport_reach_each_other() -> None:
    transport = MemoryTransport()
    with (
        Node(transport, name="one", settings=QUIET) as one,
        Node(transport, name="two", settings=QUIET) as two,
    ):
        one.spawn(Echo, name="echo")

        answer = two.ask("echo", "hello").get()
        by_capability = two.any("echo").ask("again").get()
        two.context.set("shared", 1)

        assert (answer, by_capability, one.context.get("shared")) == ("hello", "again", 1)
        info = two.registry.get("echo")
        assert info is not None
        assert info.node == "one"
        with pytest.raises(NameTaken):
            two.spawn(Echo, name="echo")


def test_async_with_runs_handlers_on_the_loop_that_entered() -> None:
    class Where(Agent):
        @handles
        async def where(self, word: str) -> int:
            await asyncio.sleep(0)
            return threading.get_ident()

    async def main() -> tuple[int, int]:
        async with Node(settings=QUIET) as node:
            ref = node.spawn(Where)
            return await ref.ask("x"), threading.get_ident()

    where, here = asyncio.run(main())

    assert where == here


def test_with_runs_async_handlers_on_a_thread_of_its_own() -> None:
    class Where(Agent):
        @handles
        async def where(self, word: str) -> str:
            return threading.current_thread().name

    with Node(settings=QUIET) as node:
        assert node.spawn(Where).ask("x").get() == "actorbus-loop"


def test_leaving_async_with_drains() -> None:
    seen: list[int] = []

    class Slow(Agent):
        @handles
        async def work(self, number: int) -> None:
            await asyncio.sleep(0.001)
            seen.append(number)

    async def main() -> None:
        async with Node(settings=QUIET) as node:
            ref = node.spawn(Slow)
            for number in range(20):
                ref.tell(number)

    asyncio.run(main())

    assert seen == list(range(20))


def test_wait_ends_with_a_signal() -> None:
    code = (
        "import os, signal, threading\n"
        "from actorbus import Node\n"
        "with Node() as node:\n"
        "    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "    node.wait()\n"
        "print('left')\n"
    )

    done = run_apart(code)

    assert (done.stdout, done.returncode) == ("left\n", 0)


def test_a_node_writes_nothing_on_stdout() -> None:
    code = (
        "from actorbus import Agent, Node, handles\n"
        "class Bad(Agent):\n"
        "    @handles\n"
        "    def work(self, word: str) -> None:\n"
        "        raise ValueError(word)\n"
        "with Node() as node:\n"
        "    node.spawn(Bad, name='bad').tell('secret-payload')\n"
    )

    done = run_apart(code)

    assert done.stdout == ""
    assert "dead letter" in done.stderr
    assert json.loads(done.stderr.splitlines()[0])["agent"] == "bad"


# -- what it shows


def test_metrics_are_served_on_the_loopback() -> None:
    with Node(metrics_port=0, settings=QUIET) as node:
        node.spawn(Echo).ask("x").get()
        url = node.metrics_url or ""

        text = urllib.request.urlopen(url, timeout=SOON).read().decode()  # noqa: S310

    assert url.startswith("http://127.0.0.1:")
    assert 'kind="request"' in text


def test_history_is_written_and_read_back(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/history.db"
    with Node(audit=url, settings=QUIET) as node:
        ref = node.spawn(Echo, name="echo")
        ref.ask("x").get()
        ref.tell(42)
        node.drain()
        (request,) = node.audit.messages(recipient="echo", type="str")
        conversation = node.audit.conversation(request.id)

    later = Audit(url)
    kept = later.messages(agent="echo")
    later.close()

    assert [view.kind for view in conversation] == ["request", "reply"]
    assert sorted(view.status for view in kept) == [Status.DEAD, Status.HANDLED, Status.HANDLED]
    assert format_id(request.id) in str([format_id(view.id) for view in kept])


def test_a_node_without_history_says_how_to_have_one() -> None:
    with Node(settings=QUIET) as node, pytest.raises(AuditUnavailable, match="sqlite"):
        _ = node.audit


def test_unknown_names_come_out_of_the_reply_of_an_ask() -> None:
    with Node(settings=QUIET) as node:
        reply = node.ask("nobody", "x")

        with pytest.raises(UnknownRecipient):
            reply.get()


def test_importing_pulls_in_nothing_heavy() -> None:
    code = (
        "import sys, actorbus\n"
        "heavy = {'redis', 'sqlalchemy', 'rich', 'typer', 'anthropic', 'openai', 'structlog',\n"
        "         'prometheus_client', 'pydantic_settings', 'opentelemetry', 'alembic'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )

    done = run_apart(code)

    assert done.stdout == "[]\n"
