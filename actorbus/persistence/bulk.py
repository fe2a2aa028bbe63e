"""INSERT of many rows into PostgreSQL: from one array a column.

The statement is the same however many rows it writes, so it is prepared once, and the driver
has as many parameters to look at as there are columns. With a placeholder for each value it
spent 170 us a row on finding them in the text; this takes 20.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects import postgresql

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Table


class ArrayInsert:
    """Writes rows as ``rows.Insert`` does, at most `most` in one statement."""

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
