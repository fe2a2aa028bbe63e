"""Who owns an agent, on which terms, and how far it has read."""

from __future__ import annotations

from typing import Final, NamedTuple

CAPACITY: Final = 10_000
CAPACITY_BYTES: Final = 64 * 1024 * 1024
OVERFLOW: Final = "block"
"""Of an inbox that does not say its own, which stands nowhere on the server: all that count on
it take it from here."""


class Cursor(NamedTuple):
    """How far an owner has read a level: the next position, and the id before it."""

    position: int = 0
    id: bytes = b""


class Terms(NamedTuple):
    """What an agent's inbox is like. ``spec`` says how another node makes the agent; b"": none
    may."""

    capacity: int
    overflow: str = OVERFLOW
    spec: bytes = b""


class Known(NamedTuple):
    """What is known of an agent: its owner ("": nobody yet), and its ``Terms``."""

    node: str
    spec: bytes
    capacity: int
    overflow: str

    @property
    def terms(self) -> Terms:
        return Terms(self.capacity, self.overflow, self.spec)


Cursors = tuple[Cursor, Cursor, Cursor, Cursor]
START: Final[Cursors] = (Cursor(), Cursor(), Cursor(), Cursor())


class Ownership(NamedTuple):
    """An agent is ours, until somebody has a newer token."""

    agent: str
    node: str
    token: str
    depth: int
    heads: tuple[int, int, int, int]
    delivered: tuple[int, int, int, int]
    """Up to where an owner before has read; beyond its heads that may have been handled."""
    fresh: bool
    """Whether it was another's, or nobody's, before this call."""
    tried: tuple[int, int] | None = None
    """Level and position of the message that an owner before began as suspect, and died."""
    before: str = ""
    """The node that owned it before; "" for nobody. This node, if it did before this call and
    nobody else had it just before that."""

    @property
    def cursors(self) -> Cursors:
        a, b, c, d = self.heads
        return Cursor(a), Cursor(b), Cursor(c), Cursor(d)

    def at(self, heads: tuple[int, int, int, int]) -> Ownership:
        """The same, with the log beginning there."""
        return self._replace(heads=heads)


class Fenced(Exception):
    """Somebody else owns the agent now. Drop it at once; what it did last does not count."""

    def __init__(self, agent: str) -> None:
        super().__init__(f"agent {agent!r} has another owner now")
        self.agent = agent


class Reset(Exception):
    """The log is not the one that was read: begin again at its heads."""

    def __init__(self, agent: str, heads: tuple[int, int, int, int]) -> None:
        super().__init__(f"the log of {agent!r} begins at {heads} now")
        self.agent = agent
        self.heads = heads


class OwnedBy(Exception):
    """A live node owns the agent."""

    def __init__(self, agent: str, node: str) -> None:
        super().__init__(f"agent {agent!r} is owned by node {node!r}")
        self.agent = agent
        self.node = node
