"""An agent's bounded queue of waiting messages, by priority.

Theory. Every level is a flat deque, ``WIDTH`` slots a message: a tuple each would stay with the
garbage collector for as long as it waits, and under load that costs more than sending. It grows
by ``extend``, which is atomic, and only the consumer takes from it, so that nobody needs a lock.
What a lock would have to hold together is done so:

- *The bound.* A sender draws a ticket, a number that nobody else gets, and may go in if it is
  below the limit: messages taken out so far, plus tickets that were refused, plus capacity. The
  sender's copy of the limit may be old; only if it says no, the true one is counted under the
  lock. So the bound is exact, whoever sends.
- *Waking.* A mailbox wakes its owner once per burst, on the step from idle to scheduled. A
  sender looks whether somebody is scheduled after it has put its message in; the consumer says
  that nobody is, and then looks once more whether something came. One of them sees the other.
- *Closing.* Whoever closes the mailbox draws a line in every level: what is before it is theirs
  to end, and a sender that finds its message behind the line has not sent it. Nothing is taken
  out, because another thread may just be taking: who is left behind in a handler when a node
  stops, comes back some time. What it has begun to take stays its own, the slots before the
  line that make no whole message; what it began to take later it leaves, see ``was_left``.
- *Dropping the oldest* takes from the left as well, so under that policy alone the consumer takes
  under the lock, see ``_Guarded``.

``interrupted`` tells the consumer to ask again before it starts another message of its *run*:
something of another level arrived, or a command did. That bounds the priority inversion to the
one message in hand.

Which level goes next: each has 8, 4, 2 and 1 credits; the highest waiting level with credit is
served; credits refill when no waiting level has any, or when the mailbox runs empty. So LOW
gets at least a fifteenth of the service under any load. While a level waits alone, its credits
are settled by arithmetic after the run.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from enum import Enum
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from actorbus.errors import InvalidSettings, did_you_mean
from actorbus.message import Entry, Message, MessageId, Priority, envelope, plain_tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Overflow = Literal["block", "reject", "drop-oldest", "drop-newest"]
Order = Literal["weighted", "strict"]

_OVERFLOWS: Final = ("block", "reject", "drop-oldest", "drop-newest")
_ORDERS: Final = ("weighted", "strict")

WEIGHTS: Final = (8, 4, 2, 1)
"""Credits of the levels URGENT, HIGH, NORMAL, LOW."""

_LEVELS: Final = tuple(Priority)
_NORMAL: Final = Priority.NORMAL
_UNUSED: Final[tuple[None, ...]] = (None,) * len(_LEVELS)

WIDTH: Final = 3
"""Slots a message takes in the deque of its level."""

Slots = tuple[Any, Any, Any]
"""(id, payload, created_at) of a tell from outside agents that has nothing else to say; of
anything else (entry, None, None)."""

_LINE: Final = object()
"""What closing puts into the slots of a level."""


class Level(Protocol):
    """The slots of one level, for the consumer to take ``WIDTH`` of for each message."""

    def popleft(self) -> Any:
        """The next slot.

        Raises:
            IndexError: the overflow policy dropped the rest of the run.
        """


_ADMITTED: Final = (True, None)
_NOTHING_TO_DROP: Final = (False, None)

_PATIENCE: Final = 100
"""Times a newcomer gives way to a sender that has the room and has not yet put its message in."""

_DEEP: Final = 1_024
"""Messages after which a sender looks how many wait, and lets the consumer go first if it is as
many: on one core it would else send for as long as the interpreter lets it, some thousand
messages, which by the time they are handled have left every cache."""

Run = tuple[Level, int]
_NOTHING: Final[Run] = (deque(), 0)
_COMMANDED: Final[Run] = (deque(), -1)


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

    @property
    def offer_later(self) -> Callable[..., Offered] | None:
        """``offer(message, seconds=...)``, for later; None if the sender's node holds it back."""

    def offer(self, message: Message[Any]) -> Offered:
        """Take the message or say why not. Never blocks."""

    def when_room(self, waiter: Callable[[], object]) -> bool:
        """Call `waiter` once when there may be room. False if there is already."""

    def forget(self, waiter: Callable[[], object]) -> None:
        """Do not call `waiter` any more."""


