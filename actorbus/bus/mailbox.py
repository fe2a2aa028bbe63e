"""An agent's bounded queue of waiting messages, by priority.

Theory. Every level is two lists. Senders append to its *back*; the one consumer pops from the
end of its *front*, and when the front is used up the back is reversed and becomes the front.
So a message costs a sender one lock, and the consumer takes the lock once per *run* of
messages instead of once per message.

``interrupted`` tells the consumer, without a lock, to ask again before it starts another
message of its run: something of another level arrived, or a command did. That bounds the
priority inversion to the one message in hand.

Which level goes next: each has 8, 4, 2 and 1 credits; the highest waiting level with credit is
served; credits refill when no waiting level has any, or when the mailbox runs empty. So LOW
gets at least a fifteenth of the service under any load. While a level waits alone, its credits
are settled by arithmetic after the run.

A mailbox wakes its owner once per burst, on the step from idle to scheduled. The owner that
finds it empty makes it idle again under the same lock, so no wake-up is lost.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from actorbus.errors import InvalidSettings, did_you_mean
from actorbus.message import Entry, Message, Priority, envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Overflow = Literal["block", "reject", "drop-oldest", "drop-newest"]
Order = Literal["weighted", "strict"]

_OVERFLOWS: Final = ("block", "reject", "drop-oldest", "drop-newest")
_ORDERS: Final = ("weighted", "strict")

WEIGHTS: Final = (8, 4, 2, 1)
"""Credits of the levels URGENT, HIGH, NORMAL, LOW."""

_LEVELS: Final = tuple(Priority)
_BIT: Final = tuple(1 << level for level in _LEVELS)
_ALONE: Final = tuple(
    next((level for level in _LEVELS if mask == _BIT[level]), None) for mask in range(16)
)
_UNUSED: Final[tuple[None, ...]] = (None,) * len(_LEVELS)

Run = tuple[list[Entry], int]
_NOTHING: Final[Run] = ([], 0)
_COMMANDED: Final[Run] = ([], -1)


@dataclass(frozen=True, slots=True)
class MailboxPolicy:
    """How much may wait, what happens to more, and which level goes next.

    ``capacity`` counts the messages that wait, not the one in hand. ``overflow``: ``block``
    the sender, ``reject`` the message, ``drop-oldest`` of the lowest level waiting (the
    newcomer, where it ranks below all), or ``drop-newest``. ``order``: ``weighted`` serves
    every level, ``strict`` starves the lower ones while a higher one waits.

    Raises:
        InvalidSettings: a value that cannot be meant.
    """

    capacity: int = 10_000
    overflow: Overflow = "block"
    order: Order = "weighted"

    def __post_init__(self) -> None:
        if isinstance(self.capacity, bool) or not isinstance(self.capacity, int):
            raise InvalidSettings(f"mailbox capacity must be an int, not {self.capacity!r}")
        if self.capacity < 1:
            raise InvalidSettings(f"mailbox capacity must be 1 or more, not {self.capacity}")
        _check_word("overflow", self.overflow, _OVERFLOWS)
        _check_word("order", self.order, _ORDERS)


def _check_word(what: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        raise InvalidSettings(
            f"mailbox {what} is one of {', '.join(known)}, not {word!r}."
            f"{did_you_mean(str(word), known)}"
        )


class Refusal(Enum):
    """Why a mailbox did not take a message."""

    FULL = "full"
    CLOSED = "closed"


Offered = Message[Any] | Refusal | None
"""None: taken. A message: that one was dropped to keep the bound. A refusal: not taken."""


class Inbox(Protocol):
    """Where a transport puts messages for one name."""

    name: str
    policy: MailboxPolicy
    owner: Any
    """Whoever handles what arrives here, if it is in this process."""

    def offer(self, message: Message[Any]) -> Offered:
        """Take the message or say why not. Never blocks."""

    def when_room(self, waiter: Callable[[], object]) -> bool:
        """Call `waiter` once when there may be room. False if there is already."""


class Mailbox:
    """The bounded queue of one agent. Any thread may offer; one consumer runs.

    Args:
        name: whose mailbox this is, for errors.
        policy: bound, overflow and order.
        owner: what ``wake`` is called with.
        wake: called with the owner, outside the lock, when the mailbox stops being idle.
    """

    __slots__ = (
        "_backs",
        "_credits",
        "_fronts",
        "_lock",
        "_lone_count",
        "_lone_level",
        "_mask",
        "_room",
        "_run_from",
        "_scheduled",
        "_serving",
        "_suspended",
        "_waiters",
        "_wake",
        "closed",
        "commands",
        "ended",
        "interrupted",
        "name",
        "owner",
        "policy",
    )

    def __init__(
        self, name: str, policy: MailboxPolicy, owner: Any, wake: Callable[[Any], object]
    ) -> None:
        self.name = name
        self.policy = policy
        self.owner = owner
        self.closed = False
        self.ended = False
        self.interrupted = False
        self.commands: list[Any] | None = None
        self._wake = wake
        self._lock = threading.Lock()
        self._room = policy.capacity
        self._backs: Any = _UNUSED
        self._fronts: Any = _UNUSED
        self._mask = 0
        self._serving: Priority | None = None
        self._run_from = 0
        self._credits: list[int] | None = None
        self._lone_level: Priority | None = None
        self._lone_count = 0
        self._scheduled = False
        self._suspended = False
        self._waiters: list[Callable[[], object]] | None = None

    # -- the sender's side

    def offer(self, message: Message[Any]) -> Offered:
        """Take `message`, or say why not. Never blocks."""
        return self.put(message, message.priority)

    def put(self, entry: Entry, priority: Priority) -> Offered:
        """``offer`` for what may be no envelope yet: the hot path."""
        wake = False
        try:
            with self._lock:
                if self._room > 0:
                    self._room -= 1
                    back = self._backs[priority]
                    if back is None:
                        back = self._open(priority)
                    back.append(entry)
                    if priority is not self._serving:
                        self.interrupted = True
                    if not self._scheduled:
                        self._scheduled = wake = True
                    return None
                refused = self._make_room(entry, priority)
                if refused is not None:
                    return refused
                dropped = self._drop_for(entry, priority)
                if not self._scheduled:
                    self._scheduled = wake = True
                return dropped
        finally:
            # Also when a KeyboardInterrupt comes in between: who is scheduled must be woken.
            if wake:
                self._wake(self.owner)

    def command(self, command: Any) -> bool:
        """Queue something for the owner that goes before every message and is never refused.

        False if the mailbox has ended: nobody would obey.
        """
        with self._lock:
            if self.ended:
                return False
            if self.commands is None:
                self.commands = []
            self.commands.append(command)
            self.interrupted = True
            if self._scheduled and not self._suspended:
                return True
            self._scheduled = True
            self._suspended = False
        self._wake(self.owner)
        return True

    def when_room(self, waiter: Callable[[], object]) -> bool:
        """Call `waiter` once when there may be room, or the mailbox closed.

        False if that is so already: then it is not kept. The caller offers again, and may
        find it full again.
        """
        with self._lock:
            if self.closed or self._count_room() > 0:
                return False
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
            return True

    def forget(self, waiter: Callable[[], object]) -> None:
        """Do not call `waiter` any more: whoever waited has given up."""
        with self._lock:
            if self._waiters is not None and waiter in self._waiters:
                self._waiters.remove(waiter)

    # -- the consumer's side

    def run(self, limit: int) -> Run:
        """The next messages: a list to pop from the end of, and how many may be popped.

        Before each of them the consumer looks at ``interrupted`` and asks again if it is set.
        A count of 0: nothing waits, the mailbox is idle, its owner will be woken. A count
        below 0: there are ``commands`` to take first.
        """
        with self._lock:
            if self._serving is not None:
                self._settle(self._serving)
            if self.commands is not None:
                return _COMMANDED
            self.interrupted = False
            if self._waiters is not None:
                self._admit()
            while mask := self._mask:
                level = _ALONE[mask]
                most = limit
                if level is None:
                    level, most = self._choose(mask, limit)
                    self._lone_level = None
                elif level is not self._lone_level:
                    self._settle_lone()
                    self._lone_level = level
                front = self._fronts[level] or self._turn_over(level)
                waiting = len(front)
                if waiting:
                    self._serving = level
                    self._run_from = waiting
                    return front, waiting if waiting < most else most
                self._mask = mask & ~_BIT[level]
            self._credits = None
            self._lone_count = 0
            self._scheduled = False
            return _NOTHING

    def take_commands(self) -> list[Any]:
        """The commands that came since last time, oldest first."""
        with self._lock:
            commands, self.commands = self.commands, None
            return commands or []

    def put_back(self, message: Message[Any]) -> None:
        """Make `message` the next of its level, past the bound: it was in hand already."""
        with self._lock:
            level = message.priority
            if self._fronts is _UNUSED:
                self._fronts = [None] * len(_LEVELS)
            if not self._fronts[level]:
                self._turn_over(level)
            self._fronts[level].append(message)
            self._mask |= _BIT[level]
            self._room -= 1
            if level is self._serving:
                self._run_from += 1

    def insist(self, message: Message[Any]) -> bool:
        """Queue `message` past the bound: what the runtime itself has to say. False if closed."""
        with self._lock:
            if self.closed:
                return False
            level = message.priority
            (self._backs[level] or self._open(level)).append(message)
            self._room -= 1
            self.interrupted = True
            if self._scheduled:
                return True
            self._scheduled = True
        self._wake(self.owner)
        return True

    def extract(self, wanted: Callable[[Message[Any]], bool]) -> list[Message[Any]]:
        """Take out what is `wanted`. Only while suspended: the consumer holds no run then."""
        with self._lock:
            found: list[Message[Any]] = []
            for queue in (*self._fronts, *self._backs):
                if queue:
                    messages = [envelope(entry, self.name) for entry in queue]
                    found.extend(message for message in messages if wanted(message))
                    queue[:] = [message for message in messages if not wanted(message)]
            return found

    def suspend(self) -> None:
        """Wake nobody for messages until the next command. The consumer ends its turn with it.

        A command that came meanwhile wakes the owner at once.
        """
        with self._lock:
            self._suspended = True
            self._scheduled = True
            if self.commands is None:
                return
            self._suspended = False
        self._wake(self.owner)

    def close(self) -> list[Message[Any]]:
        """Refuse everything from now on, and return what still waited, most urgent first.

        The consumer calls it: a run that it still holds is empty afterwards.
        """
        with self._lock:
            self.closed = self.ended = True
            self.interrupted = True
            left = self._copy()
            for queue in (*self._fronts, *self._backs):
                if queue:
                    queue.clear()
            self._backs = self._fronts = _UNUSED
            self._mask = 0
            self._room = -1
            self._serving = None
            waiters, self._waiters = self._waiters or [], None
        for waiter in waiters:
            waiter()
        return left

    def refuse(self) -> None:
        """Refuse newcomers from now on; what waits may still be run."""
        with self._lock:
            self.closed = True
            self._room = -1
            waiters, self._waiters = self._waiters or [], None
        for waiter in waiters:
            waiter()

    # -- looking at it

    def __len__(self) -> int:
        """How many messages wait."""
        return sum(len(queue) for queue in (*self._backs, *self._fronts) if queue)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and the owner is not at work."""
        return not self._scheduled

    @property
    def suspended(self) -> bool:
        return self._suspended

    def waiting(self) -> list[Message[Any]]:
        """A copy of what waits, most urgent level first."""
        with self._lock:
            return self._copy()

    # -- under the lock

    def _copy(self) -> list[Message[Any]]:
        left: list[Entry] = []
        for level in _LEVELS:
            left.extend(reversed(self._fronts[level] or ()))
            left.extend(self._backs[level] or ())
        return [envelope(entry, self.name) for entry in left]

    def _open(self, level: Priority) -> list[Entry]:
        if self._backs is _UNUSED:
            self._backs = [None] * len(_LEVELS)
        back: list[Entry] = []
        self._backs[level] = back
        self._mask |= _BIT[level]
        return back

    def _turn_over(self, level: Priority) -> list[Entry]:
        """Make the back of the level its front."""
        front = self._backs[level] or []
        front.reverse()
        if self._backs is not _UNUSED:
            self._backs[level] = None
        if self._fronts is _UNUSED:
            self._fronts = [None] * len(_LEVELS)
        self._fronts[level] = front
        return front

    def _count_room(self) -> int:
        if not self.closed:
            self._room = self.policy.capacity - len(self)
        return self._room

    def _make_room(self, entry: Entry, priority: Priority) -> Offered:
        """The bound was reached by the last count: count again, then say what the policy says.

        None if the message may go in, after one was dropped if need be.
        """
        if self.closed:
            return Refusal.CLOSED
        if self._count_room() > 0:
            return None
        match self.policy.overflow:
            case "block" | "reject":
                return Refusal.FULL
            case "drop-newest":
                return envelope(entry, self.name)
            case "drop-oldest":
                lowest = max(level for level in _LEVELS if self._count(level))
                return envelope(entry, self.name) if priority > lowest else None

    def _drop_for(self, entry: Entry, level: Priority) -> Message[Any] | None:
        """Put `entry` in where ``_make_room`` allowed it; what had to go for it."""
        dropped = None
        if self._room <= 0:
            dropped = self._oldest_of_lowest()
        self._room -= 1
        (self._backs[level] or self._open(level)).append(entry)
        self.interrupted = True
        return dropped

    def _count(self, level: Priority) -> int:
        return len(self._fronts[level] or ()) + len(self._backs[level] or ())

    def _oldest_of_lowest(self) -> Message[Any] | None:
        for level in reversed(_LEVELS):
            for queue, oldest in ((self._fronts[level], -1), (self._backs[level], 0)):
                if queue:
                    self._room += 1
                    return envelope(queue.pop(oldest), self.name)
        return None

    def _settle(self, served: Priority) -> None:
        """Charge the last run to its level, and see whether the level still waits."""
        front = self._fronts[served]
        count = self._run_from - len(front)
        self._serving = None
        if not front and not self._backs[served]:
            self._mask &= ~_BIT[served]
        if self._lone_level is not None:
            self._lone_count += count
        elif self._credits is not None:
            self._credits[served] -= count

    def _settle_lone(self) -> None:
        """Charge what a level was served while it waited alone."""
        if self._lone_count and self._lone_level is not None:
            before = WEIGHTS if self._credits is None else self._credits
            self._credits = charged_alone(before, self._lone_level, self._lone_count)
            self._lone_count = 0

    def _choose(self, mask: int, limit: int) -> tuple[Priority, int]:
        """The level to serve of several that wait, and how many of it at most."""
        waiting = [level for level in _LEVELS if mask & _BIT[level]]
        if self.policy.order == "strict":
            return waiting[0], limit
        self._settle_lone()
        if self._credits is None:
            self._credits = list(WEIGHTS)
        level = next((level for level in waiting if self._credits[level] > 0), None)
        if level is None:
            self._credits[:] = WEIGHTS
            level = waiting[0]
        return level, min(limit, self._credits[level])

    def _admit(self) -> None:
        """Call as many of those who wait for room as there is room."""
        room = self._count_room()
        if room <= 0 or self._waiters is None:
            return
        admitted, self._waiters = self._waiters[:room], self._waiters[room:] or None
        for waiter in admitted:
            waiter()


def charged_alone(before: Sequence[int], level: Priority, count: int) -> list[int]:
    """The credits of all levels after `level` waited alone and was served `count` messages.

    Each time it ran out of credit no waiting level had any, so all were refilled.
    """
    after = list(before)
    if count <= after[level]:
        after[level] -= count
        return after
    over = (count - after[level]) % WEIGHTS[level]
    after[:] = WEIGHTS
    after[level] = WEIGHTS[level] - over if over else 0
    return after
