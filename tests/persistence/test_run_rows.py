from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from actorbus import Agent, Node, handles
from actorbus.errors import UnknownRecord
from actorbus.message import IdSource, MessageKind
from actorbus.persistence.audit import Audit
from actorbus.persistence.columns import instant_encoder
from actorbus.persistence.database import Database
from actorbus.persistence.repositories import AgentRuns, Runs, TenantName
from actorbus.persistence.rows import project_key
from actorbus.persistence.run_rows import RunRows
from actorbus.settings import Settings
from actorbus.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TENANT = TenantName("default")


class Writer:
    """What a recorder's writer does with a batch of messages."""

    def __init__(self, url: str, clock: Any) -> None:
        self.database = Database(url)
        self.database.upgrade()
        self.clock = clock
        self.runs = Runs(self.database, clock=clock)
        self.parts = AgentRuns(self.database, clock=clock)
        self._ids = IdSource()
        self.connection = self.database.connect()

    def rows(self, node: str = "node-1") -> RunRows:
        now = self.clock.now()
        with self.database.writing(self.connection):
            tenant, project = project_key(
                self.connection, TENANT, "default", ids=self._ids, now=now
            )
        return RunRows(
            self.database.dialect,
            tenant=tenant,
            project=project,
            node=node,
            ids=self._ids,
            clock=self.clock,
        )

    def write(self, rows: RunRows, messages: Sequence[tuple[str | None, str | None]]) -> None:
        now = instant_encoder(self.database.dialect)(self.clock.now())
        with self.database.writing(self.connection):
            rows.write(self.connection, [(run, agent, now) for run, agent in messages if run])

    def seen(self) -> dict[str, list[tuple[str, str]]]:
        """Each run's parts: agent and node."""
        return {
            run.name: sorted(
                (part.agent, part.node) for part in self.parts.list(TENANT, "default", run.name)
            )
            for run in self.runs.list(TENANT, "default")
        }

    def close(self) -> None:
        self.database.release(self.connection)
        self.database.close()


@pytest.fixture
def writer(url: str, clock: Any) -> Iterator[Writer]:
    made = Writer(url, clock)
    yield made
    made.close()


def test_the_first_messages_of_a_run_begin_it_and_each_agents_part(writer: Writer) -> None:
    rows = writer.rows()

    writer.write(rows, [(None, "zoe"), ("run-1", "bob"), ("run-2", None), ("run-1", "alice")])
    writer.clock.advance(5)
    writer.write(rows, [("run-1", "bob"), ("run-1", "carol"), (None, None)])

    assert writer.seen() == {
        "run-1": [("alice", "node-1"), ("bob", "node-1"), ("carol", "node-1")],
        "run-2": [],
    }
    begun = writer.runs.get(TENANT, "default", "run-1").started_at
    carol = writer.parts.get(TENANT, "default", "run-1", "carol").started_at
    assert (carol - begun).total_seconds() == 5


def test_a_run_that_others_began_is_joined(writer: Writer) -> None:
    writer.write(writer.rows(), [("run-1", "alice")])
    writer.runs.finish(TENANT, "default", "run-1")

    writer.write(writer.rows("node-2"), [("run-1", "alice"), ("run-1", "bob")])

    assert writer.seen() == {"run-1": [("alice", "node-1"), ("bob", "node-2")]}
    assert writer.runs.get(TENANT, "default", "run-1").status == "finished"


def test_messages_without_a_run_write_nothing(writer: Writer) -> None:
    writer.write(writer.rows(), [(None, "alice"), (None, None)])

    assert writer.seen() == {}


def test_more_runs_than_it_remembers_are_written_all_the_same(writer: Writer) -> None:
    rows = writer.rows()
    names = [f"run-{number}" for number in range(10_001)]

    writer.write(rows, [(name, None) for name in names[:5_001]])
    writer.write(rows, [(name, None) for name in names[5_001:]])
    writer.write(rows, [(names[0], "alice")])

    assert writer.runs.get(TENANT, "default", names[-1]).status == "running"
    assert writer.parts.get(TENANT, "default", names[0], "alice").node == "node-1"


