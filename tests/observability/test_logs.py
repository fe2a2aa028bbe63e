"""Every event has a line; no line shows what it must not, or does what it should not."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from pydantic import BaseModel, ValidationError

from actorbus import telemetry as events
from actorbus.errors import InvalidSettings
from actorbus.message import (
    Ending,
    IdSource,
    Message,
    MessageKind,
    Priority,
    Reason,
    Status,
    format_id,
)
from actorbus.observability.logs import Logs, agent_logger, configure_logs, wants_color, words
from actorbus.telemetry import Event, Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

IDS = IdSource()


def a_message(payload: Any = "the payload", **changes: Any) -> Message[Any]:
    message: Message[Any] = Message(
        id=IDS.make(1.0),
        kind=MessageKind.TELL,
        sender="scout",
        recipient="counter",
        topic=None,
        payload=payload,
        priority=Priority.HIGH,
        created_at=1.0,
        deadline=None,
        correlation_id=IDS.make(1.0),
        causation_id=None,
        run_id="run-1",
        attempt=1,
        hops=0,
        headers={"authorization": "the payload"},
    )
    return message.copy(**changes)


def an_ending(message: Message[Any]) -> Ending:
    return Ending(
        id=message.id,
        kind=message.kind,
        type=message.type,
        sender=message.sender,
        recipient=message.recipient,
        topic=None,
        priority=message.priority,
        created_at=1.0,
        started_at=1.25,
        ended_at=1.5,
        correlation_id=message.correlation_id,
        causation_id=None,
        run_id=message.run_id,
        attempt=1,
        status=Status.FAILED,
        reason=Reason.REJECTED,
        error="no",
        payload=message.payload,
    )


def sample(event: type[Event]) -> Event:
    """An event with a likely value in each field, whatever fields it has or will have."""
    message = a_message()
    likely: dict[str, Any] = {
        "str": "counter",
        "int": 3,
        "float": 0.5,
        "Message[Any]": message,
        "Ending": an_ending(message),
        "BaseException": ValueError("boom"),
        "tuple[str, ...]": ("a", "b"),
    }
    return event(**{name: likely[hint.split(" |")[0]] for name, hint in event.fields.items()})


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def write(
    event: Event, *, format: Any = "json", stream: io.StringIO | None = None, level: Any = "debug"
) -> str:
    written = stream or io.StringIO()
    telemetry = Telemetry()
    configure_logs(telemetry, node="eu-1", format=format, level=level, stream=written)
    telemetry.emit(event)
    return written.getvalue()


@pytest.fixture(autouse=True)
def no_color_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)


# A dataclass with slots leaves the class that it replaced behind until that is collected.
EVENTS = sorted(
    (event for event in Event.__subclasses__() if vars(events).get(event.__name__) is event),
    key=lambda event: event.__name__,
)


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_has_a_json_line(event: type[Event]) -> None:
    text = write(sample(event))

    line = json.loads(text)
    assert text.count("\n") == 1
    assert (line["event"], line["level"]) == (words(event), event.level)
    assert {"timestamp", "node", "agent"} <= line.keys()
    assert "the payload" not in text


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_has_a_pretty_line(event: type[Event]) -> None:
    text = write(sample(event), format="pretty")

    assert words(event) in text
    assert "the payload" not in text
    assert "\x1b" not in text
    assert "None" not in text


@pytest.mark.parametrize(
    "event",
    [event for event in EVENTS if "message" in event.fields],
)
def test_every_event_of_a_message_names_it(event: type[Event]) -> None:
    happened: Any = sample(event)

    line = json.loads(write(happened))

    message = happened.message
    assert line["node"] == "eu-1"
    assert line["agent"] == "counter"
    assert line["message"] == format_id(message.id)
    assert line["conversation"] == format_id(message.correlation_id)
    assert line["run"] == "run-1"


def test_the_end_of_a_message_says_how_it_ended_and_how_long_it_took() -> None:
    message = a_message()

    line = json.loads(write(events.MessageEnded(an_ending(message), message)))

    assert (line["status"], line["reason"], line["error"]) == ("failed", "rejected", "no")
    assert (line["waited"], line["took"]) == (0.25, 0.25)


def test_lines_below_the_level_are_not_written() -> None:
    quiet = write(sample(events.MessageSent), level="info")
    loud = write(sample(events.NodeStarted), level="info")

    assert quiet == ""
    assert loud != ""


def test_stopping_ends_the_lines_and_may_be_done_twice() -> None:
    stream = io.StringIO()
    telemetry = Telemetry()
    stop = configure_logs(telemetry, node="n", stream=stream)

    stop()
    stop()
    telemetry.emit(sample(events.NodeStarted))

    assert stream.getvalue() == ""
    assert not telemetry.active


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"level": "warn"}, "no log level 'warn'. Did you mean 'warning'"),
        ({"format": "yaml"}, "no log format 'yaml'.*Known: auto, json, pretty"),
    ],
)
def test_a_wrong_level_or_format_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidSettings, match=sentence):
        configure_logs(Telemetry(), node="n", **wrong)


# How it looks


def test_auto_is_json_unless_a_terminal_reads_it() -> None:
    assert write(sample(events.NodeStarted), format="auto").startswith("{")
    assert not write(sample(events.NodeStarted), format="auto", stream=Terminal()).startswith("{")


@pytest.mark.parametrize(
    ("stream", "environment", "colored"),
    [
        (Terminal(), {}, True),
        (io.StringIO(), {}, False),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"NO_COLOR": ""}, True),
        (io.StringIO(), {"FORCE_COLOR": "1"}, True),
        (io.StringIO(), {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
    ],
)
def test_colors_follow_the_environment_then_the_terminal(
    stream: io.StringIO,
    environment: dict[str, str],
    colored: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    fresh = type(stream)()

    text = write(sample(events.NodeStarted), format="pretty", stream=fresh)

    assert wants_color(stream, environment) is colored
    assert ("\x1b[" in text) is colored


# What no line may show or do


def test_control_characters_in_names_do_nothing() -> None:
    name = "a\x1b[2Jb\r\n\x9bc\u202ed\u2028"

    for shown_as in ("json", "pretty"):
        text = write(events.AgentStarted(agent=name, agent_type="t"), format=shown_as)

        assert text.count("\n") == 1
        assert text[:-1].isprintable()


def test_a_traceback_stays_readable_and_its_text_inert() -> None:
    try:
        raise ValueError("\x1b[31m two\nlines")
    except ValueError as error:
        failed = events.HookFailed(agent="a", hook="on_stop", error=error)

    text = write(failed, format="pretty")

    assert "in test_a_traceback_stays_readable" in text
    assert "\x1b" not in text


def test_a_name_cannot_pretend_to_be_another_field() -> None:
    text = write(events.AgentStarted(agent="a level=error", agent_type="t"), format="pretty")

    assert "agent='a level=error' agent_type=t" in text


def test_passwords_and_secrets_are_hidden() -> None:
    stream = io.StringIO()
    logs = Logs(node="n", format="json", stream=stream)
    log = logs.agent("a", lambda: None)
    logs.write("info", "started", {"bus": "redis://user:hunter2@host:1/0"})

    log.info("to postgresql://u:hunter2@h/d", api_key="hunter2", nested={"Password": "hunter2"})
    log.info("counted", tokens=7)

    assert "hunter2" not in stream.getvalue()
    assert "redis://user:***@host:1/0" in stream.getvalue()
    assert json.loads(stream.getvalue().splitlines()[2])["tokens"] == 7


def test_the_text_of_a_validation_error_does_not_quote_the_payload() -> None:
    class Text(BaseModel):
        body: int

    payload = {"body": "hunter2"}
    with pytest.raises(ValidationError) as wrong:
        Text.model_validate(payload)

    text = write(events.AgentResumed(agent="a", error=wrong.value))

    assert "hunter2" not in text
    assert "body: int_parsing" in json.loads(text)["error"]


def test_the_configuration_of_structlog_is_left_alone() -> None:
    before = structlog.get_config()
    theirs: list[Any] = []

    def to_them(_logger: Any, _method: str, line: Any) -> str:
        theirs.append(line)
        return "theirs"

    structlog.configure(processors=[to_them])
    try:
        text = write(sample(events.NodeStarted))
        configured = structlog.get_config()["processors"]
    finally:
        structlog.reset_defaults()

    assert json.loads(text)["event"] == "node started"
    assert theirs == []
    assert len(configured) == 1
    assert structlog.get_config() == before


def test_structlog_is_imported_with_the_first_line_and_stdout_stays_empty() -> None:
    program = """
