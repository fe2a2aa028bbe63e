"""No tenant sees or changes another's rows: not by our methods, and on PostgreSQL not by SQL."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from actorbus.errors import ActorbusError
from actorbus.message import IdSource, MessageId, MessageKind, Reason, Status, format_id
from actorbus.persistence import cursors, tenancy
from actorbus.persistence.audit import Audit
from actorbus.persistence.database import Database
from actorbus.persistence.filters import Filter, Filters
from actorbus.persistence.holds import Hold, hold
from actorbus.persistence.models import Base
from actorbus.persistence.queries import Reader
from actorbus.persistence.repositories import (
    AgentRuns,
    Projects,
    Repository,
    Runs,
    TenantName,
    Tenants,
)
from actorbus.persistence.retention import Limits
from actorbus.settings import Settings
from actorbus.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

ACME = TenantName("acme")
RIVAL = TenantName("rival")
SECRET = "xyzzy"
"""In everything that only the rival has, and never given as an argument."""

# -- every method, across tenants

NOT_ASKED = {
    "Audit.bind": "names its tenant itself",
    "Audit.close": "asks nothing",
    "Audit.draw": "draws what `conversation` answers, which is asked",
    "Audit.record": "is how history gets in, and the set-up here",
    "Reader.heads": "gives numbers for `news` to be asked with, and all numbers look alike",
}
"""Public methods of which this test asks nothing, and why."""

QUIET = {"create", "delete", "hold", "keeps_any", "owns", "redact", "release", "retain", "verify"}
"""What these answer tells even the tenant itself nothing that is its own."""

ALWAYS_GIVEN = {"idle", "poll"}
"""Without them a method would wait for news."""


def _arguments(shared: int, private: int, chains: int) -> list[dict[str, Any]]:
    """What each parameter is given, by its name: what both tenants have, then the rival's own."""
    places = dict.fromkeys(range(1, chains + 1), 0)
    both = {
        "actor": "auditor",
        "after": cursors.of_places(places),
        "agent": "alice",
        "before": 1 << 127,
        "conversation": shared,
        "cursor": cursors.of_page(Filter(), MessageId(1 << 127)),
        "depth": 10,
        "error": "gone",
        "force": True,
        "format": "csv",
        "id": shared,
        "idle": 0.0,
        "kind": "tell",
        "last": 10,
        "limit": 10,
        "limits": Limits(messages=0),
        "node": "node-1",
        "overwrite": True,
        "path": Path("export.csv"),
        "places": places,
        "poll": 0.001,
        "progress": lambda done, of: None,
        "project": "web",
        "public_key": None,
        "reason": "handler-error",
        "recipient": "bob",
        "run": "run-1",
        "sender": "alice",
        "since": 1.0,
        "start": None,
        "status": "failed",
        "text": "a",
        "to": StringIO(),
        "topic": "prices",
        "type": "str",
        "until": 4e9,
        "wanted": Filter(agent="bob"),
        "what": "run:run-1",
    }
    rivals = both | {
        "agent": "rival-agent",
        "before": private + 1,
        "conversation": private,
        "id": private,
        "kind": "broadcast",
        "project": "rival-web",
        "recipient": "rival-agent",
        "run": "rival-run",
        "sender": "rival-agent",
        "type": f"Type{SECRET}",
        "wanted": Filter(run="rival-run"),
        "what": "run:rival-run",
    }
    return [both, rivals]


