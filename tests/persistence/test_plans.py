"""Which way the database goes for a page: along an index, however large history is.

SQLite plans by its indexes alone. PostgreSQL plans by what the tables hold, so there they hold
200,000 messages, and whoever asks is a node's role, bound by row-level security.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from sqlalchemy import create_engine, event, text

from actorbus.message import MessageId
from actorbus.persistence import cursors, tenancy
from actorbus.persistence.audit import Audit
from actorbus.persistence.filters import checked
from actorbus.persistence.models import Base
from actorbus.persistence.repositories import Projects, TenantName, Tenants
from actorbus.testing.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

MESSAGES = 200_000
FIRST_MS = 1_700_000_000_000
"""Messages are sent from then on, one a millisecond."""
MIDDLE = MessageId((FIRST_MS + MESSAGES // 2) << 80)

FILTERS: list[dict[str, Any]] = [
    {},
    {"sender": "agent-1"},
    {"sender": "nobody"},
    {"recipient": "agent-2"},
    {"recipient": "listener"},
    {"agent": "agent-1"},
    {"type": "Type0"},
    {"topic": "prices.eur"},
    {"kind": "broadcast"},
    {"status": "handled"},
    {"status": "accepted"},
    {"status": "dead"},
    {"reason": "handler-error"},
    {"reason": "expired"},
    {"run": "run-1"},
    {"node": "node-2"},
    {"conversation": (FIRST_MS + 50_000) << 80},
    {"since": (FIRST_MS + 90_000) / 1000},
    {"until": (FIRST_MS + 90_000) / 1000},
    {"text": "nowhere"},
    {"agent": "agent-1", "status": "dead"},
    {"recipient": "listener", "topic": "none"},
    {"run": "run-1", "kind": "error"},
    {"sender": "agent-1", "text": "nowhere"},
]

ID = "(lpad(to_hex({first} + {n}), 12, '0') || '00000000000000000000')::uuid"

FILL = [
    f"""
    INSERT INTO agent_messages (tenant_id, project_id, id, correlation_id, node, run_id, kind,
        type, sender, recipient, topic, priority, payload, hops, created_at, status, reason,
        attempt, started_at, ended_at)
    SELECT p.tenant_id, p.id, {ID.format(first=FIRST_MS, n="n")},
        {ID.format(first=FIRST_MS, n="n / 10 * 10")}, 'node-1',
        CASE WHEN n % 2 = 1 THEN 'run-' || n / 1000 % 100 END,
        CASE WHEN n % 100 = 5 THEN 'broadcast' WHEN n % 50 = 6 THEN 'event' ELSE 'tell' END,
        'Type' || n % 10, 'agent-' || n % 20,
        CASE WHEN n % 100 <> 5 AND n % 50 <> 6 THEN 'agent-' || n * 7 % 20 END,
        CASE WHEN n % 50 = 6 THEN 'prices.eur' END,
        2, jsonb_build_object('number', n, 'text', 'finding ' || n), 0,
        to_timestamp(({FIRST_MS} + n) / 1000.0),
        CASE WHEN n % 10 = 3 THEN 'accepted' WHEN n % 100 = 7 THEN 'dead' ELSE 'handled' END,
        CASE WHEN n % 100 = 7 THEN 'handler-error' END, 1,
        CASE WHEN n % 10 <> 3 THEN to_timestamp(({FIRST_MS} + n) / 1000.0) END,
        CASE WHEN n % 10 <> 3 THEN to_timestamp(({FIRST_MS} + n) / 1000.0) END
    FROM projects p, generate_series(1, {MESSAGES}) n
    """,  # noqa: S608 - constants
    f"""
    INSERT INTO message_events (tenant_id, id, message_id, node, recipient, status, reason,
        attempt, started_at, ended_at)
    SELECT p.tenant_id, {ID.format(first=FIRST_MS + MESSAGES, n="n")},
        {ID.format(first=FIRST_MS, n="n")}, 'node-1',
        CASE WHEN n % 100 = 5 OR n % 50 = 6 THEN 'listener' END,
        CASE WHEN n % 40 = 3 THEN 'dead' ELSE 'handled' END,
        CASE WHEN n % 40 = 3 THEN 'handler-error' END, 1, now(), now()
    FROM projects p, generate_series(1, {MESSAGES}) n
    WHERE n % 10 = 3 OR n % 100 = 5 OR n % 50 = 6
    """,  # noqa: S608 - constants
    "ANALYZE",
]


class Asked(NamedTuple):
    statement: str
    arguments: Any


class Plans:
    """A history, and how its database goes about what is asked of it."""

    def __init__(self, audit: Audit) -> None:
        self.audit = audit
        self._engine = audit._database()._reader

    def of(self, ask: Callable[[Audit], object]) -> list[list[str]]:
        """The steps on our big tables of each statement that `ask` leads to."""
        asked: list[Asked] = []

        def note(
            connection: Connection, cursor: object, sql: str, arguments: Any, *_: object
        ) -> None:
            if "agent_messages" in sql or "message_events" in sql:
                asked.append(Asked(sql, arguments))

        event.listen(self._engine, "before_cursor_execute", note)
        try:
            ask(self.audit)
        finally:
            event.remove(self._engine, "before_cursor_execute", note)
        with self.audit._database().reading() as connection:
            return [self._explained(connection, one) for one in asked]

    def _explained(self, connection: Connection, asked: Asked) -> list[str]:
        if connection.dialect.name == "sqlite":
            plan = connection.exec_driver_sql(
                f"EXPLAIN QUERY PLAN {asked.statement}", asked.arguments
            )
            return [row.detail for row in plan]
        plan = connection.exec_driver_sql(
            f"EXPLAIN (FORMAT JSON) {asked.statement}", asked.arguments
        ).scalar_one()
        return list(_nodes(plan[0]["Plan"]))


def _nodes(plan: dict[str, Any]) -> Iterator[str]:
    said = ("Node Type", "Relation Name", "Index Name", "Index Cond")
    yield " ".join(str(plan[name]) for name in said if name in plan)
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)


def _reads_a_whole_table(step: str) -> bool:
    """Also along an index, if that leads to all rows of the tenant."""
    if step.startswith(("SCAN agent_messages", "SCAN message_events", "SCAN told_of", "Seq Scan")):
        return re.search("agent_messages|message_events|told_of", step) is not None
    table = re.search("agent_messages|message_events|told_of", step)
    if table is None or not re.search("SEARCH|Index", step):
        return False
    return len(re.findall(r"(?<=[(\s])\w+(?=\)?(?:::\w+)? ?[=<>])", step)) < 2


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plans]:
    audit = Audit(f"sqlite:///{tmp_path_factory.mktemp('plans') / 'history.db'}", anchors=False)
    _begin(audit)
    yield Plans(audit)
    audit.close()


@pytest.fixture(scope="module")
def postgresql(postgres: Any) -> Iterator[Plans]:
    with postgres.database(migrated=True) as name, postgres.role() as role:
        whole = Audit(postgres.url(name), anchors=False)
        _begin(whole)
        whole.close()
        owner = create_engine(postgres.url(name), isolation_level="AUTOCOMMIT")
        with owner.connect() as connection:
            for one in (*FILL, *tenancy.grants(role, Base.metadata.tables)):
                connection.execute(text(one))
        audit = Audit(postgres.url(name, role), anchors=False)
        yield Plans(audit)
        audit.close()
        with owner.connect() as connection:
            connection.execute(text(f'DROP OWNED BY "{role}"'))
        owner.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def plans(request: pytest.FixtureRequest) -> Plans:
    found: Plans = request.getfixturevalue(request.param)
    return found


def _begin(audit: Audit) -> None:
    """Make the tenant and its project, as a recorder does with its first record."""
    tenant, database, clock = TenantName(audit.tenant), audit._database(), ManualClock()
    Tenants(database, clock=clock).create(tenant)
    Projects(database, clock=clock).create(tenant, audit.project)


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
def test_a_page_goes_along_indexes_only(plans: Plans, wanted: dict[str, Any]) -> None:
    cursor = cursors.of_page(checked(**wanted), MIDDLE)

    found = plans.of(lambda audit: audit.page(cursor=cursor, **wanted))

    assert found
    assert [step for steps in found for step in steps if _reads_a_whole_table(step)] == []


@pytest.mark.parametrize(
    "steps",
    [
        "SCAN agent_messages",
        "SEARCH told_of USING INDEX sqlite_autoindex_message_events_1 (tenant_id=?)",
        "Seq Scan agent_messages",
        "Index Scan message_events message_events_pkey (tenant_id = '0'::uuid)",
    ],
)
def test_a_way_through_all_rows_is_told_from_others(steps: str) -> None:
    assert _reads_a_whole_table(steps)