import sys
from actorbus.observability.logs import configure_logs, agent_logger
from actorbus.telemetry import Telemetry, NodeStarted
telemetry = Telemetry()
configure_logs(telemetry, node="n")
log = agent_logger("n", "a", current=lambda: None)
assert "structlog" not in sys.modules
telemetry.emit(NodeStarted("n", "memory://"))
log.info("hello")
assert "structlog" in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stdout) == (0, "")
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == [
        "node started",
        "hello",
    ]


def test_a_line_that_cannot_be_written_is_counted_and_hurts_nobody() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    closed = io.StringIO()
    closed.close()

    for stream in (Full(), closed):
        logs = Logs(node="n", format="json", stream=stream)
        logs.agent("a", lambda: None).info("hello")

        assert logs.lost == 1


def test_a_stream_that_cannot_write_a_character_gets_it_escaped() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")

    Logs(node="n", format="pretty", stream=stream).agent("Łukasz", lambda: None).info("cześć")

    assert b"\\u0141ukasz" in raw.getvalue()


# An agent's own lines


def own_lines(use: Callable[[Any], None], message: Message[Any] | None = None) -> list[Any]:
    stream = io.StringIO()
    use(agent_logger("eu-1", "counter", current=lambda: message, format="json", stream=stream))
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_agents_line_carries_the_message_in_hand() -> None:
    message = a_message()

    (line,) = own_lines(lambda log: log.info("counted %d words", 7, file="a.txt"), message)

    assert line["event"] == "counted 7 words"
    assert (line["node"], line["agent"], line["file"]) == ("eu-1", "counter", "a.txt")
    assert line["message"] == format_id(message.id)
    assert line["conversation"] == format_id(message.correlation_id)
    assert line["run"] == "run-1"