class Neighbours:
    """Two tenants whose things have equal names and ids, one of which has more than that."""

    def __init__(self, history: Any) -> None:
        self.history = history
        self.database: Database = history.audit._database()
        self.database.upgrade()
        shared = history.message("a").id
        private = history.message("b").id
        for tenant in (ACME, RIVAL):
            Tenants(self.database, clock=history.clock).create(tenant)
            self._furnish(tenant, "web", "run-1", "alice")
            self._record(tenant, shared, private)
        self._furnish(RIVAL, "rival-web", "rival-run", "rival-agent")
        self._furnish(RIVAL, f"rival-web-{SECRET}", f"rival-run-{SECRET}", f"rival-{SECRET}")
        with self.database.of(RIVAL).changing() as connection:
            chains = connection.scalar(text("SELECT max(number) FROM chains")) or 0
        hold(
            self.database.of(RIVAL),
            RIVAL,
            Hold.parse("run:rival-run"),
            actor=SECRET,
            reason=SECRET,
            ids=IdSource(),
            now=history.clock.now(),
        )
        self.arguments = _arguments(shared, private, chains + 1)
        self.given = format_id(private)
        rival = self.rows(RIVAL)
        named = [name for name in rival if "id" in Base.metadata.tables[name].c]
        ids = {row.id for name in named for row in rival[name]} - {shared}
        self.hidden = [
            SECRET,
            *(form(one) for one in ids for form in (str, format_id, "{:032x}".format)),
        ]

    def owner(self, kind: type[Any], tenant: TenantName) -> Any:
        """What to call a method on, for a tenant."""
        if issubclass(kind, Repository):
            return kind(self.database, clock=self.history.clock)
        if kind is Reader:
            return Reader(self.database, tenant, "web")
        return self.history.audit.bind(tenant, "web")

    def rows(self, tenant: TenantName) -> dict[str, list[Any]]:
        """All that a tenant has, table by table."""
        tables = Base.metadata.tables
        with self.database.of(tenant).reading() as connection:
            key = connection.scalar(select(tables["tenants"].c.id).filter_by(name=tenant))
            return {
                name: list(
                    connection.execute(
                        table.select()
                        .where(table.c["id" if name == "tenants" else "tenant_id"] == key)
                        .order_by(*table.primary_key)
                    )
                )
                for name, table in tables.items()
                if name == "tenants" or "tenant_id" in table.c
            }

    def shows(self, answer: object) -> bool:
        """Whether something of the rival's own can be read in an answer."""
        said = repr(answer)
        if isinstance(answer, ActorbusError):  # which may repeat what it was given
            said = said.replace(self.given, "")
        return any(one in said for one in self.hidden)

    def _furnish(self, tenant: TenantName, project: str, run: str, agent: str) -> None:
        clock = self.history.clock
        Projects(self.database, clock=clock).create(tenant, project)
        Runs(self.database, clock=clock).create(tenant, project, run)
        parts = AgentRuns(self.database, clock=clock)
        parts.create(tenant, project, run, agent, node="node-1")

    def _record(self, tenant: TenantName, shared: int, private: int) -> None:
        history, clock = self.history, self.history.clock
        said = "a" if tenant == ACME else f"a {SECRET}"
        recorder = history.audit.bind(tenant, "web").record(
            node="node-1", settings=Settings(), telemetry=Telemetry(), clock=clock
        )
        recorder.start()
        now = clock.now()
        told = history.message(said, id=shared, correlation_id=shared, run_id="run-1")
        recorder.sent(told)
        recorder.flush(10)
        recorder.ended(told, "bob", Status.FAILED, Reason.HANDLER_ERROR, said, now, now)
        if tenant == RIVAL:
            own = history.message(
                said,
                id=private,
                correlation_id=private,
                causation_id=shared,
                run_id="rival-run",
                sender="rival-agent",
                recipient=None,
                kind=MessageKind.BROADCAST,
                type=f"Type{SECRET}",
            )
            recorder.sent(own)
            for recipient in ("rival-agent", f"rival-{SECRET}"):
                recorder.ended(own, recipient, Status.FAILED, None, said, now, now)
        recorder.close(10)


@pytest.fixture
def neighbours(history: Any) -> Neighbours:
    return Neighbours(history)


def _methods() -> list[tuple[type[Any], str]]:
    """What can be asked, questions first and deletions last."""
    order = ("hold", "release", "redact", "create", "finish", "retain", "delete")
    found = [
        (kind, name)
        for kind in (*Repository.__subclasses__(), Reader, Audit)
        for name, _ in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_") and f"{kind.__name__}.{name}" not in NOT_ASKED
    ]
    return sorted(found, key=lambda one: order.index(one[1]) if one[1] in order else -1)


