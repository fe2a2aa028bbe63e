from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from actorbus.message import IdSource
from actorbus.persistence.database import Database
from actorbus.persistence.repositories import AgentRuns, Runs, TenantName
from actorbus.persistence.rows import project_key
from actorbus.persistence.run_rows import RunRows

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
            self.database.dialect, tenant=tenant, project=project, node=node, ids=self._ids
        )

    def write(self, rows: RunRows, messages: Sequence[tuple[str | None, str | None]]) -> None:
        runs, recipients = zip(*messages, strict=True)
        with self.database.writing(self.connection):
            rows.write(self.connection, runs, recipients, self.clock.now())

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
