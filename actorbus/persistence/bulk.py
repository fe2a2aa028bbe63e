"""INSERT of many rows in one statement, as each database likes it best.

SQLite lets go of Python's lock at every step of a statement, so a row a step would let a busy
thread take the lock away 500 times a batch, 5 ms each. One step for many rows measured 90 times
faster beside a busy thread, and no slower alone. After that most of its time goes into
parameters, 0.2 us each, so ``LeanInsert`` has none where all rows have the same.

PostgreSQL gets one array a column. The statement is the same however many rows it writes, so it
is prepared once, and the driver has as many parameters to look at as there are columns. With a
placeholder for each value it spent 170 us a row on finding them in the text; this takes 20.
"""

from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.dialects import postgresql

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Table


_MAX_PARAMETERS: Final = 32_766
"""SQLite's limit a statement; PostgreSQL's is twice that."""
_LEARN_EVERY: Final = 64
"""Statements: compiling one costs some milliseconds."""
_MOST_TEXTS: Final = 8


class Insert:
    """One INSERT of up to `most` rows, and of every smaller power of two."""

    def __init__(self, table: str, columns: Sequence[str], placeholder: str, most: int) -> None:
        self.width = len(columns)
        self.most = min(most, _MAX_PARAMETERS // self.width)
        self._row = f"({', '.join([placeholder] * self.width)})"
        self._head = f"INSERT INTO {table} ({', '.join(columns)}) VALUES "  # noqa: S608 - names from our models
        self._texts: dict[int, str] = {}

    def run(self, connection: Connection, values: list[Any]) -> int:
        """Write rows whose values follow one another in `values`; how many were new."""
        width = self.width
        start, rows, new = 0, len(values) // width, 0
        while rows:
            size = self.most if rows >= self.most else 1 << (rows.bit_length() - 1)
            end = start + size * width
            text, given = self._prepared(values[start:end], size)
            new += connection.exec_driver_sql(text, given).rowcount
            start, rows = end, rows - size
        return new

    def _prepared(self, values: Sequence[Any], size: int) -> tuple[str, tuple[Any, ...]]:
        """The statement for `size` rows, and what to bind."""
        text = self._texts.get(size)
        if text is None:
            text = self._texts[size] = self._statement(self._row, size)
        return text, tuple(values)

    def _statement(self, row: str, size: int) -> str:
        return f"{self._head}{', '.join([row] * size)} ON CONFLICT DO NOTHING"


class LeanInsert(Insert):
    """The same for SQLite, with values written into the statement where many rows share them.

    `constants` are columns that have one value in all rows. Columns that were NULL in all rows
    of late are taken to be NULL until a row says otherwise.
    """

    def __init__(
        self,
        table: str,
        columns: Sequence[str],
        placeholder: str,
        most: int,
        *,
        constants: Mapping[str, bytes | int | str],
    ) -> None:
        super().__init__(table, columns, placeholder, most)
        self._placeholder = placeholder
        self._constants = {
            columns.index(name): _literal(value)
            for name, value in constants.items()
            if name in columns and _is_harmless(value)
        }
        self._others = [at for at in range(self.width) if at not in self._constants]
        self._empty: Sequence[int] = ()
        self._left = 0
        """Statements until the empty columns are looked for anew."""
        self._lean: dict[tuple[int, ...], tuple[str, list[bool]]] = {}

    def _prepared(self, values: Sequence[Any], size: int) -> tuple[str, tuple[Any, ...]]:
        if size != self.most:
            return super()._prepared(values, size)
        text, bound = self._leaner(self._always_empty(values))
        return text, tuple(compress(values, bound))

    def _always_empty(self, values: Sequence[Any]) -> tuple[int, ...]:
        if not self._left:
            self._left = _LEARN_EVERY
            self._empty = self._others
        self._left -= 1
        empty = [at for at in self._empty if values[at :: self.width].count(None) == self.most]
        self._empty = empty
        return tuple(empty)

    def _leaner(self, empty: tuple[int, ...]) -> tuple[str, list[bool]]:
        """The statement where those columns are NULL, and which of a batch's values it wants."""
        known = self._lean.get(empty)
        if known is None:
            if len(self._lean) >= _MOST_TEXTS:
                self._lean.clear()
            fixed = {**self._constants, **dict.fromkeys(empty, "NULL")}
            row = [fixed.get(at, self._placeholder) for at in range(self.width)]
            text = self._statement(f"({', '.join(row)})", self.most)
            bound = [at not in fixed for at in range(self.width)] * self.most
            known = self._lean[empty] = text, bound
        return known


class ArrayInsert:
    """Writes rows as ``Insert`` does, at most `most` in one statement."""

    def __init__(self, table: Table, columns: Sequence[str], most: int) -> None:
        dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
        types = [table.c[name].type.compile(dialect) for name in columns]
        # An array of documents would be quoted twice; they go as text.
        arrays = ", ".join(f"%b::{'TEXT' if one == 'JSONB' else one}[]" for one in types)
        picked = ", ".join(f"{name}::{one}" for name, one in zip(columns, types, strict=True))
        names = ", ".join(columns)
        self.width = len(columns)
        self.most = most
        self._text = (
            f"INSERT INTO {table.name} ({names}) SELECT {picked}"  # noqa: S608 - names from our models
            f" FROM unnest({arrays}) AS new ({names}) ON CONFLICT DO NOTHING"
        )

    def run(self, connection: Connection, values: list[Any]) -> int:
        """Write rows whose values follow one another in `values`; how many were new."""
        size, new = self.most * self.width, 0
        for start in range(0, len(values), size):
            some = values[start : start + size]
            arrays = tuple(some[column :: self.width] for column in range(self.width))
            new += connection.exec_driver_sql(self._text, arrays).rowcount
        return new


def _is_harmless(value: bytes | int | str) -> bool:
    """Whether SQL can hold it as it is; what cannot be sure of that is bound."""
    return not isinstance(value, str) or (value.isascii() and value.isprintable())


def _literal(value: bytes | int | str) -> str:
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    if isinstance(value, str):
        quoted = value.replace("'", "''")
        return f"'{quoted}'"
    return str(value)
