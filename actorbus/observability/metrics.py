"""What a node counts and times, for Prometheus.

Events are tallied in plain numbers under one lock, and become Prometheus' families only when
somebody looks. That costs under half of what a kept counter and two kept histograms of the client
library do, and it brings no ``_created`` series, which that library can only turn off for the
whole process. prometheus-client is imported when a ``Metrics`` is made.

Every label has a bounded number of values: whatever comes after the first `max_label_values` is
counted as ``other``. No label holds the name of an agent.
"""

from __future__ import annotations

import sys
import threading
from bisect import bisect_left
from collections import defaultdict
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any, Final

from actorbus import telemetry as events
from actorbus.errors import BusClosed, InvalidSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client import CollectorRegistry, Metric

    from actorbus.message import Ending
    from actorbus.telemetry import Event, Telemetry

BUCKETS: Final = (
    *(0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Upper bounds in seconds. Waking a thread costs about 85 us, so they start below that."""

OTHER: Final = "other"
_MAX_LABEL: Final = 128
_LOOPBACK: Final = "127.0.0.1"
_CLIENT_TIMEOUT: Final = 10.0
_STOP_TIMEOUT: Final = 5.0
_POLL: Final = 0.1

_COUNTERS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "messages": ("Deliveries that ended, by kind and how.", ("kind", "status")),
    "messages_sent": ("Messages accepted, by kind.", ("kind",)),
    "copies_sent": ("Mailboxes that took them, by kind.", ("kind",)),
    "retries": ("Messages tried again after a failure.", ()),
    "dead_letters": ("Dead letters, by reason.", ("reason",)),
    "dead_letters_forgotten": ("Dead letters dropped because there were too many.", ()),
    "agents_started": ("Agents started.", ()),
    "agents_ended": ("Agents ended, by reason.", ("reason",)),
    "restarts": ("Agents that failed and got a new instance.", ()),
    "resumes": ("Agents that failed and went on.", ()),
    "parked": ("Agents parked after failing too often.", ()),
    "hook_failures": ("Hooks that raised, by hook.", ("hook",)),
    "replies_unclaimed": ("Errors of asks that nobody fetched.", ()),
    "slow_handlers": ("Handlers that took too long.", ()),
    "member_changes": ("Changes of status that the registry saw.", ("status",)),
    "watch_failures": ("Watch callbacks that raised.", ()),
    "watch_skipped": ("Changes that watchers skipped, and were told so.", ()),
    "timer_failures": ("Timers that raised.", ()),
    "modules_broken": ("Modules the loader went on without.", ()),
}
_GAUGES: Final[Mapping[str, str]] = {
    "pool_threads": "Threads of the pool.",
    "pool_threads_blocked": "Those of them held by one handler for long.",
    "audit_stalled": "1 while history cannot be written.",
    "audit_waiting": "Records that wait to be written.",
}
_TIMES: Final[Mapping[str, str]] = {
    "waiting_seconds": "From sending a message to starting on it, by kind.",
    "handling_seconds": "From starting on a message to its end, by kind.",
}


class _Histogram:
    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds

    def copy(self) -> _Histogram:
        twin = _Histogram()
        twin.buckets = self.buckets.copy()
        twin.total = self.total
        return twin

    @property
    def count(self) -> int:
        return sum(self.buckets)

    def quantile(self, part: float) -> float:
        """The upper bound of the bucket in which that part of the values ends, in seconds."""
        wanted = part * self.count
        seen = 0
        for bound, number in zip(BUCKETS, self.buckets, strict=False):
            seen += number
            if seen >= wanted:
                return bound
        return float("inf")


class _Ends:
    """Deliveries of one kind that ended in one way, and the times of all of that kind."""

    __slots__ = ("count", "handling", "waiting")

    def __init__(self, waiting: _Histogram, handling: _Histogram) -> None:
        self.count = 0
        self.waiting = waiting
        self.handling = handling


class _Labels:
    """The values one label may take: the first so many, as text that any reader can show."""

    __slots__ = ("_known", "_limit", "_lock")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: dict[str, str] = {}
        self._lock = threading.Lock()

    def __call__(self, value: str) -> str:
        return self._known.get(value) or self._meet(value)

    def _meet(self, value: str) -> str:
        with self._lock:
            if len(self._known) >= self._limit:
                return OTHER
            shown = "".join(char if char.isprintable() else "?" for char in value[:_MAX_LABEL])
            return self._known.setdefault(value, shown or OTHER)


class Metrics:
    """Counts what happens in one node. Listens from when it is made until ``stop``.

    `depth` is asked at every look for the messages waiting, by agent *type*. Without a `registry`
    it makes its own, so any number of nodes share a process; a `registry` given takes one node.

    Raises:
        InvalidSettings: the registry has the metrics of a node already.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        *,
        node: str,
        depth: Callable[[], Mapping[str, int]] | None = None,
        registry: CollectorRegistry | None = None,
        max_label_values: int = 50,
    ) -> None:
        from prometheus_client import CollectorRegistry

        self._node = node
        self._depth = depth
        self._lock = threading.Lock()
        self._counts: defaultdict[tuple[str, ...], float] = defaultdict(float)
        self._gauges: dict[str, float] = {}
        self._times: defaultdict[tuple[str, str], _Histogram] = defaultdict(_Histogram)
        self._ends: dict[tuple[str, str], _Ends] = {}
        self._max_label_values = max_label_values
        self._kind = _Labels(max_label_values)
        self._status = _Labels(max_label_values)
        self._agent_type = _Labels(max_label_values)
        self._servers: list[MetricsServer] = []
        self._stopped = False
        self._on: Final[Mapping[type[Event], Callable[[Any], None]]] = self._listeners()
        self.registry = CollectorRegistry() if registry is None else registry
        try:
            self.registry.register(self)
        except ValueError:
            raise InvalidSettings(
                "this registry has the metrics of a node already; give each node its own"
            ) from None
        self._stop_listening = telemetry.listen(self._on_event)

    def stop(self) -> None:
        """Stop counting and serving. What was counted can still be read. Idempotent."""
        self._stopped = True
        self._stop_listening()
        while self._servers:
            self._servers.pop().stop()

    def serve(self, port: int) -> MetricsServer:
        """Answer ``GET /metrics`` on the loopback interface; port 0 picks a free one.

        Raises:
            InvalidSettings: the port is taken, or is none.
            BusClosed: the metrics have been stopped.
        """
        if self._stopped:
            raise BusClosed("the metrics of this node have stopped")
        server = MetricsServer(self.registry, port)
        self._servers.append(server)
        return server

    def text(self) -> str:
        """What Prometheus would scrape."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry).decode()

    def snapshot(self) -> dict[str, float]:
        """The same figures for people: no buckets, but how long half and 99 % took at most."""
        figures: dict[str, float] = {}
        for family in self.collect():
            for sample in family.samples:
                if not sample.name.endswith(("_bucket", "_info")):
                    figures[_written(sample.name, sample.labels)] = sample.value
        with self._lock:
            for (name, kind), times in self._times.items():
                for part in (0.5, 0.99):
                    key = _written(f"actorbus_{name}_p{part * 100:.0f}", {"kind": kind})
                    figures[key] = times.quantile(part)
        return figures

    def describe(self) -> Iterable[Metric]:
        """For the registry, which refuses the same names twice."""
        from prometheus_client.core import CounterMetricFamily

        return [CounterMetricFamily("actorbus_messages", _COUNTERS["messages"][0])]

    def collect(self) -> Iterable[Metric]:
        """For the registry: the figures as they stand."""
        depth = self._queue_depth()
        with self._lock:
            counts: dict[tuple[str, ...], float] = dict(self._counts)
            counts.update({("messages", *key): ends.count for key, ends in self._ends.items()})
            gauges = dict(self._gauges)
            times = {key: one.copy() for key, one in self._times.items()}
        return _families(self._node, counts, gauges, times, depth)

    def _queue_depth(self) -> dict[str, float]:
        waiting: defaultdict[str, float] = defaultdict(float)
        for agent_type, messages in self._depth().items() if self._depth else ():
            waiting[self._agent_type(agent_type)] += messages
        return waiting

    def _on_event(self, event: Event) -> None:
        listener = self._on.get(type(event))
        if listener is not None:
            listener(event)

    def _listeners(self) -> Mapping[type[Event], Callable[[Any], None]]:
        return {
            events.MessageEnded: self._on_ended,
            events.MessageSent: self._on_sent,
            events.PoolResized: self._on_pool,
            events.AuditStalled: self._on_stalled,
            events.AuditResumed: self._on_resumed,
            events.WatcherLagged: self._on_lagged,
            events.MessageRetried: self._count("retries"),
            events.DeadLettered: self._count("dead_letters", "reason"),
            events.DeadLetterForgotten: self._count("dead_letters_forgotten"),
            events.AgentStarted: self._count("agents_started"),
            events.AgentEnded: self._count("agents_ended", "reason"),
            events.AgentRestarting: self._count("restarts"),
            events.AgentResumed: self._count("resumes"),
            events.AgentParked: self._count("parked"),
            events.HookFailed: self._count("hook_failures", "hook"),
            events.ReplyUnclaimed: self._count("replies_unclaimed"),
            events.SlowHandler: self._count("slow_handlers"),
            events.MemberChanged: self._count("member_changes", "status"),
            events.WatcherFailed: self._count("watch_failures"),
            events.TimerFailed: self._count("timer_failures"),
            events.ModuleBroken: self._count("modules_broken"),
        }

    def _count(self, name: str, label: str | None = None) -> Callable[[Any], None]:
        """A listener that adds one, under the value of one field of the event."""
        if label is None:
            return lambda _event: self._add((name,), 1)
        bounded = _Labels(self._max_label_values)
        return lambda event: self._add((name, bounded(getattr(event, label))), 1)

    def _add(self, key: tuple[str, ...], amount: float) -> None:
        with self._lock:
            self._counts[key] += amount

    def _on_ended(self, event: events.MessageEnded) -> None:
        ending = event.ending
        ends = self._ends.get((ending.kind, ending.status)) or self._ends_of(ending)
        started = ending.started_at
        with self._lock:
            ends.count += 1
            if started is not None:
                ends.waiting.observe(started - ending.created_at)
                ends.handling.observe(ending.ended_at - started)

    def _ends_of(self, ending: Ending) -> _Ends:
        key = kind, _ = self._kind(ending.kind), self._status(ending.status)
        with self._lock:
            if key not in self._ends:
                waiting = self._times["waiting_seconds", kind]
                self._ends[key] = _Ends(waiting, self._times["handling_seconds", kind])
            return self._ends[key]

    def _on_sent(self, event: events.MessageSent) -> None:
        kind = self._kind(event.message.kind)
        with self._lock:
            self._counts["messages_sent", kind] += 1
            self._counts["copies_sent", kind] += event.copies

    def _on_pool(self, event: events.PoolResized) -> None:
        self._set(pool_threads=event.threads, pool_threads_blocked=event.blocked)

    def _on_stalled(self, event: events.AuditStalled) -> None:
        self._set(audit_stalled=1, audit_waiting=event.waiting)

    def _on_resumed(self, event: events.AuditResumed) -> None:
        self._set(audit_stalled=0, audit_waiting=0)

    def _on_lagged(self, event: events.WatcherLagged) -> None:
        self._add(("watch_skipped",), event.count)

    def _set(self, **gauges: float) -> None:
        with self._lock:
            self._gauges.update(gauges)


def _families(
    node: str,
    counts: Mapping[tuple[str, ...], float],
    gauges: Mapping[str, float],
    times: Mapping[tuple[str, str], _Histogram],
    depth: Mapping[str, float],
) -> Iterable[Metric]:
    from prometheus_client import core

    yield core.InfoMetricFamily("actorbus_node", "The node.", value={"name": node})
    for name, (words, labels) in _COUNTERS.items():
        counter = core.CounterMetricFamily(f"actorbus_{name}", words, labels=labels)
        for (counted, *values), number in counts.items():
            if counted == name:
                counter.add_metric(values, number)
        if not labels and (name,) not in counts:
            counter.add_metric((), 0)
        yield counter
    for name, words in _GAUGES.items():
        if name in gauges:
            yield core.GaugeMetricFamily(f"actorbus_{name}", words, value=gauges[name])
    waiting = core.GaugeMetricFamily(
        "actorbus_queue_depth", "Messages waiting, by type of agent.", labels=("agent_type",)
    )
    for agent_type, messages in depth.items():
        waiting.add_metric((agent_type,), messages)
    yield waiting
    for name, words in _TIMES.items():
        family = core.HistogramMetricFamily(f"actorbus_{name}", words, labels=("kind",))
        for (timed, kind), histogram in times.items():
            if timed == name:
                family.add_metric((kind,), _cumulative(histogram), histogram.total)
        yield family


def _cumulative(histogram: _Histogram) -> list[tuple[str, float]]:
    """Buckets as Prometheus has them: each counts all that is at most its bound."""
    seen = 0
    buckets = []
    for bound, number in zip((*BUCKETS, float("inf")), histogram.buckets, strict=True):
        seen += number
        buckets.append(("+Inf" if bound == float("inf") else repr(bound), float(seen)))
    return buckets


def _written(name: str, labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{name.removeprefix('actorbus_')}{f'{{{inside}}}' if inside else ''}"


class MetricsServer:
    """Serves a registry over HTTP to this machine only, on a daemon thread."""

    def __init__(self, registry: CollectorRegistry, port: int) -> None:
        if type(port) is not int or not 0 <= port <= 65_535:
            raise InvalidSettings(
                f"{port!r} is no port for the metrics; give 1 to 65535, or 0 for any free one"
            )
        try:
            self._http = _Loopback((_LOOPBACK, port), partial(_Scrape, registry))
        except OSError as error:
            raise InvalidSettings(
                f"the metrics cannot be served on port {port} ({error.strerror});"
                " give another, or 0 for any free one"
            ) from None
        self.port: int = self._http.server_address[1]
        self.url = f"http://{_LOOPBACK}:{self.port}/metrics"
        self._thread = threading.Thread(
            target=self._http.serve_forever,
            kwargs={"poll_interval": _POLL},
            name="actorbus-metrics",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """Close the port. Idempotent."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(_STOP_TIMEOUT)


class _Loopback(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        """Without the base's look-up of the host's name, which can wait for a DNS server."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = _LOOPBACK, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that left before its answer is no news either."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Scrape(BaseHTTPRequestHandler):
    timeout = _CLIENT_TIMEOUT

    def __init__(self, registry: CollectorRegistry, *args: Any) -> None:
        self._registry = registry
        super().__init__(*args)

    def do_GET(self) -> None:
        from prometheus_client.exposition import choose_encoder

        if self.path.split("?", 1)[0] not in ("/", "/metrics"):
            self.send_error(404, "the metrics are at /metrics")
            return
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        try:
            body = encode(self._registry)
        except Exception as error:  # noqa: BLE001 - whoever scrapes must hear of it
            self.send_error(500, f"the figures could not be read: {type(error).__name__}")
            return
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a scrape every few seconds is no news."""
