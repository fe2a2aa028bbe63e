from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select

from actorbus.errors import (
    AuditUnavailable,
    HistoryKept,
    InvalidName,
    InvalidQuery,
    RecordExists,
    UnknownRecord,
)
from actorbus.persistence.database import Database
from actorbus.persistence.models import AgentRun, Project, Run, RunStatus, Tenant
from actorbus.persistence.repositories import (
    AgentRuns,
    Projects,
    Runs,
    TenantName,
    Tenants,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actorbus.testing.clock import ManualClock

ACME = TenantName("acme")
START = 1_700_000_000.0


class Office:
    """All repositories over one database."""

    def __init__(self, url: str, clock: ManualClock) -> None:
        self.database = Database(url)
        self.tenants = Tenants(self.database, clock=clock)
        self.projects = Projects(self.database, clock=clock)
        self.runs = Runs(self.database, clock=clock)
        self.parts = AgentRuns(self.database, clock=clock)

    def count(self) -> tuple[int, ...]:
        """Tenants, projects, runs and parts."""
        with self.database.reading() as connection:
            return tuple(
                connection.scalar(select(func.count()).select_from(model)) or 0
                for model in (Tenant, Project, Run, AgentRun)
            )


@pytest.fixture
def office(url: str, clock: Any) -> Iterator[Office]:
    made = Office(url, clock)
    yield made
    made.database.close()


@pytest.fixture
def furnished(office: Office) -> Office:
    """A tenant with two projects, each with a run of two agents."""
    office.tenants.create(ACME)
    for project in ("web", "shop"):
        office.projects.create(ACME, project)
        office.runs.create(ACME, project, "run-1")
        for agent in ("alice", "bob"):
            office.parts.create(ACME, project, "run-1", agent, node="node-1")
    return office


def test_what_was_created_is_got_and_listed_newest_first(furnished: Office) -> None:
    projects = furnished.projects.list(ACME)

    assert furnished.tenants.get(ACME).name == ACME
    assert [one.name for one in projects] == ["shop", "web"]
    assert furnished.projects.get(ACME, "web") == projects[1]
    assert [one.name for one in furnished.runs.list(ACME, "web")] == ["run-1"]
    parts = furnished.parts.list(ACME, "web", "run-1")
    assert [one.agent for one in parts] == ["bob", "alice"]
    assert furnished.parts.get(ACME, "web", "run-1", "bob") == parts[0]


def test_times_are_node_time_in_utc(furnished: Office) -> None:
    created = datetime.fromtimestamp(START, UTC)

    assert furnished.tenants.get(ACME).created_at == created
    assert furnished.runs.get(ACME, "web", "run-1").started_at == created
    assert furnished.runs.get(ACME, "web", "run-1").started_at.tzinfo is UTC


def test_pages_follow_one_another_without_gap_or_double(furnished: Office) -> None:
    for number in range(2, 6):
        furnished.runs.create(ACME, "web", f"run-{number}")

    first = furnished.runs.list(ACME, "web", limit=3)
    rest = furnished.runs.list(ACME, "web", limit=3, before=first[-1].id)

    assert [one.name for one in first + rest] == ["run-5", "run-4", "run-3", "run-2", "run-1"]


def test_a_run_ends_once(furnished: Office, clock: Any) -> None:
    clock.advance(5)

    ended = furnished.runs.finish(ACME, "web", "run-1", RunStatus.FAILED)

    clock.advance(5)
    assert (ended.status, ended.ended_at) == ("failed", datetime.fromtimestamp(START + 5, UTC))
    assert furnished.runs.finish(ACME, "web", "run-1", RunStatus.FAILED) == ended
    with pytest.raises(InvalidQuery, match="has ended already, failed"):
        furnished.runs.finish(ACME, "web", "run-1", RunStatus.FINISHED)
    assert furnished.runs.list(ACME, "web", status=RunStatus.RUNNING) == []
    assert furnished.runs.list(ACME, "web", status=RunStatus.FAILED) == [ended]


def test_the_part_of_an_agent_ends_with_its_error(furnished: Office) -> None:
    ended = furnished.parts.finish(
        ACME, "web", "run-1", "bob", RunStatus.FAILED, error="torn \0 and \ud800"
    )

    assert (ended.status, ended.error) == ("failed", "torn \ufffd and \\ud800")
    assert furnished.parts.get(ACME, "web", "run-1", "bob") == ended
    assert furnished.parts.get(ACME, "web", "run-1", "alice").status is RunStatus.RUNNING


def test_nothing_ends_but_finished_failed_or_cancelled(furnished: Office) -> None:
    bad: Any
    for bad in ("running", "gone", "", None):
        with pytest.raises(InvalidQuery, match="finished, failed, cancelled"):
            furnished.runs.finish(ACME, "web", "run-1", bad)

    assert furnished.runs.get(ACME, "web", "run-1").status is RunStatus.RUNNING


TAKEN: list[tuple[Callable[[Office], object], str]] = [
    (lambda office: office.tenants.create(ACME), "this history has a tenant 'acme' already"),
    (lambda office: office.projects.create(ACME, "web"), "tenant 'acme' has a project 'web'"),
    (lambda office: office.runs.create(ACME, "web", "run-1"), "has a run 'run-1' already"),
    (
        lambda office: office.parts.create(ACME, "web", "run-1", "bob", node="n"),
        "has a part of 'bob' already",
    ),
]


def test_a_name_is_given_once(furnished: Office) -> None:
    before = furnished.count()

    for again, says in TAKEN:
        with pytest.raises(RecordExists, match=says):
            again(furnished)

    assert furnished.count() == before


UNKNOWN: list[tuple[Callable[[Office], object], str]] = [
    (lambda office: office.tenants.get(TenantName("acne")), "no tenant 'acne'.$"),
    (lambda office: office.projects.list(TenantName("acne")), "no tenant 'acne'.$"),
    (lambda office: office.projects.get(ACME, "wep"), "Did you mean 'web'"),
    (lambda office: office.projects.delete(ACME, "wep"), "tenant 'acme' has no project 'wep'"),
    (lambda office: office.runs.create(ACME, "wep", "run-2"), "no project 'wep'"),
    (lambda office: office.runs.list(ACME, "wep"), "no project 'wep'"),
    (lambda office: office.runs.finish(ACME, "web", "run-2"), "Did you mean 'run-1'"),
    (lambda office: office.parts.list(ACME, "web", "run-2"), "no run 'run-2'"),
    (lambda office: office.parts.get(ACME, "web", "run-1", "rob"), "Did you mean 'bob'"),
    (lambda office: office.parts.delete(ACME, "web", "run-1", "zoe"), "no part of 'zoe'"),
]


def test_what_is_unknown_is_named_and_the_nearest_offered(furnished: Office) -> None:
    for ask, says in UNKNOWN:
        with pytest.raises(UnknownRecord, match=says):
            ask(furnished)


def test_what_is_no_name_is_refused(furnished: Office) -> None:
    asks: list[Callable[[Any], object]] = [
        furnished.tenants.create,
        furnished.projects.list,
        lambda bad: furnished.projects.create(ACME, bad),
        lambda bad: furnished.runs.get(ACME, bad, "run-1"),
        lambda bad: furnished.runs.create(ACME, "web", bad),
        lambda bad: furnished.parts.get(ACME, "web", "run-1", bad),
        lambda bad: furnished.parts.create(ACME, "web", "run-1", "zoe", node=bad),
    ]

    for ask in asks:
        for bad in ("", " web", "a\0b", "*", "\ud800", "x" * 129, None, 7):
            with pytest.raises(InvalidName):
                ask(bad)


def test_a_page_has_its_bounds(furnished: Office) -> None:
    for limit in (0, -1, 10_001):
        with pytest.raises(InvalidQuery, match="from 1 to 10,000"):
            furnished.runs.list(ACME, "web", limit=limit)


def test_deleting_goes_down_to_the_parts_and_not_sideways(furnished: Office) -> None:
    assert furnished.count() == (1, 2, 2, 4)

    furnished.parts.delete(ACME, "web", "run-1", "bob")
    assert furnished.count() == (1, 2, 2, 3)
    furnished.runs.delete(ACME, "web", "run-1")
    assert furnished.count() == (1, 2, 1, 2)
    furnished.projects.delete(ACME, "shop")
    assert furnished.count() == (1, 1, 0, 0)
    furnished.tenants.delete(ACME)
    assert furnished.count() == (0, 0, 0, 0)


def test_deleting_a_tenant_takes_all_that_is_its_own(furnished: Office) -> None:
    other = TenantName("other")
    furnished.tenants.create(other)
    furnished.projects.create(other, "web")

    furnished.tenants.delete(ACME)

    assert furnished.count() == (1, 1, 0, 0)
    assert [one.name for one in furnished.projects.list(other)] == ["web"]


def test_what_has_messages_is_not_deleted(history: Any, clock: Any) -> None:
    recorder = history.record()
    recorder.sent(history.message("kept", run_id="run-1"))
    recorder.flush(10)
    database, tenant = recorder.database, TenantName("default")
    runs = Runs(database, clock=clock)
    if "run-1" not in [one.name for one in runs.list(tenant, "default")]:
        runs.create(tenant, "default", "run-1")

    deletions: list[tuple[Callable[[], object], str]] = [
        (lambda: Tenants(database, clock=clock).delete(tenant), "tenant 'default'"),
        (lambda: Projects(database, clock=clock).delete(tenant, "default"), "project 'default'"),
        (lambda: runs.delete(tenant, "default", "run-1"), "run 'run-1'"),
    ]
    for delete, what in deletions:
        with pytest.raises(HistoryKept, match=f"{what} .*let retention delete its messages"):
            delete()

    assert history.rows() == (1, 0)
    assert runs.get(tenant, "default", "run-1").name == "run-1"


def test_reading_makes_no_database_and_creating_does(tmp_path: Any, clock: Any) -> None:
    path = tmp_path / "history.db"
    tenants = Tenants(Database(f"sqlite:///{path}"), clock=clock)

    with pytest.raises(AuditUnavailable, match="there is no history"):
        tenants.get(ACME)
    assert not path.exists()

    tenants.create(ACME)
    assert tenants.get(ACME).name == ACME
