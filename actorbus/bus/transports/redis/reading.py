"""How far the owner of an inbox is with it: decisions only, no clock and no network.

Messages are *fetched*, wait here, lie *in hand* while their agent handles them, and are *done*
in any order; acknowledged is a level up to the first that is not done. No more than
``ACK_BATCH`` are handed out beyond what is acknowledged, so no more can run twice; a quarter of
them is kept for URGENT. Levels take
turns as in a mailbox: each has 8, 4, 2, 1 credits, and the highest that waits and has one goes
next. What a former owner may have died of is handed out alone, and each try is counted on the
server first. After a ``Reset`` (the server
lost its tail) the same messages may come again: those in hand or done of late are known by
their ids, and left out. Somebody else's copy of a message in hand waits until that is done.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from actorbus.bus.transports.redis.items import BESIDE, LEVELS, Item, read_item
from actorbus.bus.transports.redis.log import Done
from actorbus.bus.transports.redis.ownership import Cursor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from actorbus.bus.transports.redis.log import Along, Letter, Unread
    from actorbus.bus.transports.redis.ownership import Cursors, Ownership

ACK_BATCH: Final = 16
"""Messages of an agent that are handed out and not acknowledged: what may run twice."""
_CREDITS: Final = (8, 4, 2, 1)
_REMEMBERED: Final = 1_024
"""Ids of messages done of late, an agent."""


class Reading:
    """One inbox, read by its owner. Not for several threads at once."""

    __slots__ = (
        "_again",
        "_alone",
        "_credits",
        "_displaced",
        "_done",
        "_done_ids",
        "_in_hand",
        "_known",
        "_letters",
        "_most",
        "_out",
        "_sizes",
        "_suspects",
        "_unplaced",
        "_ups",
        "_waiting",
        "cursors",
        "ended",
        "ending",
        "owes",
        "owes_a_fetch",
        "ownership",
        "suspect",
        "unseen",
    )

    def __init__(self, ownership: Ownership, most: int = ACK_BATCH) -> None:
        self.ownership = ownership
        # The last quarter is for URGENT: a slow agent holds the rest for long.
        self._most = (most, *[most - most // 4] * (len(LEVELS) - 1))
        self.cursors: Cursors = ownership.cursors
        """What to fetch next."""
        self.unseen = ownership.depth
        """How many messages lie behind the cursors, as far as we know."""
        self.owes_a_fetch = False
        """Whether a fetch got no answer: the server may think that we have seen it."""
        self.ending = False
        """Whether the agent gets no more."""
        self._ups: list[tuple[int, bytes]] = list(ownership.cursors)
        """Up to where each level is done: the fields of a cursor, which is made when it is sent."""
        self._done: list[dict[int, Item]] = [{} for _ in LEVELS]
        """What is done behind that, by position."""
        self.owes = 0
        """How many messages are done, up to there, and not acknowledged yet."""
        self._sizes: list[int | None] = [0] * len(LEVELS)
        """Their bytes; None: nobody knows."""
        self.ended = 0
        """How many may be done that were not told here yet; whoever tells counts."""
        self._waiting: list[deque[Unread | Item]] = [deque() for _ in LEVELS]
        self._credits = list(_CREDITS)
        self._suspects = ownership.delivered
        self._alone = False
        """Whether one that is suspect is in hand."""
        self.suspect: Item | None = None
        """What may be handed out, alone, once a try of it is counted: ``admit`` it."""
        self._in_hand: dict[bytes, Item] = {}
        self._out = 0
        """Messages handed out and not acknowledged."""
        self._letters: dict[bytes, Letter] = {}
        """Of messages that are done, by id."""
        self._done_ids: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._again = False
        """Whether the log was reset, and what was handed out before that may come again."""
        self._displaced: set[bytes] = set()
        """In that case, of what was in hand then, and was not found again."""
        self._known: set[bytes] = set()
        """And of what was done then."""
        self._unplaced: dict[bytes, Letter] = {}
        """Letters of these, until it is found where they lie now."""

    @property
    def enough(self) -> int:
        """Done messages that are acknowledged at once: it has the other half meanwhile.

        After one that was suspect it has nothing, and others may wait for their turn with theirs.
        """
        return 1 if self._alone else max(1, min(self._most[0] // 2, 32))

    @property
    def in_hand(self) -> int:
        """Messages that are handed out and not done."""
        return len(self._in_hand)

    @property
    def waiting(self) -> int:
        """Messages that are fetched and not handed out."""
        return sum(map(len, self._waiting))

    @property
    def begins(self) -> list[int]:
        """The position on each level of what is handed out next."""
        return [
            queue[0][1] if queue else cursor.position
            for queue, cursor in zip(self._waiting, self.cursors, strict=True)
        ]

    @property
    def urgent(self) -> int:
        """Those of them that are URGENT."""
        return len(self._waiting[0])

    def fetched(self, found: Iterable[Unread | Item], unseen: int) -> None:
        """Take what was fetched, but for what is known already."""
        self.unseen = unseen
        self.owes_a_fetch = False
        waiting = self._waiting
        moved = list(self.cursors)
        for one in self._not_known(found, moved) if self._again else found:
            waiting[one[0]].append(one)
        for level, queue in enumerate(waiting):
            if queue and queue[-1][1] >= moved[level].position:
                last = _read(queue[-1])
                moved[level] = Cursor(last.position + 1, last.id)
        a, b, c, d = moved
        self.cursors = a, b, c, d

    def _not_known(self, found: Iterable[Unread | Item], moved: list[Cursor]) -> Iterator[Item]:
        """What was not handed out before the log was reset."""
        for item in map(_read, found):
            moved[item.level] = Cursor(item.position + 1, item.id)
            if item.id in self._known:
                self._out += 1
                if (letter := self._unplaced.pop(item.id, None)) is not None:
                    self._place(letter, item)
                self._finish(item)
            elif item.id in self._displaced and item.id in self._in_hand:
                # It lies elsewhere now; it is done when its handler is.
                self._displaced.discard(item.id)
                self._in_hand[item.id] = item
            else:
                yield item

    def came_along(self, what: Along) -> bool:
        """Take what came with a bell. False: it is not what would be fetched next."""
        cursor = self.cursors[what.level]
        same_id = not (cursor.id and what.cursor.id) or cursor.id == what.cursor.id
        if (
            self.owes_a_fetch
            or self.unseen
            or what.token != self.ownership.token
            or what.cursor.position != cursor.position
            or not same_id
        ):
            return False
        self.fetched(what.items, 0)
        return True

    def hand_out(self) -> list[Item]:
        """The next messages for the agent, as many as it may have."""
        self._alone = self._alone and self._out > 0
        if self._alone or self.ending:
            return []
        waiting = [level for level in LEVELS if self._waiting[level]]
        if len(waiting) == 1:
            level = waiting[0]
            if self._waiting[level][0][1] >= self._suspects[level]:
                return self._many_of(level)
        return self._in_turns()

    def _many_of(self, level: int) -> list[Item]:
        """What comes of ``_in_turns`` where nothing waits on the other levels."""
        queue = self._waiting[level]
        count = min(self._most[level] - self._out, len(queue))
        if count <= 0:
            return []
        take = queue.popleft
        chosen = [_read(take()) for _ in range(count)]
        by_id = {item.id: item for item in chosen}
        if len(by_id) < count or not by_id.keys().isdisjoint(self._in_hand):
            chosen = self._before_a_copy(chosen, queue)
            by_id = {item.id: item for item in chosen}
            count = len(chosen)
        self._in_hand.update(by_id)
        self._out += count
        left = self._credits[level] - count
        if not queue or left <= 0:
            self._credits = list(_CREDITS)
        if queue:
            self._credits[level] = left if left > 0 else left % _CREDITS[level] or _CREDITS[level]
        return chosen

    def _before_a_copy(self, chosen: list[Item], queue: deque[Unread | Item]) -> list[Item]:
        """Those before the first whose id is in hand; the rest waits again."""
        ids = set(self._in_hand)
        for at, item in enumerate(chosen):
            if item.id in ids:
                queue.extendleft(reversed(chosen[at:]))
                return chosen[:at]
            ids.add(item.id)
        return chosen

    def _in_turns(self) -> list[Item]:
        chosen: list[Item] = []
        while (level := self._next_level()) is not None:
            if self._out >= self._most[level]:
                break
            first = self._waiting[level][0] = _read(self._waiting[level][0])
            if first.position < self._suspects[level]:
                if not self._out:
                    self.suspect = first
                break
            if first.id in self._in_hand:
                break
            chosen.append(self._next_of(level))
        return chosen

    def admit(self) -> Item | None:
        """Hand out the suspect, alone; None if there is none any more."""
        item, self.suspect = self.suspect, None
        if item is None or not self._waiting[item.level]:
            return None
        if _read(self._waiting[item.level][0]) != item:
            return None
        self._alone = True
        return self._next_of(item.level)

    @property
    def is_repeated(self) -> bool:
        """Whether an owner before died while it tried the suspect."""
        one = self.suspect
        return one is not None and self.ownership.tried == (one.level, one.position)

    @property
    def tries(self) -> bool:
        """Whether a suspect is in hand, or its end is not acknowledged yet."""
        return self._alone and self._out > 0

    def _next_of(self, level: int) -> Item:
        item = _read(self._waiting[level].popleft())
        self._credits[level] -= 1
        self._in_hand[item.id] = item
        self._out += 1
        return item

    def _next_level(self) -> int | None:
        waiting = [level for level in LEVELS if self._waiting[level]]
        if not waiting:
            self._credits = list(_CREDITS)
            return None
        for level in waiting:
            if self._credits[level]:
                return level
        self._credits = list(_CREDITS)
        return waiting[0]

    def done(self, message_id: bytes, letter: Letter | None = None) -> bool:
        """A message was handled, or will not be, as `letter` says. False: it is not in hand."""
        item = self._in_hand.pop(message_id, None)
        if item is None:
            return False
        self._done_ids.append(message_id)
        if self._again:
            self._know(message_id)
            if message_id in self._displaced:
                # Where it lay may be another by now: it counts again once it is found.
                self._displaced.discard(message_id)
                self._out -= 1
                if letter is not None:
                    self._unplaced[message_id] = letter
                return True
        if letter is not None:
            self._place(letter, item)
        self._finish(item)
        return True

    def _know(self, message_id: bytes) -> None:
        self._known.add(message_id)
        if len(self._known) > 2 * _REMEMBERED:
            self._know_the_last()

    def _know_the_last(self) -> None:
        known = self._known = set(self._done_ids)
        self._unplaced = {one: letter for one, letter in self._unplaced.items() if one in known}

    def _place(self, letter: Letter, item: Item) -> None:
        """Where the message lies now, which is not where it lay if the log was reset meanwhile."""
        self._letters[item.id] = letter._replace(level=item.level, position=item.position)

    def returned(self, message_id: bytes) -> None:
        """A message that was in hand is not begun, and stays in the log for another owner."""
        self._in_hand.pop(message_id, None)

    def to_acknowledge(self) -> Done:
        """Up to where everything is done, and the letters before that."""
        a, b, c, d = map(Cursor._make, self._ups)
        letters = [one for one in self._letters.values() if one.position < self._ups[one.level][0]]
        return Done(self.ownership, (a, b, c, d), letters, tuple(self._sizes))

    def acknowledged(self, done: Done) -> None:
        """The server has taken that."""
        if done.ownership is not self.ownership:
            return  # the log was reset meanwhile
        heads, up_to = done.ownership.heads, done.up_to
        count = sum([cursor.position - head for cursor, head in zip(up_to, heads, strict=True)])
        self._out -= count
        self.owes -= count
        a, b, c, d = up_to
        self.ownership = self.ownership.at((a.position, b.position, c.position, d.position))
        for level, size in enumerate(done.sizes):
            now = self._sizes[level]
            # None stays so until all that it says nothing of is acknowledged.
            if now is not None and size is not None:
                self._sizes[level] = now - size
            elif self._ups[level][0] == up_to[level].position:
                self._sizes[level] = 0
        if self._letters:
            self._letters = {
                message_id: one
                for message_id, one in self._letters.items()
                if one.position >= up_to[one.level].position
            }

    def renewed(self, ownership: Ownership) -> Reading:
        """This, under a new token: nobody else had the inbox in between."""
        self.ownership = ownership
        self.ending = False
        self.reset(ownership.heads)
        return self

    def reset(self, heads: tuple[int, int, int, int]) -> None:
        """The log begins at `heads` now, and all of it is read again."""
        self.ownership = self.ownership.at(heads)
        self.cursors = self.ownership.cursors
        self._ups = list(self.cursors)
        self._done = [{} for _ in LEVELS]
        self.owes = 0
        self._sizes = [0] * len(LEVELS)
        self._unplaced.update(self._letters)
        self._know_the_last()
        self._displaced = set(self._in_hand)
        self._again = True
        self._waiting = [deque() for _ in LEVELS]
        self._out = len(self._in_hand)
        self._letters.clear()
        self.unseen = 1
        self.owes_a_fetch = True

    def _finish(self, item: Item) -> None:
        """Count it, and what is done behind it, as done and not acknowledged."""
        level, position, message_id, _, blob = item
        done, next_one = self._done[level], self._ups[level][0]
        if position != next_one:
            if position > next_one:
                done[position] = item
            return
        size = self._sizes[level]
        while True:
            self.owes += 1
            # What is no message of ours came without its bytes.
            size = None if size is None or not blob else size + BESIDE + len(blob)
            position += 1
            if not done or (found := done.pop(position, None)) is None:
                break
            _, _, message_id, _, blob = found
        self._sizes[level] = size
        self._ups[level] = position, message_id


def _read(one: Unread | Item) -> Item:
    return one if one.__class__ is Item else read_item(*one)
