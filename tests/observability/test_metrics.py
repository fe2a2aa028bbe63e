"""What happens is counted once, under labels that stay few, and served to this machine only."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from actorbus import telemetry as events
from actorbus.errors import BusClosed, InvalidSettings
from actorbus.message import Ending, IdSource, Message, MessageKind, Priority, Reason, Status
from actorbus.observability.metrics import BUCKETS, Metrics
from actorbus.telemetry import Telemetry

IDS = IdSource()


def a_message(kind: str = "tell") -> Message[Any]:
    first = IDS.make(1.0)
    return Message(
        id=first,
        kind=MessageKind(kind),
        sender=None,
        recipient="counter",
        topic=None,
        payload=1,
        priority=Priority.NORMAL,
        created_at=1.0,
        deadline=None,
        correlation_id=first,
        causation_id=None,
        run_id=None,
        attempt=1,
        hops=0,
        headers=None,
    )


def ended(
    status: str = "handled",
    *,
    kind: str = "tell",
    waited: float = 0.01,
    took: float = 0.02,
    started: bool = True,
) -> events.MessageEnded:
    message = a_message(kind)
    ending = Ending(
        id=message.id,
        kind=message.kind,
        type="int",
        sender=None,
        recipient="counter",
        topic=None,
        priority=message.priority,
        created_at=1.0,
        started_at=1.0 + waited if started else None,
        ended_at=1.0 + waited + took,
        correlation_id=message.id,
        causation_id=None,
        run_id=None,
        attempt=1,
        status=Status(status),
        reason=None,
        error=None,
    )
    return events.MessageEnded(ending, message)


def watched(**options: Any) -> tuple[Telemetry, Metrics]:
    telemetry = Telemetry()
    return telemetry, Metrics(telemetry, node="n", **options)


def get(url: str, accept: str = "") -> tuple[int, str, str]:
    request = urllib.request.Request(url, headers={"Accept": accept})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return answer.status, answer.headers["Content-Type"], answer.read().decode()


@pytest.mark.parametrize("kind", list(MessageKind))
@pytest.mark.parametrize("status", list(Status))
def test_every_end_of_a_message_is_counted_by_kind_and_status(
    kind: MessageKind, status: Status
) -> None:
    telemetry, metrics = watched()

    telemetry.emit(ended(status, kind=kind))
    telemetry.emit(ended(status, kind=kind))

    figures = metrics.snapshot()
    assert figures[f'messages_total{{kind="{kind}",status="{status}"}}'] == 2
    assert sum(value for key, value in figures.items() if key.startswith("messages_total")) == 2


@pytest.mark.parametrize("reason", list(Reason))
def test_dead_letters_are_counted_by_reason(reason: Reason) -> None:
    telemetry, metrics = watched()

    telemetry.emit(events.DeadLettered(a_message(), "counter", reason, None))

    assert metrics.snapshot()[f'dead_letters_total{{reason="{reason}"}}'] == 1


@pytest.mark.parametrize(
    ("event", "key", "value"),
    [
        (events.MessageSent(a_message("event"), 3), 'messages_sent_total{kind="event"}', 1),
        (events.MessageSent(a_message("event"), 3), 'copies_sent_total{kind="event"}', 3),
        (events.AgentRestarting("a", ValueError(), 1, 0.1), "restarts_total", 1),
        (events.AgentResumed("a", ValueError()), "resumes_total", 1),
        (events.AgentParked("a", None), "parked_total", 1),
        (events.MessageRetried("a", a_message(), ValueError(), 1.0), "retries_total", 1),
        (events.PoolResized(threads=8, blocked=3), "pool_threads", 8),
        (events.PoolResized(threads=8, blocked=3), "pool_threads_blocked", 3),
        (events.MemberChanged("a", "dead", "n"), 'member_changes_total{status="dead"}', 1),
        (events.WatcherLagged("plan", 40), "watch_skipped_total", 40),
        (events.WatcherFailed("plan", ValueError()), "watch_failures_total", 1),
        (events.HookFailed("a", "on_stop", ValueError()), 'hook_failures_total{hook="on_stop"}', 1),
        (events.AuditStalled("disk full", 7), "audit_stalled", 1),
        (events.AuditStalled("disk full", 7), "audit_waiting", 7),
        (events.AuditResumed(7), "audit_stalled", 0),
    ],
)
def test_other_events_are_counted_too(event: events.Event, key: str, value: float) -> None:
    telemetry, metrics = watched()

    telemetry.emit(event)

    assert metrics.snapshot()[key] == value


def test_a_counter_that_nothing_has_raised_yet_is_there_at_zero() -> None:
    _, metrics = watched()

    assert metrics.snapshot()["restarts_total"] == 0


def test_latencies_fall_into_buckets_and_their_sums_are_exact() -> None:
    telemetry, metrics = watched()

    telemetry.emit(ended(waited=0.000_04, took=0.003))
    telemetry.emit(ended(waited=0.25, took=500.0))
    telemetry.emit(ended(started=False))

    in_bucket = {
        sample.labels["le"]: sample.value
        for family in text_string_to_metric_families(metrics.text())
        for sample in family.samples
        if sample.name == "actorbus_handling_seconds_bucket"
    }
    figures = metrics.snapshot()
    assert [in_bucket[le] for le in ("0.0025", "0.005", "60.0", "+Inf")] == [0, 1, 1, 2]
    assert figures['waiting_seconds_sum{kind="tell"}'] == pytest.approx(0.250_04)
    assert figures['waiting_seconds_count{kind="tell"}'] == 2
    assert figures['waiting_seconds_p50{kind="tell"}'] == 0.000_05
    assert figures['handling_seconds_p99{kind="tell"}'] == float("inf")
    assert BUCKETS[0] == 0.000_05


def test_the_depth_of_queues_is_asked_for_at_each_look() -> None:
    waiting = {"Counter": 3}
    _, metrics = watched(depth=lambda: waiting)
    before = metrics.snapshot()

    waiting["Counter"] = 5

    assert before['queue_depth{agent_type="Counter"}'] == 3
    assert metrics.snapshot()['queue_depth{agent_type="Counter"}'] == 5


def test_labels_take_so_many_values_and_count_the_rest_as_other() -> None:
    telemetry, metrics = watched(
        max_label_values=3, depth=lambda: {f"Type{n}": 1 for n in range(10)}
    )

    for n in range(10):
        telemetry.emit(ended(kind=f"kind-{n}"))
        telemetry.emit(events.DeadLettered(a_message(), "a", f"reason-{n}", None))
        telemetry.emit(events.AgentEnded("a", f"why {n}"))

    figures = metrics.snapshot()
    assert figures['messages_total{kind="other",status="handled"}'] == 7
    assert figures['dead_letters_total{reason="other"}'] == 7
    assert figures['agents_ended_total{reason="other"}'] == 7
    assert figures['queue_depth{agent_type="other"}'] == 7
    assert figures['handling_seconds_count{kind="other"}'] == 7


def test_values_that_are_no_plain_text_do_not_break_the_exposition() -> None:
    telemetry, metrics = watched()

    for reason in ("\ud800", 'a"b\nc\x1b[2J', "", "x" * 10_000):
        telemetry.emit(events.DeadLettered(a_message(), "a", reason, None))

    text = metrics.text()
    families = {one.name: one for one in text_string_to_metric_families(text)}
    assert sum(sample.value for sample in families["actorbus_dead_letters"].samples) == 4
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) < 300


def test_no_name_of_an_agent_and_no_time_of_creation_is_exposed() -> None:
    telemetry, metrics = watched()

    telemetry.emit(events.AgentStarted("counter-17", "Counter"))
    telemetry.emit(ended())

    assert "counter-17" not in metrics.text()
    assert "_created" not in metrics.text()


def test_no_event_is_missed_when_many_threads_emit() -> None:
    telemetry, metrics = watched()

    def work() -> None:
        for _ in range(2_000):
            telemetry.emit(ended())

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    figures = metrics.snapshot()
    assert figures['messages_total{kind="tell",status="handled"}'] == 8_000
    assert figures['waiting_seconds_count{kind="tell"}'] == 8_000


# Nodes and registries


def test_two_nodes_of_a_process_count_and_serve_apart() -> None:
    (first, first_metrics), (second, second_metrics) = watched(), watched()
    first.emit(ended())

    texts = [get(metrics.serve(0).url)[2] for metrics in (first_metrics, second_metrics)]
    first_metrics.stop()
    second_metrics.stop()

    line = 'actorbus_messages_total{kind="tell",status="handled"} 1.0'
    assert [line in text for text in texts] == [True, False]
    assert second.active is False


def test_the_global_registry_is_left_alone() -> None:
    before = sum(1 for _ in REGISTRY.collect())

    watched()

    assert sum(1 for _ in REGISTRY.collect()) == before


def test_a_registry_of_the_users_takes_one_node() -> None:
    registry = CollectorRegistry()
    telemetry, metrics = watched(registry=registry)
    telemetry.emit(ended())

    assert (
        registry.get_sample_value("actorbus_messages_total", {"kind": "tell", "status": "handled"})
        == 1
    )
    assert metrics.registry is registry
    with pytest.raises(InvalidSettings, match="give each node its own"):
        watched(registry=registry)


def test_prometheus_client_is_imported_when_metrics_are_made() -> None:
    program = """
