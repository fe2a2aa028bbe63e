"""A node whose history is on PostgreSQL, from its first message to what SQL finds."""

from __future__ import annotations

import gc
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, select, text

from actorbus import Agent, AuditUnavailable, Node, Reject, handles
from actorbus.message import IdSource, MessageKind, Reason, Status
from actorbus.persistence import appender as appender_module
from actorbus.persistence import database as database_module
from actorbus.persistence import recorder as recorder_module
from actorbus.persistence import tenancy
from actorbus.persistence.audit import Audit
from actorbus.persistence.database import Database
from actorbus.persistence.models import AgentMessage, Base
from actorbus.persistence.pressure import Health
from actorbus.persistence.recorder import Recorder
from actorbus.settings import Settings
from actorbus.telemetry import AuditSpilled, AuditStalled, Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection

THE_OTHERS = (
    "SELECT pid FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
BREAK_THE_OTHERS = (
    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
WAIT_FOR_THE_OTHERS = f"""
DO $$ BEGIN
  FOR turn IN 1..500 LOOP
    PERFORM pg_stat_clear_snapshot();
    IF NOT EXISTS ({THE_OTHERS}) THEN RETURN; END IF;
    PERFORM pg_sleep(0.02);
  END LOOP;
END $$
"""
"""At most 10 s, till they are gone: a server's process ends after its client's connection."""
SLACK = 3.0
"""Seconds that a loaded machine may take longer."""
HOSTILE = "\0 \ud800 \x1b[2J '; DROP TABLE agent_messages; -- \\u0000"


class Clerk(Agent):
    @handles
    def book(self, order: dict[str, Any]) -> str:
        if order["total"] < 0:
            raise Reject(f"no such total: {HOSTILE}")
        return f"booked for {order['customer']}"


@pytest.fixture
def told(postgres_url: str) -> Iterator[Audit]:
    """The history of a node that has stopped."""
    with Node(audit=postgres_url) as node:
        clerk = node.spawn(Clerk, name="clerk")
        clerk.ask({"customer": "Ærø", "total": 7, "lines": [{"sku": "x-1"}]}).get(20)
        clerk.tell({"customer": "nobody", "total": -1}, headers={"trace": HOSTILE})
        clerk.tell({HOSTILE: HOSTILE, "customer": HOSTILE, "total": 1})
        node.drain(20)
    audit = Audit(postgres_url)
    yield audit
    audit.close()


@pytest.fixture
def connection(postgres_url: str, told: Audit) -> Iterator[Connection]:
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_every_message_is_kept_with_what_became_of_it(told: Audit) -> None:
    asked, rejected, hostile, reply = sorted(
        told.messages(), key=lambda one: (one.kind == MessageKind.REPLY, one.id)
    )

    assert [one.status for one in (asked, rejected, hostile, reply)] == [
        Status.HANDLED,
        Status.DEAD,
        Status.HANDLED,
        Status.HANDLED,
    ]
    assert asked.payload == {"customer": "Ærø", "total": 7, "lines": [{"sku": "x-1"}]}
    assert (reply.payload, reply.causation_id) == ("booked for Ærø", asked.id)
    assert (rejected.reason, rejected.recipient) == (Reason.REJECTED, "clerk")
    assert told.conversation(reply.id) == [asked, reply]


def test_payloads_and_errors_are_found_by_their_text(told: Audit) -> None:
    wanted: list[tuple[dict[str, Any], list[int]]] = [
        ({"text": "ærØ", "recipient": "clerk"}, [7]),
        ({"text": "X-1"}, [7]),
        ({"text": "no such total"}, [-1]),
        ({"text": "drop table agent_messages", "status": "handled"}, [1]),
        ({"text": "%"}, []),
        ({"status": "dead"}, [-1]),
        ({"recipient": "clerk"}, [1, -1, 7]),
    ]

    found = [told.messages(**filters) for filters, _ in wanted]

    assert [
        [one.payload["total"] for one in page if one.recipient == "clerk"] for page in found
    ] == [totals for _, totals in wanted]


def test_payloads_answer_to_sql_as_jsonb(connection: Connection) -> None:
    found = connection.execute(
        text(
            "SELECT payload ->> 'customer', payload #>> '{lines,0,sku}' FROM agent_messages"
            " WHERE payload @> '{\"total\": 7}'"
        )
    )

    assert [tuple(row) for row in found] == [("Ærø", "x-1")]


def test_hostile_text_is_kept_and_harmless(told: Audit) -> None:
    dead = told.messages(status="dead")[0]
    kept = told.messages(text="drop table", status="handled")[0]

    harmless = HOSTILE.replace("\0", "\ufffd").replace("\ud800", "\\ud800")
    assert harmless.split("\\u0000")[0] in str(dead.error)
    assert "DROP TABLE" in dead.headers["trace"]
    assert "DROP TABLE" in kept.payload["customer"]
    assert "\0" not in repr((dead, kept))


def in_the_order_written(url: str) -> list[Any]:
    engine = create_engine(url)
    with engine.connect() as connection:
        order = select(AgentMessage.payload).order_by(AgentMessage.chain, AgentMessage.seq)
        found = list(connection.scalars(order))
    engine.dispose()
    return found


def test_a_server_that_is_away_loses_nothing_and_mixes_up_nothing(
    own_server: Any, history_at: Any, tmp_path: Path
) -> None:
    history = history_at(own_server.url)
    recorder = history.record(audit_ring=20, audit_spill_dir=str(tmp_path))
    recorder.sent(history.message(0))
    recorder.flush(10)

    own_server.stop()
    for number in range(1, 60):
        recorder.sent(history.message(number))
    history.seen.wait_for(AuditSpilled)
    during = recorder.health
    own_server.start()
    recorder.flush(30)

    assert during is Health.SPILLING
    assert in_the_order_written(own_server.url) == list(range(60))
    assert history.audit.verify().findings == ()


def sent_until_refused(recorder: Recorder, history: Any) -> int:
    """How many messages were taken, numbered from 1."""
    for number in range(1, 60):
        try:
            recorder.sent(history.message(number))
        except AuditUnavailable as error:
            assert "were not written" in str(error)  # noqa: PT017 - the number is wanted too
            return number - 1
    pytest.fail("nothing was refused")


def test_a_server_that_is_away_blocks_senders_that_have_no_spill(
    own_server: Any, history_at: Any
) -> None:
    history = history_at(own_server.url)
    recorder = history.record(audit_ring=4, send_timeout=0.1)
    recorder.sent(history.message(0))
    recorder.flush(10)

    own_server.stop()
    taken = sent_until_refused(recorder, history)
    own_server.start()
    recorder.flush(30)

    assert 0 < taken <= 8
    assert in_the_order_written(own_server.url) == list(range(taken + 1))
    assert history.audit.verify().findings == ()


def test_a_server_that_is_frozen_holds_up_no_sender(
    own_server: Any, history_at: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appender_module, "_ANSWER", 0.5)
    history = history_at(own_server.url)
    recorder = history.record(audit_ring=20, audit_spill_dir=str(tmp_path))
    recorder.sent(history.message(0))
    recorder.flush(10)

    own_server.freeze()
    for number in range(1, 60):
        recorder.sent(history.message(number))
    history.seen.wait_for(AuditSpilled)
    during = recorder.health
    own_server.thaw()
    recorder.flush(30)

    assert during is Health.SPILLING
    assert "has not answered" in history.seen.of(AuditStalled)[0].error
    assert recorder.health is Health.OK
    assert in_the_order_written(own_server.url) == list(range(60))
    assert history.audit.verify().findings == ()


def test_a_server_that_is_frozen_blocks_senders_that_have_no_spill(
    own_server: Any, history_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appender_module, "_ANSWER", 0.2)
    history = history_at(own_server.url)
    recorder = history.record(audit_ring=4, send_timeout=0.1)
    recorder.sent(history.message(0))
    recorder.flush(10)

    own_server.freeze()
    taken = sent_until_refused(recorder, history)
    history.seen.wait_for(AuditStalled)
    during = recorder.health
    own_server.thaw()
    recorder.flush(30)

    assert 0 < taken <= 8
    assert (during, recorder.health) == (Health.BLOCKED, Health.OK)
    assert in_the_order_written(own_server.url) == list(range(taken + 1))


def close_in_time(recorder: Recorder) -> None:
    """Close it with little time, and see that it leaves nobody behind."""
    begun = time.monotonic()
    try:
        recorder.close(0.3)
    finally:
        assert time.monotonic() - begun < 0.3 + recorder_module._PARTING + SLACK
        assert recorder._thread is not None
        assert not recorder._thread.is_alive()


def test_closing_while_the_server_is_frozen_leaves_what_waits_in_the_spill(
    own_server: Any, history_at: Any, tmp_path: Path
) -> None:
    history = history_at(own_server.url)
    recorder = history.record(audit_spill_dir=str(tmp_path))
    recorder.sent(history.message(0))
    recorder.flush(10)

    own_server.freeze()
    for number in range(1, 60):
        recorder.sent(history.message(number))
    close_in_time(recorder)
    spilled = recorder.spilled
    own_server.thaw()
    history.record(audit_spill_dir=str(tmp_path)).flush(30)

    assert spilled > 0
    assert "has not answered yet" in history.seen.of(AuditStalled)[0].error
    assert in_the_order_written(own_server.url) == list(range(60))
    assert history.audit.verify().findings == ()


def test_closing_while_the_server_is_frozen_names_what_has_no_spill(
    own_server: Any, history_at: Any
) -> None:
    history = history_at(own_server.url)
    recorder = history.record()
    recorder.sent(history.message(0))
    recorder.flush(10)

    own_server.freeze()
    for number in range(1, 60):
        recorder.sent(history.message(number))
    with pytest.raises(AuditUnavailable, match=r"^59 records .* not written .* has not answered"):
        close_in_time(recorder)

    own_server.thaw()
    forget_what_waits(recorder)


def test_closing_while_a_frozen_server_is_connected_to_leaves_what_waits_in_the_spill(
    own_server: Any, history_at: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(database_module._HASTY, "connect_timeout", 60)
    monkeypatch.setattr(appender_module, "_ANSWER", 0.2)
    history = history_at(own_server.url)
    recorder = history.record(audit_spill_dir=str(tmp_path))
    recorder.sent(history.message(0))
    recorder.flush(10)
    connecting = threading.Event()
    connect: Callable[..., Connection] = recorder.database.connect

    def telling(*, hasty: bool = False) -> Connection:
        connecting.set()
        return connect(hasty=hasty)

    monkeypatch.setattr(recorder.database, "connect", telling)

    own_server.freeze()
    recorder.sent(history.message(1))
    recorder._ring.hurry()
    history.seen.wait_for(AuditStalled)
    recorder._ring.hurry()
    assert connecting.wait(10)
    close_in_time(recorder)
    own_server.thaw()
    history.record(audit_spill_dir=str(tmp_path)).flush(30)

    assert in_the_order_written(own_server.url) == [0, 1]
    assert history.audit.verify().findings == ()


def forget_what_waits(recorder: Recorder) -> None:
    """It was told of once, and closing again would tell once more."""
    recorder._ring.sent.clear()
    recorder._ring.in_flight = 0


def test_a_connection_that_breaks_in_mid_run_loses_and_doubles_nothing(
    postgres_url: str, history_at: Any
) -> None:
    history = history_at(postgres_url)
    recorder = history.record(audit_batch=5)
    for number in range(20):
        recorder.sent(history.message(number))
    recorder.flush(10)
    engine = create_engine(postgres_url)

    with engine.begin() as connection:
        connection.execute(text(BREAK_THE_OTHERS))
    for number in range(20, 40):
        recorder.sent(history.message(number))
    recorder._ring.hurry()
    stalled = history.seen.wait_for(AuditStalled)
    recorder.flush(10)
    engine.dispose()

    assert "terminating connection" in stalled.error
    assert recorder.health is Health.OK
    assert in_the_order_written(postgres_url) == list(range(40))
    assert history.audit.verify().findings == ()


def test_one_question_after_another_is_asked_on_one_connection_and_on_a_new_one_if_that_broke(
    told: Audit, connection: Connection
) -> None:
    def asking() -> list[int]:
        told.counts()
        connection.rollback()  # a transaction sees who was there when it looked first
        return list(connection.scalars(text(THE_OTHERS)))

    first, again = asking(), asking()
    connection.execute(text(BREAK_THE_OTHERS))
    after = asking()

    assert len(first) == 1
    assert again == first
    assert len(after) == 1
    assert after != first


def test_the_connection_of_an_audit_that_nobody_closed_is_closed_with_it(
    postgres_url: str, told: Audit, connection: Connection
) -> None:
    forgotten = Audit(postgres_url)
    forgotten.bind("default", "another").counts()
    before = list(connection.scalars(text(THE_OTHERS)))
    connection.rollback()

    del forgotten
    gc.collect()
    connection.execute(text(WAIT_FOR_THE_OTHERS))
    connection.rollback()

    assert len(before) == 1
    assert list(connection.scalars(text(THE_OTHERS))) == []


def test_a_child_process_leaves_the_connection_of_its_parent_alone(
    postgres_url: str, told: Audit
) -> None:
    in_a_child = f"""
import gc, os
from actorbus import Audit

audit = Audit({postgres_url!r})
def server_process():
    with audit._database().reading() as connection:
        return connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()

before = server_process()
child = os.fork()
if not child:
    audit.close()
    del audit
    gc.collect()
    os._exit(0)
os.waitpid(child, 0)
print(server_process() == before)
audit.close()
"""

    ran = subprocess.run(
        [sys.executable, "-c", in_a_child],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ran.stdout, ran.stderr, ran.returncode) == ("True\n", "", 0)


def test_a_question_to_a_server_that_is_frozen_ends(own_server: Any) -> None:
    database = Database(own_server.url)
    database.upgrade()

    def ask_while_it_is_frozen() -> None:
        with database.reading() as connection:
            driver: Any = connection.connection.driver_connection
            driver.patience = 0.2
            own_server.freeze()
            connection.execute(text("SELECT 1"))

    with pytest.raises(AuditUnavailable, match="has not answered"):
        ask_while_it_is_frozen()

    database.close()


def test_a_table_that_somebody_locked_holds_up_no_sender(
    postgres_url: str, history_at: Any, tmp_path: Path
) -> None:
    history = history_at(postgres_url)
    recorder = history.record(audit_ring=20, audit_spill_dir=str(tmp_path))
    recorder.sent(history.message(0))
    recorder.flush(10)
    engine = create_engine(postgres_url)

    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE agent_messages"))
        for number in range(1, 60):
            recorder.sent(history.message(number))
        history.seen.wait_for(AuditSpilled)
    engine.dispose()
    recorder.flush(30)

    assert "lock timeout" in history.seen.of(AuditStalled)[0].error
    assert in_the_order_written(postgres_url) == list(range(60))


def test_a_host_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(database_module._POSTGRESQL, "connect_timeout", 2)  # the least there is
    with socket.create_server(("127.0.0.1", 0)) as silent:
        database = Database(f"postgresql://user@127.0.0.1:{silent.getsockname()[1]}/history")

        with pytest.raises(AuditUnavailable, match="timeout"):
            database.upgrade()

    database.close()


def test_a_recorder_of_a_url_writes_as_its_tenant(postgres: Any, clock: Any) -> None:
    with postgres.role() as role, postgres.database(migrated=True) as name:
        engine = create_engine(postgres.url(name))
        with engine.begin() as connection:
            for one in tenancy.grants(role, Base.metadata.tables):
                connection.execute(text(one))
        recorder = Recorder(
            postgres.url(name, role),
            telemetry=Telemetry(),
            settings=Settings(tenant="acme"),
            node="node-1",
            clock=clock,
        )
        recorder.start()
        recorder.handled(IdSource().make(clock.now()), clock.now(), clock.now())
        recorder.flush(10)
        recorder.close(10)
        recorder.database.close()
        with engine.connect() as connection:
            events = connection.scalar(text("SELECT count(*) FROM message_events"))
            tenants = connection.scalars(text("SELECT name FROM tenants")).all()
            connection.execute(text(f"DROP OWNED BY {role}"))
            connection.commit()
        engine.dispose()

    assert (events, tenants) == (1, ["acme"])
