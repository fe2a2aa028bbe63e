"""The rows of runs, made from the messages that carry a run's name.

Nobody need announce a run: the first of its messages to be written begins it, and the first to
each agent that agent's part in it. How they end is for ``repositories.Runs`` to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from actorbus.persistence.bulk import Insert
from actorbus.persistence.columns import id_encoder, instant_encoder
from actorbus.persistence.models import AgentRun, Run, RunStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from actorbus.message import IdSource, MessageId

_RUN_COLUMNS: Final = ("tenant_id", "id", "project_id", "name", "status", "started_at")
_PART_COLUMNS: Final = ("tenant_id", "id", "run_id", "agent", "node", "status", "started_at")
_REMEMBERED: Final = 10_000
_BATCH: Final = 500


class RunRows:
    """Of one node of one project. Make another after a transaction that was rolled back."""

    def __init__(
        self,
        dialect: str,
        *,
        tenant: MessageId,
        project: MessageId,
        node: str,
        ids: IdSource,
    ) -> None:
        placeholder = "%s" if dialect == "postgresql" else "?"
        self._tenant, self._project, self._node = tenant, project, node
        self._ids = ids
        self._id = id_encoder(dialect)
        self._instant = instant_encoder(dialect)
        self._runs = Insert(Run.__tablename__, _RUN_COLUMNS, placeholder, _BATCH)
        self._parts = Insert(AgentRun.__tablename__, _PART_COLUMNS, placeholder, _BATCH)
        self._written: set[tuple[str, str | None]] = set()
        """Only spares work: what was forgotten is written again, and that does nothing."""

    def write(
        self,
        connection: Connection,
        runs: Sequence[str | None],
        recipients: Sequence[str | None],
        now: float,
    ) -> None:
        """Begin what `runs` and `recipients`, of one message each, show for the first time.

        In the transaction that is open; costs 2 us where no message has a run.
        """
        if not any(runs):
            return
        seen = {(run, agent) for run, agent in zip(runs, recipients, strict=True) if run}
        new = seen - self._written
        if not new:
            return
        keys = self._begin(connection, sorted({run for run, _ in new}), now)
        self._take_part(connection, sorted((run, who) for run, who in new if who), keys, now)
        if len(self._written) + len(new) > _REMEMBERED:
            self._written.clear()
        self._written |= new

    def _begin(
        self, connection: Connection, names: Sequence[str], now: float
    ) -> dict[str, MessageId]:
        """The keys of runs, by their names; sorted, so that two writers wait for no ring."""
        values: list[Any] = []
        for name in names:
            values += [self._id(self._tenant), self._id(self._ids.make(now))]
            values += [self._id(self._project), name, RunStatus.RUNNING.value, self._instant(now)]
        self._runs.run(connection, values)
        found = connection.execute(
            select(Run.name, Run.id).where(
                Run.tenant_id == self._tenant,
                Run.project_id == self._project,
                Run.name.in_(names),
            )
        )
        return {name: key for name, key in found}  # noqa: C416 - rows are no pairs to mypy

    def _take_part(
        self,
        connection: Connection,
        parts: Sequence[tuple[str, str]],
        keys: dict[str, MessageId],
        now: float,
    ) -> None:
        values: list[Any] = []
        for run, agent in parts:
            values += [self._id(self._tenant), self._id(self._ids.make(now)), self._id(keys[run])]
            values += [agent, self._node, RunStatus.RUNNING.value, self._instant(now)]
        self._parts.run(connection, values)