class Mailbox:
    """The bounded queue of one agent. Any thread may offer; one consumer runs.

    Args:
        name: whose mailbox this is, for errors.
        policy: bound, overflow and order.
        owner: what ``wake`` is called with.
        wake: called with the owner when the mailbox stops being idle.
        nudge: called after that, and again if it was interrupted.
    """

    __slots__ = (
        "_credits",
        "_left",
        "_limit",
        "_lock",
        "_lone_count",
        "_lone_level",
        "_normal",
        "_nudge",
        "_queues",
        "_refunds",
        "_scheduled",
        "_serving",
        "_suspended",
        "_ticket",
        "_waiters",
        "_wake",
        "closed",
        "commands",
        "ended",
        "guards",
        "interrupted",
        "name",
        "owner",
        "policy",
        "taken",
    )

    def __init__(
        self,
        name: str,
        policy: MailboxPolicy,
        owner: Any,
        wake: Callable[[Any], object],
        nudge: Callable[[], object] | None = None,
    ) -> None:
        self.name = name
        self.policy = policy
        self.owner = owner
        self.closed = False
        self.ended = False
        self.interrupted = False
        self.commands: list[Any] | None = None
        self.taken = 0
        """Messages taken out so far; the consumer counts it up with each."""
        self._wake = wake
        self._nudge = nudge or _nobody_to_nudge
        self._lock = threading.Lock()
        self._ticket = count().__next__
        self._refunds = 0
        self.guards = policy.overflow == "drop-oldest"
        """Whether senders take from a level too, so that only whole messages may be taken."""
        self._limit = min(policy.capacity, _DEEP)
        self._normal: deque[Any] | None = None
        self._queues: Any = _UNUSED
        self._serving: Priority | None = None
        self._credits: list[int] | None = None
        self._lone_level: Priority | None = None
        self._lone_count = 0
        self._scheduled = False
        self._suspended = False
        self._waiters: list[Callable[[], object]] | None = None
        self._left: tuple[object, ...] = ()
        """The first slots of what whoever closed the mailbox has to end next, of each level."""

    # -- the sender's side

    offer_later = None

    def offer(self, message: Message[Any]) -> Offered:
        """Take `message`, or say why not. Never blocks."""
        return self.put(message, message.priority)

    def post(self, message_id: MessageId, payload: Any, created_at: float) -> Offered:
        """``put`` for a tell from outside agents, priority NORMAL, with nothing else to say."""
        # As in put, in line: the hot path.
        if self._limit <= self._ticket():
            admitted, answer = self._admit_late((message_id, payload, created_at), _NORMAL)
            if not admitted:
                return answer
        queue = self._normal
        if queue is None:
            queue = self._open(_NORMAL)
        queue.extend((message_id, payload, created_at))
        if self._serving is not _NORMAL:
            self.interrupted = True
        if not self._scheduled:
            self._schedule()
        if self.ended:
            return self._recall(message_id, queue)
        return None

    def put(self, entry: Entry, priority: Priority) -> Offered:
        """``offer`` for what may be no envelope yet."""
        # The limit is read first: later it may count tickets that were drawn, and refused, later.
        if self._limit <= self._ticket():
            admitted, answer = self._admit_late((entry, None, None), priority)
            if not admitted:
                return answer
        queue = self._normal if priority is _NORMAL else self._queues[priority]
        if queue is None:
            queue = self._open(priority)
        queue.extend((entry, None, None))
        if priority is not self._serving:
            self.interrupted = True
        if not self._scheduled:
            self._schedule()
        if self.ended:
            return self._recall(entry, queue)
        return None

    def insist(self, message: Message[Any]) -> bool:
        """Queue `message` past the bound: what the runtime itself has to say. False if closed."""
        if self.closed:
            return False
        self._ticket()
        priority = message.priority
        queue = self._queues[priority] or self._open(priority)
        queue.extend((message, None, None))
        self.interrupted = True
        if not self._scheduled:
            self._schedule()
        return not self.ended or self._recall(message, queue) is None

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
            self._wake_owner()
            return True

    def when_room(self, waiter: Callable[[], object]) -> bool:
        """Call `waiter` once when there may be room, or the mailbox closed.

        False if that is so already: then it is not kept. The caller offers again, and may
        find it full again.
        """
        with self._lock:
            # First in, then looked: a consumer that needs no lock may have emptied the mailbox
            # in between, and looks for those who wait no more once it is idle.
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
            if not self.closed and len(self) >= self.policy.capacity:
                return True
            self._waiters.remove(waiter)
            self._waiters = self._waiters or None
            return False

    def forget(self, waiter: Callable[[], object]) -> None:
        """Do not call `waiter` any more: whoever waited has given up."""
        with self._lock:
            if self._waiters is not None and waiter in self._waiters:
                self._waiters.remove(waiter)
                self._waiters = self._waiters or None

    # -- the consumer's side

    def run(self, limit: int) -> Run:
        """The next messages: where to ``take`` from, and how many may be taken.

        Before each of them the consumer looks at ``interrupted`` and asks again if it is set;
        after each it counts up ``taken``. A count of 0: nothing waits, the mailbox is idle, its
        owner will be woken. A count below 0: there are ``commands`` to take first.
        """
        self.interrupted = False
        # No level, until the waiting ones were looked at: what comes meanwhile interrupts.
        self._serving = None
        if self.commands is not None:
            self.interrupted = True
            return _COMMANDED
        if self._waiters is not None:
            self._call_waiters()
        queues = self._queues
        urgent, high, queue, low = queues
        level = _NORMAL
        if urgent or high or low:
            waiting = _waiting(queues)
            if len(waiting) > 1:
                level, limit = self._choose(waiting, limit)
            elif not waiting:
                return self.run(limit)
            else:
                level = waiting[0]
                self._lone(level)
            queue = queues[level]
        elif not queue:
            # Nothing waits: be idle, unless something came in the meantime.
            self._credits = None
            self._lone_count = 0
            self._scheduled = False
            urgent, high, queue, low = self._queues
            if queue or urgent or high or low or self.commands is not None:
                return self._run_on(limit)
            return _NOTHING
        elif self._lone_level is not level:
            self._lone(level)
        self._serving = level
        present = len(queue) // WIDTH
        if not present:
            # A sender has just dropped the last of this level; 0 would mean that nobody is to run.
            return self.run(limit)
        if self.guards:
            queue = _Guarded(queue, self._lock)
        return queue, present if present < limit else limit

    def take(self, run: Level) -> Entry:
        """The next message of a run, in one step that no signal can interrupt.

        Raises:
            IndexError: the overflow policy dropped the rest of the run, or it was closed.
        """
        slots = run.take() if isinstance(run, _Guarded) else _taken(run)
        if self.ended and self.was_left(slots[0]):
            raise IndexError
        return self.entry(slots)

    def entry(self, slots: Slots) -> Entry:
        """The message that `slots` hold."""
        first, payload, created_at = slots
        if not isinstance(first, int):
            entry: Entry = first
            return entry
        return plain_tell(MessageId(first), payload, created_at, self.name)

    def was_left(self, first: object) -> bool:
        """Whether the mailbox closed just before the consumer took this, `first` of its slots.

        Then it is not the consumer's to handle, who asks if ``ended`` is set.
        """
        with self._lock:
            return any(first is left for left in self._left)

    def ran(self, taken: int) -> None:
        """Charge what was taken of the last run to its level. The consumer says so after each."""
        if self._lone_level is not None:
            self._lone_count += taken
        elif self._credits is not None and self._serving is not None:
            self._credits[self._serving] -= taken

    def take_commands(self) -> list[Any]:
        """The commands that came since last time, oldest first."""
        with self._lock:
            commands, self.commands = self.commands, None
            return commands or []

    def put_back(self, message: Message[Any]) -> None:
        """Make `message` the next of its level, past the bound: it was in hand already."""
        priority = message.priority
        self._ticket()
        (self._queues[priority] or self._open(priority)).extendleft((None, None, message))

    def extract(self, wanted: Callable[[Message[Any]], bool]) -> list[Message[Any]]:
        """Take out what is `wanted`, in order. Only the consumer may, between runs."""
        found: list[Message[Any]] = []
        with self._lock:
            for queue in filter(None, self._queues):
                kept: list[Message[Any]] = []
                while queue:
                    message = envelope(self.entry(_taken(queue)))
                    (found if wanted(message) else kept).append(message)
                for message in reversed(kept):
                    queue.extendleft((None, None, message))
        self.taken += len(found)
        return found

    def suspend(self) -> None:
        """Wake nobody for messages until the next command. The consumer ends its turn with it.

        A command that came meanwhile wakes the owner at once.
        """
        with self._lock:
            self._scheduled = True
            if self.commands is None:
                self._suspended = True
            else:
                self._wake_owner()

    def refuse(self) -> None:
        """Refuse newcomers from now on; what waits may still be run."""
        with self._lock:
            self.closed = True
            self._limit = -1
            waiters, self._waiters = self._waiters or [], None
        for waiter in waiters:
            waiter()

    def close(self) -> list[Message[Any]]:
        """Refuse everything from now on, and return what still waited, most urgent first.

        The consumer takes no more of a run that it may still hold: it is interrupted.
        """
        self.refuse()
        with self._lock:
            self.ended = True
            self.interrupted = True
            self._scheduled = True
            self._suspended = False
            queues, self._queues, self._normal = self._queues, _UNUSED, None
            levels = [list(_closed(queue)) for queue in filter(None, queues)]
            self._left = tuple(level[0][0] for level in levels if level)
            return [envelope(self.entry(slots)) for level in levels for slots in level]

    # -- looking at it

    def __len__(self) -> int:
        """How many messages wait."""
        return sum(len(queue) // WIDTH for queue in self._queues if queue)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and the owner is not at work."""
        return not self._scheduled

    def waiting(self) -> list[Message[Any]]:
        """A copy of what waits, most urgent level first."""
        return [
            envelope(self.entry(slots))
            for queue in filter(None, self._queues)
            for slots in _whole(list(queue))
        ]

    # -- inside: senders

    def _open(self, priority: Priority) -> deque[Any]:
        """The deque of a level, made when the level is first used."""
        with self._lock:
            return self._opened(priority)

    def _opened(self, priority: Priority) -> deque[Any]:
        if self.ended:
            # For a sender that was let in before, and finds next that it came too late.
            return deque()
        if self._queues is _UNUSED:
            self._queues = [None] * len(_LEVELS)
        queue: deque[Any] | None = self._queues[priority]
        if queue is None:
            queue = self._queues[priority] = deque()
            if priority is _NORMAL:
                self._normal = queue
        return queue

    def _schedule(self) -> None:
        try:
            with self._lock:
                if not self._scheduled:
                    # As in _enqueue_owner.
                    self._suspended = False
                    self._scheduled = True
                    self._wake(self.owner)
            # Not under the lock: whoever is woken goes to work at once, and may want it.
            self._nudge()
        except BaseException:
            self._nudge()
            raise

    def _wake_owner(self) -> None:
        try:
            self._enqueue_owner()
            self._nudge()
        except BaseException:
            self._nudge()
            raise

    def _enqueue_owner(self) -> None:
        # Between these Python must not look for signals, as it does where a Python function
        # begins or a C function has returned: a KeyboardInterrupt would leave an agent that
        # counts as scheduled and that nobody will ever run.
        self._suspended = False
        self._scheduled = True
        self._wake(self.owner)

    def _admit_late(self, slots: Slots, priority: Priority) -> tuple[bool, Offered]:
        """The limit said no to a ticket: count again, then do what the policy says.

        Admitted, or what to answer. The ticket of whoever is not admitted is refunded.
        """
        admission = self._admit(slots, priority)
        for _ in range(_PATIENCE):
            if admission is not _NOTHING_TO_DROP:
                break
            time.sleep(0)
            self._ticket()
            admission = self._admit(slots, priority)
        if admission is _NOTHING_TO_DROP:
            return False, envelope(self.entry(slots))
        if admission is _ADMITTED and self._scheduled and len(self) >= _DEEP:
            # Offer the interpreter to the consumer, who may have been waiting for it.
            time.sleep(0)
        return admission

    def _admit(self, slots: Slots, priority: Priority) -> tuple[bool, Offered]:
        with self._lock:
            if self.closed:
                return False, Refusal.CLOSED
            capacity = self.policy.capacity
            self._refunds += 1
            limit = self.taken + self._refunds + capacity
            ticket = self._ticket()
            if ticket < limit:
                # The first ticket was refunded and another drawn: its number is the true count.
                self._limit = min(limit, ticket + _DEEP)
                return _ADMITTED
            self._limit = limit
            self._refunds += 1
            self._limit += 1
            match self.policy.overflow:
                case "block" | "reject":
                    return False, Refusal.FULL
                case "drop-newest":
                    return False, envelope(self.entry(slots))
                case "drop-oldest":
                    return self._drop_oldest(slots, priority)

    def _drop_oldest(self, slots: Slots, priority: Priority) -> tuple[bool, Offered]:
        lowest = next((level for level in reversed(_LEVELS) if self._queues[level]), None)
        if lowest is None:
            # Either the consumer was quicker, or a sender that was let in has yet to put its own.
            return _NOTHING_TO_DROP
        if priority > lowest:
            return False, envelope(self.entry(slots))
        self._ticket()
        oldest = self.entry(_taken(self._queues[lowest]))
        self._refunds += 1
        self._limit += 1
        # Put in here, under the lock: were the mailbox closed in between, nobody could be told
        # of the one that was dropped.
        self._opened(priority).extend(slots)
        self.interrupted = True
        if not self._scheduled:
            # The consumer looked just when the oldest was out and the newcomer not yet in.
            self._wake_owner()
        return False, envelope(oldest)

    def _recall(self, first: object, queue: deque[Any]) -> Offered:
        """The mailbox ended while a message went in, `first` of its slots: too late?"""
        with self._lock:
            slots = list(queue)
        for slot in reversed(slots):
            if slot is first:
                return Refusal.CLOSED
            if slot is _LINE:
                break
        # Before the line, or taken by the consumer.
        return None

    # -- inside: the consumer

    def _run_on(self, limit: int) -> Run:
        """Something came just when nobody was scheduled any more.

        The owner may have been woken since, and run elsewhere: only the lock says whose turn it is.
        """
        with self._lock:
            if self._scheduled:
                return _NOTHING
            self._scheduled = True
        return self.run(limit)

    def _lone(self, level: Priority) -> None:
        """`level` waits alone."""
        if level is not self._lone_level:
            self._settle_lone()
            self._lone_level = level

    def _settle_lone(self) -> None:
        """Charge what a level was served while it waited alone."""
        if self._lone_count and self._lone_level is not None:
            before = WEIGHTS if self._credits is None else self._credits
            self._credits = charged_alone(before, self._lone_level, self._lone_count)
            self._lone_count = 0

    def _choose(self, waiting: list[Priority], limit: int) -> tuple[Priority, int]:
        """The level to serve of several that wait, and how many of it at most."""
        self._settle_lone()
        self._lone_level = None
        if self.policy.order == "strict":
            return waiting[0], limit
        if self._credits is None:
            self._credits = list(WEIGHTS)
        level = next((level for level in waiting if self._credits[level] > 0), None)
        if level is None:
            self._credits[:] = WEIGHTS
            level = waiting[0]
        return level, min(limit, self._credits[level])

    def _call_waiters(self) -> None:
        """Call as many of those who wait for room as there is room; all, if nothing waits.

        Who is called may have given up, and an idle mailbox would not call the next one.
        """
        with self._lock:
            if self._waiters is None:
                return
            waiting = len(self)
            room = self.policy.capacity - waiting if waiting else len(self._waiters)
            if room <= 0:
                return
            called, self._waiters = self._waiters[:room], self._waiters[room:] or None
        for waiter in called:
            waiter()


def _waiting(queues: Sequence[deque[Any] | None]) -> list[Priority]:
    return [level for level in _LEVELS if queues[level]]


def _nobody_to_nudge() -> None:
    return None


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


class _Guarded:
    """A level from whose left senders take too: its messages leave it whole, under the lock."""

    __slots__ = ("_lock", "_queue", "_rest")

    def __init__(self, queue: deque[Any], lock: threading.Lock) -> None:
        self._queue = queue
        self._lock = lock
        self._rest: list[Any] = []

    def popleft(self) -> Any:
        if not self._rest:
            self._rest = list(reversed(self.take()))
        return self._rest.pop()

    def take(self) -> Slots:
        with self._lock:
            return _taken(self._queue)


def _taken(queue: Any) -> Slots:
    """The slots of the next message, in one step: here no other thread comes in between."""
    first, payload, created_at = map(deque.popleft, (queue,) * WIDTH)
    return first, payload, created_at


def _whole(slots: list[Any]) -> Iterator[Slots]:
    """The messages in the slots of a level; not the first, if the consumer is just taking it."""
    rest = iter(slots[len(slots) % WIDTH :])
    return zip(rest, rest, rest, strict=True)


def _closed(queue: deque[Any]) -> Iterator[Slots]:
    """Draw the line in a level. What is before it."""
    queue.extend((_LINE,) * WIDTH)
    slots = list(queue)
    line = next(at for at, slot in enumerate(slots) if slot is _LINE)
    return _whole(slots[:line])
