"""The rows of runs, made from the messages that carry a run's name.

Nobody need announce a run: the first of its messages to be written begins it, and the first to
each agent that agent's part in it. Of a message to many it is the delivery that tells who.
How they end is for ``repositories.Runs`` to say.

Rows are written in the order of their names, so that no two writers wait for each other.
"""

from __future__ import annotations

from copy import copy
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeGuard

from sqlalchemy import select

from actorbus.persistence.bulk import Insert
from actorbus.persistence.columns import id_encoder
from actorbus.persistence.models import AgentRun, Run, RunStatus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from actorbus.clock import Clock
    from actorbus.message import IdSource, MessageId

_RUN_COLUMNS: Final = ("tenant_id", "id", "project_id", "name", "status", "started_at")
_PART_COLUMNS: Final = ("tenant_id", "id", "run_id", "agent", "node", "status", "started_at")
_REMEMBERED: Final = 10_000
_BATCH: Final = 500
_MAX_NAME: Final = 128
"""Bytes, as ``check_name`` has it: what is longer names nothing, and no index has room for it."""

Told: TypeAlias = "tuple[Any, ...]"
"""Of a message: its run, its recipient, and when it was sent or, to one of many, handled, as the
driver takes it."""
_Part: TypeAlias = "tuple[str, str | None]"
"""A run, and an agent in it."""


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
        clock: Clock,
    ) -> None:
        placeholder = "%s" if dialect == "postgresql" else "?"
        self._tenant, self._project, self._node = tenant, project, node
        self._ids = ids
        self._clock = clock
        self._id = id_encoder(dialect)
        self._runs = Insert(Run.__tablename__, _RUN_COLUMNS, placeholder, _BATCH)
        self._parts = Insert(AgentRun.__tablename__, _PART_COLUMNS, placeholder, _BATCH)
        self._written: set[_Part] = set()
        """Only spares work: what was forgotten is written again, and that does nothing."""

    def of(self, node: str) -> RunRows:
        """The same for what another node spilled."""
        other = copy(self)
        other._node = node
        return other

    def write(self, connection: Connection, told: Sequence[Told]) -> None:
        """Begin what these messages, in the order they were sent, show for the first time.

        In the transaction that is open.
        """
        begun = self._new(told)
        if not begun:
            return
        keys = self._begin(connection, begun)
        self._take_part(connection, begun, keys)
        if len(self._written) + len(begun) > _REMEMBERED:
            self._written.clear()
        self._written.update(begun)

    def _new(self, told: Sequence[Told]) -> dict[_Part, Any]:
        """When each part began that is not written yet."""
        begun: dict[_Part, Any] = {}
        for run, agent, at in told:
            if _is_name(run):
                part = run, agent if _is_name(agent) else None
                if part not in self._written:
                    begun.setdefault(part, at)
        return begun

    def _begin(self, connection: Connection, begun: Mapping[_Part, Any]) -> dict[str, MessageId]:
        """The keys of runs, by their names."""
        firsts: dict[str, Any] = {}
        for (run, _), at in begun.items():
            firsts.setdefault(run, at)
        values: list[Any] = []
        for run, at in sorted(firsts.items(), key=itemgetter(0)):
            values += [self._id(self._tenant), self._new_id(), self._id(self._project)]
            values += [run, RunStatus.RUNNING.value, at]
        self._runs.run(connection, values)
        found = connection.execute(
            select(Run.name, Run.id).where(
                Run.tenant_id == self._tenant,
                Run.project_id == self._project,
                Run.name.in_(firsts),
            )
        )
        return {name: key for name, key in found}  # noqa: C416 - rows are no pairs to mypy

    def _take_part(
        self, connection: Connection, begun: Mapping[_Part, Any], keys: Mapping[str, MessageId]
    ) -> None:
        parts = [(run, agent, at) for (run, agent), at in begun.items() if agent is not None]
        values: list[Any] = []
        for run, agent, at in sorted(parts, key=itemgetter(0, 1)):
            values += [self._id(self._tenant), self._new_id(), self._id(keys[run])]
            values += [agent, self._node, RunStatus.RUNNING.value, at]
        self._parts.run(connection, values)

    def _new_id(self) -> Any:
        return self._id(self._ids.make(self._clock.now()))


def _is_name(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= _MAX_NAME