import sys
from actorbus.observability.metrics import Metrics
from actorbus.telemetry import Telemetry
assert "prometheus_client" not in sys.modules
Metrics(Telemetry(), node="n")
assert "prometheus_client" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# Over HTTP


def test_a_scrape_gets_the_format_it_asks_for() -> None:
    telemetry, metrics = watched(depth=lambda: {"Counter": 2})
    telemetry.emit(ended())
    server = metrics.serve(0)

    status, plain, text = get(server.url)
    _, openmetrics, other = get(
        server.url, "application/openmetrics-text; version=1.0.0; charset=utf-8"
    )
    metrics.stop()

    assert (status, plain.split(";")[0]) == (200, "text/plain")
    assert openmetrics.startswith("application/openmetrics-text")
    assert other.endswith("# EOF\n")
    assert 'actorbus_queue_depth{agent_type="Counter"} 2.0' in text
    assert list(text_string_to_metric_families(text))


def test_only_this_machine_is_answered_and_only_at_metrics() -> None:
    _, metrics = watched()
    server = metrics.serve(0)

    with pytest.raises(urllib.error.HTTPError) as wrong:
        get(server.url.replace("/metrics", "/etc/passwd"))
    wrong.value.close()
    metrics.stop()

    assert wrong.value.code == 404
    assert server.url == f"http://127.0.0.1:{server.port}/metrics"