@pytest.mark.parametrize("name", ["x" * 129, "", 5, b"run"])
def test_what_is_no_name_names_no_run(writer: Writer, name: Any) -> None:
    writer.write(writer.rows(), [(name, "alice"), ("run-1", name)])

    assert writer.seen() == {"run-1": []}


def test_a_recorded_run_began_when_its_first_message_was_sent(history: Any) -> None:
    recorder = history.record(audit_interval=3600)
    begun = history.clock.now()
    recorder.sent(history.message(run_id="run-1", recipient="bob"))
    history.clock.advance(5)
    recorder.sent(history.message(run_id="run-1", recipient="carol"))

    history.clock.advance(60)

    (run,) = history.audit.runs()
    parts = history.audit.agent_runs("run-1")
    assert (run.name, run.started_at.timestamp()) == ("run-1", begun)
    assert [(one.agent, one.started_at.timestamp() - begun) for one in parts] == [
        ("carol", 5),
        ("bob", 0),
    ]


def test_a_run_that_another_node_spilled_was_on_that_node(file_history: Any, lock: Any) -> None:
    there = Audit(file_history.audit._url)
    recorder = there.record(
        node="node-2",
        settings=Settings(),
        telemetry=Telemetry(),
        clock=file_history.clock,
    )
    recorder.start()
    lock.take()
    recorder.sent(file_history.message(run_id="run-1", recipient="bob"))
    recorder.close(0.01)
    there.close()
    lock.release()

    here = file_history.record()
    here.sent(file_history.message(run_id="run-1", recipient="alice"))
    here.flush(10)

    parts = file_history.audit.agent_runs("run-1")
    assert {one.agent: one.node for one in parts} == {"bob": "node-2", "alice": "node-1"}


class Relay(Agent):
    """Passes on what it hears, within the same run."""

    @handles
    def hear(self, text: str) -> None:
        if self.name == "first":
            self.tell("second", text)


def test_a_run_of_a_node_is_in_its_history(url: str) -> None:
    with Node(audit=url, name="eu-1") as node:
        node.spawn(Relay, name="first")
        node.spawn(Relay, name="second")
        node.tell("first", "outside of any run")
        with node.run("run-1"):
            node.tell("first", "within")
        node.drain(10)
        runs = [(run.name, run.status) for run in node.audit.runs()]
        parts = {(part.agent, part.node) for part in node.audit.agent_runs("run-1")}

    assert runs == [("run-1", "running")]
    assert parts == {("first", "eu-1"), ("second", "eu-1")}


def test_who_hears_what_is_sent_to_many_takes_part(url: str) -> None:
    with Node(audit=url, name="eu-1") as node:
        node.spawn(Relay, name="subscriber").subscribe("news")
        node.spawn(Relay, name="listener")
        with node.run("run-1"):
            node.topic("news").publish("to one")
        with node.run("run-2"):
            node.broadcast("to all")
        node.topic("news").publish("outside of any run")
        node.drain(10)
        parts = {
            run.name: {(part.agent, part.node) for part in node.audit.agent_runs(run.name)}
            for run in node.audit.runs()
        }

    subscriber, listener = ("subscriber", "eu-1"), ("listener", "eu-1")
    assert parts == {"run-1": {subscriber}, "run-2": {subscriber, listener}}


def test_who_heard_is_known_of_names_that_a_database_refuses(history: Any) -> None:
    recorder = history.record()
    event = history.message("e", kind=MessageKind.EVENT, recipient=None, topic="t", run_id="run-1")
    recorder.sent(event)
    recorder.flush(10)
    history.end(recorder, event, recipient="b\0b")
    recorder.close(10)

    [part] = history.audit.agent_runs("run-1")

    assert part.agent.startswith("b")


def test_a_history_without_messages_has_no_runs(history: Any) -> None:
    history.record()

    assert history.audit.runs() == []


def test_runs_of_a_project_that_is_none_are_an_error_that_names_those_there(history: Any) -> None:
    recorder = history.record()
    recorder.sent(history.message(1, run_id="run-1"))
    recorder.close(10)

    with pytest.raises(UnknownRecord, match=r"no project 'defualt'.*There are: default\."):
        history.audit.bind("default", "defualt").runs()
    with pytest.raises(UnknownRecord, match="this history has no tenant 'acme'"):
        history.audit.bind("acme", "default").runs()
