"""Every event as one line on stderr: JSON for machines, aligned and coloured for people.

structlog renders the lines, through a logger of our own: the global configuration of structlog
belongs to the program and stays as it is. It is imported when the first line is written.

No line shows a payload, the password in a URL, or a field that is named like a secret. Text that
others chose (names, errors) cannot break a line or move the cursor: control characters are
escaped. Logging never fails what it reports: a line that cannot be written is counted instead.
"""

from __future__ import annotations

import math
import os
import re
import sys
import threading
import time
import traceback
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

from pydantic import ValidationError

from actorbus.errors import InvalidSettings, did_you_mean
from actorbus.message import Ending, Message, format_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping

    from actorbus.telemetry import Event, Level, Telemetry

Format = Literal["auto", "json", "pretty"]

_RANKS: Final[Mapping[str, int]] = {"debug": 0, "info": 1, "warning": 2, "error": 3}
_FORMATS: Final = ("auto", "json", "pretty")
_BOUND: Final = ("node", "agent", "message", "conversation", "run")
_OURS: Final = frozenset({*_BOUND, "event", "level", "timestamp", "exception", "exc_info"})
_SECRET: Final = re.compile(
    r"(^|_)(password|passwd|secret|token|api_?key|private_key|authorization|cookie|credentials?)$",
    re.IGNORECASE,
)
_PASSWORD_IN_URL: Final = re.compile(r"(://[^/\s:@]*):[^/\s@]*@")
_HIDDEN: Final = "***"
_MAX_TEXT: Final = 2_000
_MAX_ERROR: Final = 500
_MAX_ITEMS: Final = 50
_MAX_DEPTH: Final = 4
_MAX_CAUSES: Final = 5
_MAX_FRAMES: Final = 20


def configure_logs(
    telemetry: Telemetry,
    *,
    node: str,
    format: Format = "auto",
    level: Level = "info",
    stream: TextIO | None = None,
) -> Callable[[], None]:
    """Write every event of at least `level` to `stream` (stderr). Returns the way to stop it.

    Raises:
        InvalidSettings: a format or level that is none.
    """
    return Logs(node=node, format=format, level=level, stream=stream).listen(telemetry)


def agent_logger(
    node: str,
    agent: str,
    *,
    current: Callable[[], Message[Any] | None],
    format: Format = "auto",
    level: Level = "info",
    stream: TextIO | None = None,
) -> AgentLog:
    """A logger for one agent; of a node with many agents take ``Logs.agent``, which shares."""
    return Logs(node=node, format=format, level=level, stream=stream).agent(agent, current)


class Logs:
    """Where and how one node writes its lines. Safe from any thread; cheap until the first line.

    ``auto`` is pretty on a terminal and JSON elsewhere. Colours follow ``NO_COLOR``, then
    ``FORCE_COLOR``, then whether `stream` is a terminal. `now` stamps the lines.

    Raises:
        InvalidSettings: a format or level that is none.
    """

    def __init__(
        self,
        *,
        node: str,
        format: Format = "auto",
        level: Level = "info",
        stream: TextIO | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.node = node
        self.rank = _RANKS[_one_of("log level", level, _RANKS)]
        self._format = _one_of("log format", format, _FORMATS)
        self._sink = _Sink(sys.stderr if stream is None else stream)
        self._now = now
        self._logger: Any = None

    @property
    def lost(self) -> int:
        """Lines that could not be written."""
        return self._sink.lost

    def listen(self, telemetry: Telemetry) -> Callable[[], None]:
        """Write the events of `telemetry`. Returns the way to stop it, which may be gone twice."""
        return telemetry.listen(self._on_event, every_message=self.rank <= _RANKS["debug"])

    def agent(self, agent: str, current: Callable[[], Message[Any] | None]) -> AgentLog:
        """What an agent's ``self.log`` is; `current` tells the message in hand on this thread."""
        return AgentLog(self, agent, current)

    def write(self, level: Level, event: str, fields: dict[str, Any]) -> None:
        if self._logger is None:
            self._logger = self._make_logger()
        getattr(self._logger, level)(event, fields=fields)

    def _on_event(self, event: Event) -> None:
        if _RANKS[event.level] >= self.rank:
            self.write(event.level, words(type(event)), describe(event, self.node))

    def _make_logger(self) -> Any:
        import structlog

        stream = self._sink.stream
        pretty = self._format == "pretty" or (self._format == "auto" and _is_terminal(stream))
        chain = [_flatten, structlog.processors.add_log_level, self._stamp]
        if pretty:
            chain += [
                _make_inert,
                structlog.dev.ConsoleRenderer(
                    colors=wants_color(stream, os.environ),
                    sort_keys=False,
                    exception_formatter=structlog.dev.plain_traceback,
                ),
            ]
        else:
            chain.append(structlog.processors.JSONRenderer())
        return structlog.wrap_logger(
            self._sink,
            processors=chain,
            wrapper_class=structlog.make_filtering_bound_logger(0),
            context_class=dict,
            cache_logger_on_first_use=False,
        ).bind()

    def _stamp(self, _logger: Any, _method: str, line: MutableMapping[str, Any]) -> Any:
        when = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="milliseconds")
        return {"timestamp": when.replace("+00:00", "Z"), "level": line.pop("level"), **line}