def test_figures_that_cannot_be_read_are_a_server_error() -> None:
    def broken() -> dict[str, int]:
        raise RuntimeError("hunter2")

    _, metrics = watched(depth=broken)
    server = metrics.serve(0)

    with pytest.raises(urllib.error.HTTPError) as wrong:
        get(server.url)
    body = wrong.value.read().decode()
    metrics.stop()

    assert wrong.value.code == 500
    assert "hunter2" not in body


def test_a_port_that_is_taken_or_none_is_a_clear_error() -> None:
    _, metrics = watched()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(InvalidSettings, match=f"port {port} .*give another, or 0 for any"):
            metrics.serve(port)
    for wrong in (-1, 65_536, "80", True, None):
        with pytest.raises(InvalidSettings, match="is no port for the metrics"):
            metrics.serve(wrong)  # type: ignore[arg-type]


def test_stopping_ends_counting_and_serving_and_may_be_done_twice() -> None:
    telemetry, metrics = watched()
    server = metrics.serve(0)
    telemetry.emit(ended())

    metrics.stop()
    metrics.stop()
    server.stop()
    telemetry.emit(ended())

    assert metrics.snapshot()['messages_total{kind="tell",status="handled"}'] == 1
    with pytest.raises(urllib.error.URLError):
        get(server.url)
    with pytest.raises(BusClosed):
        metrics.serve(0)


def test_metrics_that_served_nothing_stop_too() -> None:
    telemetry, metrics = watched()

    metrics.stop()

    assert not telemetry.active
