"""What is known of all agents here: found by name and by capability, without the server."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actorbus.registry.entry import Entry


class Row:
    """One agent: its registration, and who it is in the table."""

    __slots__ = ("entry", "number", "token")

    def __init__(self, token: str, number: int, entry: Entry) -> None:
        self.token = token
        self.number = number
        self.entry = entry

    def is_of(self, token: str, number: int) -> bool:
        return self.number == number and self.token == token


class _Offering:
    __slots__ = ("entries", "listed")

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.listed: tuple[Entry, ...] | None = None


class View:
    """Whoever changes it holds ``lock``. Reading copies nothing while nobody joins or leaves."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._rows: dict[str, Row] = {}
        self._of_token: dict[str, dict[str, None]] = {}
        self._offerings: dict[str, _Offering] = {}
        self._listed: tuple[Entry, ...] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, name: str) -> Row | None:
        return self._rows.get(name)

    def rows(self) -> Iterator[tuple[str, Row]]:
        """All as they are now; what is changed meanwhile does not matter."""
        return iter(list(self._rows.items()))

    def of(self, token: str) -> list[str]:
        """The names of those on the node with that token."""
        return list(self._of_token.get(token, ()))

    def members(self, capability: str | None) -> tuple[Entry, ...]:
        if capability is None:
            return self._listed or self._list_all()
        offering = self._offerings.get(capability)
        if offering is None:
            return ()
        listed = offering.listed
        if listed is None:
            with self.lock:
                listed = offering.listed = tuple(offering.entries.values())
        return listed

    def add(self, name: str, row: Row) -> None:
        """Of a name that nobody has."""
        self._rows[name] = row
        self._of_token.setdefault(row.token, {})[name] = None
        self._listed = None
        for capability in row.entry.capabilities:
            offering = self._offerings.setdefault(capability, _Offering())
            offering.entries[name] = row.entry
            offering.listed = None

    def remove(self, name: str) -> Row:
        """
        Raises:
            KeyError: nobody has that name.
        """
        row = self._rows.pop(name)
        self._listed = None
        names = self._of_token[row.token]
        del names[name]
        if not names:
            del self._of_token[row.token]
        for capability in set(row.entry.capabilities):
            offering = self._offerings[capability]
            del offering.entries[name]
            offering.listed = None
            if not offering.entries:
                del self._offerings[capability]
        return row

    def _list_all(self) -> tuple[Entry, ...]:
        with self.lock:
            listed = self._listed = tuple([row.entry for row in self._rows.values()])
            return listed