class AgentLog:
    """An agent's own lines: each carries node, agent, and the message and run in hand.

    Messages are formatted as in ``logging`` (``log.info("got %s", name)``), and fields follow as
    keywords (``log.info("got", name=name)``). A field named as one of ours gets a ``_`` at its end.
    """

    __slots__ = ("_agent", "_current", "_logs")

    def __init__(self, logs: Logs, agent: str, current: Callable[[], Message[Any] | None]) -> None:
        self._logs = logs
        self._agent = agent
        self._current = current

    def debug(self, event: str, /, *args: object, **fields: Any) -> None:
        self._write("debug", event, args, fields)

    def info(self, event: str, /, *args: object, **fields: Any) -> None:
        self._write("info", event, args, fields)

    def warning(self, event: str, /, *args: object, **fields: Any) -> None:
        self._write("warning", event, args, fields)

    def error(self, event: str, /, *args: object, **fields: Any) -> None:
        self._write("error", event, args, fields)

    def exception(self, event: str, /, *args: object, **fields: Any) -> None:
        """An error, with the traceback of the exception that is being handled."""
        self._write("error", event, args, {"exc_info": True, **fields})

    def _write(
        self, level: Level, event: str, args: tuple[object, ...], fields: dict[str, Any]
    ) -> None:
        if _RANKS[level] < self._logs.rank:
            return
        error = fields.pop("exc_info", None)
        if error is True:
            error = sys.exception()
        bound = _bound(self._logs.node, self._agent, self._current())
        own = {f"{key}_" if key in _OURS else key: one for key, one in fields.items()}
        if isinstance(error, BaseException):
            own["exception"] = _frames(error)
        self._logs.write(level, _filled(event, args), {**bound, **own})


def words(event: type[Event]) -> str:
    """How a line names an event: ``MessageEnded`` is "message ended"."""
    return _words(event.__name__)


@lru_cache(maxsize=256)
def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower()


def describe(event: Event, node: str) -> dict[str, Any]:
    """The fields of an event's line. Every event of a message names message and run.

    What is no text, number or name is shown as its type: so no event can show a payload.
    """
    message: Message[Any] | None = getattr(event, "message", None)
    own: dict[str, Any] = {}
    for name in event.fields:
        value = getattr(event, name)
        match value:
            case Message():
                own |= _of_message(value)
            case Ending():
                own |= _of_ending(value)
            case BaseException():
                own |= {"error": _sentence(value), "exception": _frames(value)}
            case _:
                own[name] = value if _is_plain(value) else f"<{type(value).__name__}>"
    recipient = own.get("recipient")
    bound = _bound(getattr(event, "node", node), getattr(event, "agent", recipient), message)
    return {**bound, **{key: one for key, one in own.items() if key not in bound}}


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(isinstance(one, str | int | float) for one in value)
    return value is None or isinstance(value, str | int | float)


def _bound(node: str, agent: str | None, message: Message[Any] | None) -> dict[str, Any]:
    if message is None:
        return {"node": node, "agent": agent}
    return {
        "node": node,
        "agent": agent,
        "message": format_id(message.id),
        "conversation": format_id(message.correlation_id),
        "run": message.run_id,
    }


def _of_message(message: Message[Any]) -> dict[str, Any]:
    return {
        "kind": str(message.kind),
        "type": message.type,
        "sender": message.sender,
        "recipient": message.recipient,
        "topic": message.topic,
        "priority": message.priority.name,
        "attempt": message.attempt,
    }


def _of_ending(ending: Ending) -> dict[str, Any]:
    started = ending.started_at
    return {
        "status": str(ending.status),
        "reason": ending.reason and str(ending.reason),
        "error": ending.error and ending.error[:_MAX_ERROR],
        "recipient": ending.recipient,
        "waited": None if started is None else round(started - ending.created_at, 6),
        "took": None if started is None else round(ending.ended_at - started, 6),
    }


