"""The work of a node's agents, looked at together: what a node asks before it drains or stops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actorbus.bus.origin import CURRENT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actorbus.actors.cell import Cell
    from actorbus.bus.transport import Transport


class Work:
    """Who of `cells` is at work, and who has not ended. They come and go meanwhile."""

    __slots__ = ("_table", "_transport")

    def __init__(self, cells: Mapping[str, Cell], transport: Transport) -> None:
        self._table = cells
        self._transport = transport

    def is_quiet(self) -> bool:
        """Whether nobody is at work, twice with nothing done in between, and nothing on its way."""
        before = self._handled()
        if before is None or self._transport.pending():
            return False
        return before == self._handled()

    def _handled(self) -> int | None:
        """How many messages were handled in all; None if somebody is at work."""
        cells = self._cells()
        if any(cell.busy for cell in cells):
            return None
        return sum(cell.message_count for cell in cells)

    def busy_names(self) -> list[str]:
        return [cell.name for cell in self._cells() if cell.busy]

    def is_over(self) -> bool:
        """Whether everyone has ended, but for the one whose handler calls this."""
        return len(self._table) < 2 and not self.left()

    def left(self) -> list[str]:
        """Whose agents have not ended, but for the one whose handler calls this."""
        origin: Any = CURRENT.get()
        caller = None if origin is None else origin.cell
        return [cell.name for cell in self._cells() if cell is not caller]

    def abandon(self) -> None:
        """Time is up: end what waits, and cancel the handlers that can be cancelled."""
        for cell in self._cells():
            cell.abandon()

    def depth(self) -> Mapping[str, int]:
        depth: dict[str, int] = {}
        for cell in self._cells():
            kind = cell.agent_class.__qualname__
            depth[kind] = depth.get(kind, 0) + len(cell.mailbox)
        return depth

    def _cells(self) -> list[Cell]:
        return list(self._table.values())