def test_outside_a_message_an_agents_line_has_none() -> None:
    (line,) = own_lines(lambda log: log.warning("late"))

    assert (line["level"], line["agent"]) == ("warning", "counter")
    assert "message" not in line


def test_no_field_takes_the_place_of_ours() -> None:
    (line,) = own_lines(
        lambda log: log.info("x", message="mine", event="mine", self=1, level="mine"), a_message()
    )

    assert (line["event"], line["level"], line["self"]) == ("x", "info", 1)
    assert (line["message_"], line["event_"], line["level_"]) == ("mine", "mine", "mine")


def test_an_exception_is_logged_with_its_cause_and_without_local_variables() -> None:
    def fail() -> None:
        secret = "hunter2"  # noqa: F841
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise RuntimeError("outer") from error

    def use(log: Any) -> None:
        try:
            fail()
        except RuntimeError:
            log.exception("failed")

    (line,) = own_lines(use)

    assert line["level"] == "error"
    assert "KeyError: 'inner'" in line["exception"]
    assert line["exception"].endswith("RuntimeError: outer")


def test_whatever_is_logged_the_handler_goes_on() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    loop: list[Any] = []
    loop.append(loop)

    lines = own_lines(
        lambda log: log.info(
            "%d items",
            "many",
            broken=Broken(),
            loop=loop,
            nan=float("nan"),
            huge=10**5_000,
            keys={1: b"x"},
            bad="\ud800",
        )
    )

    assert lines[0]["event"] == "%d items ('many',)"
    assert "repr raised RuntimeError" in lines[0]["broken"]
    assert lines[0]["nan"] == "nan"


def test_lines_of_many_threads_and_tasks_carry_each_their_own_message() -> None:
    in_hand: ContextVar[Message[Any] | None] = ContextVar("in_hand", default=None)
    stream = io.StringIO()
    log = Logs(node="n", format="json", stream=stream).agent("a", in_hand.get)
    messages = [a_message() for _ in range(8)]

    def in_a_thread(message: Message[Any]) -> None:
        in_hand.set(message)
        for _ in range(20):
            log.info("line", mine=format_id(message.id))

    async def in_a_task(message: Message[Any]) -> None:
        in_hand.set(message)
        for _ in range(20):
            await asyncio.sleep(0)
            log.info("line", mine=format_id(message.id))

    async def tasks() -> None:
        await asyncio.gather(*map(in_a_task, messages[4:]))

    threads = [threading.Thread(target=in_a_thread, args=(one,)) for one in messages[:4]]
    for thread in threads:
        thread.start()
    asyncio.run(tasks())
    for thread in threads:
        thread.join(30)

    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == 160
    assert all(line["message"] == line["mine"] for line in lines)