def _calls(
    kind: type[Any], name: str, given: dict[str, Any], *, singly: bool
) -> Iterator[dict[str, Any]]:
    """Arguments for a method: what it needs, and that with each thing it can be given besides.

    Not `singly` leaves out most of the latter: a server takes ten times as long for a call.
    """
    needed, possible = _parameters(getattr(kind, name))
    unknown = sorted((needed | possible) - set(given))
    if unknown:
        pytest.fail(
            f"{kind.__name__}.{name} takes {unknown}: add to _arguments() in {__file__} what"
            " such a parameter is given of another tenant, or the method to NOT_ASKED and why"
        )
    least = {one: given[one] for one in needed | (possible & ALWAYS_GIVEN)}
    yield least
    for one in sorted(possible - set(least)) if singly else sorted(possible & {"run"}):
        yield least | {one: given[one]}


def _parameters(method: Callable[..., Any]) -> tuple[set[str], set[str]]:
    """The names that a method must be given, its tenant aside, and those that it can be given."""
    needed, possible = set(), set()
    for one in list(inspect.signature(method).parameters.values())[1:]:
        if one.kind is inspect.Parameter.VAR_KEYWORD:
            assert one.annotation == "Unpack[Filters]"
            possible |= set(Filters.__annotations__)
        elif one.default is not inspect.Parameter.empty:
            possible.add(one.name)
        elif one.name != "tenant":
            needed.add(one.name)
    return needed, possible


def _answers(neighbours: Neighbours, kind: type[Any], name: str, tenant: TenantName) -> list[Any]:
    """What a method says to a tenant, its refusals included."""
    method = getattr(neighbours.owner(kind, tenant), name)
    first = [tenant] if issubclass(kind, Repository) else []
    answers: list[Any] = []
    for given in neighbours.arguments:
        singly = neighbours.database.dialect == "sqlite"
        for call in _calls(kind, name, given, singly=singly):
            try:
                answers.append(_whole(method(*first, **call), call))
            except ActorbusError as refusal:
                answers.append(refusal)
    return answers


def _whole(answer: Any, call: dict[str, Any]) -> Any:
    """An answer with what is still to come of it, and what it wrote elsewhere."""
    if isinstance(answer, Iterator):
        return list(answer)
    if "to" in call:
        written = call["to"].getvalue()
        call["to"].seek(0)
        call["to"].truncate()
        return written
    return answer


@pytest.mark.parametrize("url", ["sqlite-file", "postgresql"], indirect=True)
def test_no_method_shows_or_changes_what_another_tenant_has(
    neighbours: Neighbours, subtests: pytest.Subtests
) -> None:
    before = neighbours.rows(RIVAL)

    for kind, name in _methods():
        with subtests.test(f"{kind.__name__}.{name}"):
            answers = _answers(neighbours, kind, name, ACME)

            assert [one for one in answers if neighbours.shows(one)] == []
            assert neighbours.rows(RIVAL) == before


def test_the_tenant_itself_is_shown_what_others_are_not(
    history_at: Any, file_url: str, subtests: pytest.Subtests
) -> None:
    """Else the test above could not fail."""
    neighbours = Neighbours(history_at(file_url))

    for kind, name in _methods():
        with subtests.test(f"{kind.__name__}.{name}"):
            answers = _answers(neighbours, kind, name, RIVAL)

            told = [one for one in answers if one and not isinstance(one, ActorbusError)]
            assert any(map(neighbours.shows, told)) or name in QUIET


@pytest.mark.parametrize(
    ("kind", "name"),
    [one for one in _methods() if issubclass(one[0], Repository)],
    ids=lambda one: one if isinstance(one, str) else one.__name__,
)
def test_no_repository_method_can_do_without_a_tenant(
    kind: type[Any], name: str, clock: Any
) -> None:
    first = list(inspect.signature(getattr(kind, name)).parameters.values())[1]
    repository = kind(Database("sqlite://"), clock=clock)
    rest = {
        one.name: "x"
        for one in inspect.signature(getattr(repository, name)).parameters.values()
        if one.name != "tenant" and one.default is inspect.Parameter.empty
    }

    with pytest.raises(TypeError, match="tenant"):
        getattr(repository, name)(**rest)

    assert (first.name, first.annotation) == ("tenant", "TenantName")
    assert first.default is inspect.Parameter.empty