def _sentence(error: BaseException) -> str:
    """An error in a line. pydantic's own text would quote the input, which is a payload."""
    if isinstance(error, ValidationError):
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        shown = ", ".join(f"{(*one['loc'], 'it')[0]}: {one['type']}" for one in problems[:5])
        return f"ValidationError: {error.error_count()} in {error.title} ({shown})"
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001 - the error's own __str__
        text = f"(no text: its __str__ raised {type(broken).__name__})"
    return f"{type(error).__name__}: {text[:_MAX_ERROR]}"


def _frames(error: BaseException) -> str:
    """Where an error came from, causes first: frames and sentences, never local variables."""
    told: list[str] = []
    one: BaseException | None = error
    while one is not None and len(told) < _MAX_CAUSES:
        frames = "".join(traceback.format_tb(one.__traceback__, limit=-_MAX_FRAMES))
        told.append(f"{frames}{_sentence(one)}")
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return "\n".join(reversed(told))


def _filled(event: str, args: tuple[object, ...]) -> str:
    if not args:
        return str(event)
    try:
        return str(event) % args
    except (TypeError, ValueError):
        return f"{event} {args!r}"


def _flatten(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> Any:
    """The fields as they may be shown, beside the event, which came first."""
    fields = line.pop("fields")
    event = _redact(line.pop("event"))[:_MAX_TEXT]
    return {"event": event, **{str(key): _shown(str(key), one) for key, one in fields.items()}}


def _shown(key: str, value: Any, depth: int = 0) -> Any:
    """A field as any renderer can write it, and nobody minds who reads it."""
    if _SECRET.search(key):
        return _HIDDEN
    match value:
        case None | bool():
            return value
        case str():
            return _redact(str.__str__(value))[: None if key == "exception" else _MAX_TEXT]
        case int():
            return int(value) if value.bit_length() <= 64 else hex(value)[:_MAX_ITEMS]
        case float():
            return float(value) if math.isfinite(value) else str(value)
        case dict() if depth < _MAX_DEPTH:
            entries = list(value.items())[:_MAX_ITEMS]
            return {str(name): _shown(str(name), one, depth + 1) for name, one in entries}
        case list() | tuple() | set() | frozenset() if depth < _MAX_DEPTH:
            return [_shown("", one, depth + 1) for one in list(value)[:_MAX_ITEMS]]
        case _:
            return _redact(_repr(value))[:_MAX_TEXT]


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as broken:  # noqa: BLE001 - the value's own __repr__
        return f"<{type(value).__name__}, whose repr raised {type(broken).__name__}>"


def _redact(text: str) -> str:
    return _PASSWORD_IN_URL.sub(rf"\1:{_HIDDEN}@", text) if "://" in text else text


def _make_inert(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> Any:
    """For a terminal: nothing absent, nothing that a terminal would obey."""
    inert = {}
    for key, value in line.items():
        if value is None:
            continue
        name = _escaped(key)
        if key == "exception":
            inert[name] = "\n".join(map(_escaped, value.split("\n")))
        elif isinstance(value, str):
            inert[name] = _escaped(value)
        else:
            inert[name] = value
    return inert


def _escaped(text: str) -> str:
    return text if text.isprintable() else repr(text)[1:-1]


def wants_color(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether lines to `stream` are coloured, as no-color.org and force-color.org say."""
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR"):
        return True
    return _is_terminal(stream) and environment.get("TERM") != "dumb"


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def _one_of(what: str, value: str, known: Any) -> str:
    if value not in known:
        raise InvalidSettings(
            f"no {what} {value!r}.{did_you_mean(str(value), known)} Known: {', '.join(known)}."
        )
    return value


class _Sink:
    """Writes whole lines to a stream, one at a time. Reentrant, for a signal handler that logs."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.lost = 0
        self._lock = threading.RLock()

    def write(self, line: str) -> None:
        with self._lock:
            try:
                self._put(f"{line}\n")
            except (OSError, ValueError):  # a closed stream, a full disk, a reader that left
                self.lost += 1

    debug = info = warning = error = write

    def _put(self, line: str) -> None:
        try:
            self.stream.write(line)
        except UnicodeEncodeError:
            encoding = getattr(self.stream, "encoding", None) or "ascii"
            self.stream.write(line.encode(encoding, "backslashreplace").decode(encoding))
        self.stream.flush()
