"""What producers send: loads of numbered messages, and what became of them."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from actorbus.bus.transports.redis.items import item_of
from actorbus.redis_client import encoded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOST_AT_ONCE: Final = 1_000
"""Messages in one script."""
_FOREVER: Final = 1e9
"""Seconds, thirty years: an item has 13 digits for the time at which it expires."""


class Outgoing(NamedTuple):
    """One message on its way. Seconds; ``base`` begins the numbering anew at its sequence."""

    agent: str
    sequence: int
    level: int
    id: bytes
    blob: bytes
    ttl: float | None = None
    delay: float | None = None
    base: bool = False


class Timed(NamedTuple):
    """A message of a load whose messages are not alike. Seconds."""

    level: int
    ttl: float | None
    delay: float | None
    item: bytes


class Load(NamedTuple):
    """Messages to one agent that follow one another: in bulk, all of it costs little more than
    its bytes. ``first`` is the sequence of the first."""

    agent: str
    first: int
    level: int
    """Of all; of no meaning where they are ``timed``."""
    items: Sequence[bytes] = ()
    timed: Sequence[Timed] = ()
    """Instead of ``items``, where levels differ, or times are to be kept."""
    base: bool = False

    def __len__(self) -> int:
        return len(self.items) or len(self.timed)


class Taken(Enum):
    """What became of a message that was sent."""

    OK = "OK"
    """It is in the inbox. Also where it was already."""
    GAP = "GAP"
    """One before it is missing: send from ``last + 1`` on."""
    FULL = "FULL"
    """No room; its number is still free."""
    DROP = "DROP"
    """No room, and the inbox is not to be waited for; its number is still free."""
    NO_AGENT = "NOAGENT"


class Sent(NamedTuple):
    taken: Taken
    number: int = 0
    """For GAP, the last sequence that was taken; for FULL, how many messages wait; for NO_AGENT,
    1 if it is known that the agent ended."""


TAKEN: Final = Sent(Taken.OK)


class Shipped(NamedTuple):
    """What became of a load: how many of its messages are in the inbox, and why the next one is
    not. Those behind it were not looked at."""

    taken: int
    refused: Sent | None = None


NOT_SHIPPED: Final = Shipped(0)


def loads_of(messages: Sequence[Outgoing]) -> list[Load]:
    """Messages that follow one another, to one agent, together."""
    loads: list[Load] = []
    timed: list[Timed] = []
    for agent, sequence, level, message_id, blob, ttl, delay, base in messages:
        last = loads[-1] if loads else None
        if (
            last is None
            or base
            or last.agent != agent
            or last.first + len(timed) != sequence
            or len(timed) >= MOST_AT_ONCE
        ):
            timed = []
            loads.append(Load(agent, sequence, level, timed=timed, base=base))
        timed.append(Timed(level, ttl, delay, item_of(message_id, blob)))
    return loads


def few_enough(loads: Sequence[Load], which: Sequence[int]) -> Iterator[list[int]]:
    """Parts of some loads that one script may take each."""
    some: list[int] = []
    count = 0
    for at in which:
        if some and count + len(loads[at]) > MOST_AT_ONCE:
            yield some
            some, count = [], 0
        some.append(at)
        count += len(loads[at])
    if some:
        yield some


def add_words(words: list[Any], load: Load) -> None:
    """The arguments for a load."""
    agent, first, level, items, timed, base = load
    if items:
        words += (encoded(agent), len(items), first, int(base), level)
        words += items
        return
    words += (encoded(agent), len(timed), first, int(base), "-")
    for of_level, ttl, delay, item in timed:
        words += (
            of_level,
            0 if ttl is None or ttl > _FOREVER else max(1, int(ttl * 1_000)),
            0 if delay is None else int(delay * 1_000),
            item,
        )


def behind(load: Load, taken: int, refused: Sent) -> Sent:
    """What becomes of those behind one that was not taken."""
    if refused.taken is Taken.FULL or refused.taken is Taken.DROP:
        return Sent(Taken.GAP, load.first + taken - 1)
    return refused


def shipped(load: Load, word: bytes) -> Shipped:
    """What SEND's word for a load means."""
    if word == b"OK":
        return Shipped(len(load))
    taken, name, number = word.decode().split(" ")
    return Shipped(int(taken), Sent(Taken(name), int(number)))