# -- raw SQL, on PostgreSQL

OF_A_TENANT = sorted(name for name, table in Base.metadata.tables.items() if "tenant_id" in table.c)


class Guarded:
    """The neighbours' history on PostgreSQL, and a role for it that row-level security binds."""

    def __init__(self, server: Any, database: str, role: str, neighbours: Neighbours) -> None:
        self.neighbours = neighbours
        self.url = server.url(database, role)
        self.role = role
        self._owner = create_engine(server.url(database), isolation_level="AUTOCOMMIT")
        self._engine = create_engine(self.url)
        self.owner = self._owner.connect()
        self.connection = self._engine.connect()
        """The role's; nobody has said yet whose rows it is about."""
        self.grant()

    def grant(self, *, retention: bool = False) -> None:
        for one in tenancy.grants(self.role, Base.metadata.tables, retention=retention):
            self.owner.execute(text(one))

    def count(self, table: str) -> int:
        return self.connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0  # noqa: S608

    def key(self, tenant: TenantName) -> Any:
        return self.owner.scalar(text("SELECT id FROM tenants WHERE name = :n"), {"n": tenant})

    def close(self) -> None:
        self.owner.close()
        self.connection.close()
        self._owner.dispose()
        self._engine.dispose()


@pytest.fixture
def guarded(postgres: Any, history_at: Any) -> Iterator[Guarded]:
    with postgres.role() as role, postgres.database(migrated=True) as name:
        made = Guarded(postgres, name, role, Neighbours(history_at(postgres.url(name))))
        yield made
        made.close()


def test_every_table_of_a_tenant_has_its_policy(postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT relname FROM pg_class JOIN pg_policy ON polrelid = pg_class.oid"
                " WHERE relrowsecurity AND relforcerowsecurity"
            )
        )
        guarded = sorted(rows.scalars())
    engine.dispose()

    assert guarded == sorted([*OF_A_TENANT, "tenants"]), (
        "a migration that makes a table runs tenancy.protect(table)"
    )


def test_raw_sql_sees_the_rows_of_its_tenant_only(guarded: Guarded) -> None:
    mine = {table: len(rows) for table, rows in guarded.neighbours.rows(ACME).items()}

    tenancy.enter(guarded.connection, ACME)
    seen = {table: guarded.count(table) for table in mine}

    assert seen == mine
    assert all(mine[table] for table in ("projects", "runs", "agent_messages", "message_events"))


def test_raw_sql_sees_nothing_where_no_tenant_was_named(guarded: Guarded) -> None:
    with guarded.connection.begin():
        never = [guarded.count(table) for table in (*OF_A_TENANT, "tenants")]
    with guarded.connection.begin():
        tenancy.enter(guarded.connection, ACME)
    with guarded.connection.begin():
        no_longer = [guarded.count(table) for table in (*OF_A_TENANT, "tenants")]

    assert never == no_longer == [0] * (len(OF_A_TENANT) + 1)


def test_raw_sql_changes_no_row_of_another_tenant(guarded: Guarded) -> None:
    before = guarded.neighbours.rows(RIVAL)
    theirs = {"key": guarded.key(RIVAL)}
    changed: list[int] = []

    with guarded.connection.begin():
        tenancy.enter(guarded.connection, ACME)
        for table in sorted({*OF_A_TENANT, "tenants"} - set(tenancy.HISTORY)):
            column = "id" if table == "tenants" else "tenant_id"
            update = f"UPDATE {table} SET {column} = {column} WHERE {column} = :key"  # noqa: S608
            delete = f"DELETE FROM {table} WHERE {column} = :key"  # noqa: S608
            changed += [
                guarded.connection.execute(text(statement), theirs).rowcount
                for statement in (update, delete)
            ]

    assert set(changed) == {0}
    assert guarded.neighbours.rows(RIVAL) == before


