from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from actorbus.persistence.rows import Insert


class Done(NamedTuple):
    rowcount: int


class Statements:
    """A connection that keeps what it is told."""

    def __init__(self) -> None:
        self.written: list[Any] = []
        self.sizes: list[int] = []

    def exec_driver_sql(self, text: str, values: tuple[Any, ...]) -> Done:
        assert text.count("(?, ?)") * 2 == len(values)
        self.sizes.append(len(values) // 2)
        self.written.extend(values)
        return Done(len(values) // 2)


@given(rows=st.integers(0, 300), most=st.integers(1, 64))
def test_every_row_is_written_once_in_order_by_few_statements(rows: int, most: int) -> None:
    connection: Any = Statements()
    values = list(range(rows * 2))

    new = Insert("t", ("a", "b"), "?", most).run(connection, values)

    assert new == rows
    assert connection.written == values
    assert all(size <= most for size in connection.sizes)
    assert len(connection.sizes) <= rows // most + most.bit_length()


def test_a_statement_keeps_below_the_limit_of_parameters() -> None:
    insert = Insert("t", tuple("abcdefghij"), "?", most=1_000_000)

    assert insert.most * 10 <= 32_766