def test_raw_sql_gives_no_row_to_another_tenant(guarded: Guarded) -> None:
    theirs = {"key": guarded.key(RIVAL)}
    tenancy.enter(guarded.connection, ACME)

    for table in OF_A_TENANT:
        insert = f"INSERT INTO {table} (tenant_id) VALUES (:key)"  # noqa: S608
        with (
            pytest.raises(ProgrammingError, match="violates row-level security"),
            guarded.connection.begin_nested(),
        ):
            guarded.connection.execute(text(insert), theirs)


def test_history_is_append_only(guarded: Guarded) -> None:
    before = guarded.neighbours.rows(ACME)
    changes = ("UPDATE {} SET tenant_id = tenant_id", "DELETE FROM {}", "TRUNCATE {}")
    tenancy.enter(guarded.connection, ACME)
    tenancy.retaining(guarded.connection)

    for statement in [text(one.format(table)) for one in changes for table in tenancy.HISTORY]:
        with (
            pytest.raises(ProgrammingError, match="permission denied"),
            guarded.connection.begin_nested(),
        ):
            guarded.connection.execute(statement)
        with pytest.raises(ProgrammingError, match="history is append-only"):
            guarded.owner.execute(statement)

    guarded.connection.rollback()
    assert guarded.neighbours.rows(ACME) == before


def test_retention_changes_the_history_of_its_tenant(guarded: Guarded) -> None:
    guarded.grant(retention=True)
    theirs = guarded.neighbours.rows(RIVAL)

    with guarded.connection.begin():
        tenancy.enter(guarded.connection, ACME)
        tenancy.retaining(guarded.connection)
        for table in tenancy.HISTORY:
            guarded.connection.execute(text(f"DELETE FROM {table}"))  # noqa: S608
    with pytest.raises(ProgrammingError, match="history is append-only"):
        guarded.connection.execute(text("DELETE FROM agent_messages"))

    assert not any(guarded.neighbours.rows(ACME)[table] for table in tenancy.HISTORY)
    assert guarded.neighbours.rows(RIVAL) == theirs


def test_a_node_and_its_readers_do_with_that_role(guarded: Guarded, history_at: Any) -> None:
    history = history_at(guarded.url)
    audit = history.audit.bind("newcomer", "web")
    recorder = audit.record(
        node="node-1", settings=Settings(), telemetry=Telemetry(), clock=history.clock
    )
    recorder.start()
    message = history.message("hello", run_id="run-1")
    recorder.sent(message)
    recorder.flush(10)
    history.end(recorder, message)

    assert [(one.payload, one.status) for one in audit.messages(text="ell")] == [
        ("hello", Status.HANDLED)
    ]
    recorder.close(10)
    assert [one.payload for one in history.audit.bind(ACME, "web").messages()] == ["a"]


def test_repositories_do_with_that_role(guarded: Guarded, clock: Any) -> None:
    database, tenant = Database(guarded.url), TenantName("newcomer")

    Tenants(database, clock=clock).create(tenant)
    Projects(database, clock=clock).create(tenant, "web")
    Runs(database, clock=clock).create(tenant, "web", "run-1")
    AgentRuns(database, clock=clock).create(tenant, "web", "run-1", "alice", node="node-1")
    Tenants(database, clock=clock).delete(tenant)

    names = guarded.owner.scalars(text("SELECT name FROM tenants ORDER BY name")).all()
    assert names == [ACME, RIVAL]


def test_the_owner_of_the_tables_is_bound_too(postgres: Any, history_at: Any) -> None:
    with postgres.role() as role, postgres.database(migrated=False) as name:
        postgres.run(f"ALTER DATABASE {name} OWNER TO {role}")
        Neighbours(history_at(postgres.url(name, role)))
        engine = create_engine(postgres.url(name, role))

        with engine.connect() as connection:
            seen = connection.scalar(text("SELECT count(*) FROM agent_messages"))
            tenancy.enter(connection, ACME)
            own = connection.scalar(text("SELECT count(*) FROM agent_messages"))
            with pytest.raises(DBAPIError, match="history is append-only"):
                connection.execute(text("DELETE FROM agent_messages"))

        engine.dispose()
    assert (seen, own) == (0, 1)
