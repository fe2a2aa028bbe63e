"""How far the agents of a node are with the log: decisions only, no clock and no network.

The node reads the log once. What is for an agent stands in its *line*: it waits, is *in hand*
while the agent handles it, and is done in any order; the agent's point is before the first that
is not done. Who has nothing in line is as far as the node has read, and costs nothing.

No more than ``AHEAD`` events are with an agent beyond the point that the server knows of it, so
no more can come twice when the node dies. The server is told the *watermark* of the node, which
no agent without a point of its own there is behind; who would hold it back gets one.

A slow agent is cut from the common reading once its line is full: it *lags*, and is read for
alone, from where it was cut, until it has caught up. What was dropped meanwhile stands in line
as one ``Gap``.

When the server lost its tail, the log is read again from a point that is surely the same; what
is known by its id is not given out again, and its point is the new one.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from actorbus.bus.gap import Gap
from actorbus.bus.transports.redis.topics.log import START, Broken, Entry, Point, Save

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from actorbus.bus.transports.redis.topics.log import Found, Rewound

AHEAD: Final = 16
"""Events that an agent was given beyond the point that the server knows: what may come twice."""
ENOUGH: Final = AHEAD // 2
"""Events that an agent is done with after which its point is saved at once."""
LINE: Final = 64
"""Events in an agent's line before it is read for alone."""
_POINTS: Final = 100
"""Agents that get a point of their own in one save, lest the watermark stand still."""
_REMEMBERED: Final = 16_384
"""Entries whose ids are known after the log was rewound."""
_STEP: Final = 1_024
_STEPS: Final = 128
"""Every so many entries one is remembered to go back to, and so many of those."""


class Missed(NamedTuple):
    """A gap as it stands in line; `id` is what ``done`` is told."""

    gap: Gap
    before: Point
    point: Point

    @property
    def id(self) -> bytes:
        return b"gap%013d" % self.gap.last


class _Known(NamedTuple):
    """An entry that was read. Logs are counted: each rewinding begins another."""

    born: int
    """In which log it was read first."""
    log: int
    """In which it was read last, and where."""
    number: int


class Listeners(Protocol):
    """Who gets what; see ``Audience``."""

    def names(self, entry: Entry, everybody: Collection[str]) -> Iterable[str]:
        """Who of this node gets `entry`, each once."""

    def wants(self, agent: str, entry: Entry) -> bool:
        """Whether one agent gets it."""


class _Place:
    """One event in one agent's line. The points change when the log is rewound."""

    __slots__ = ("before", "is_done", "point", "serial", "what")

    def __init__(self, what: Entry | Missed, serial: int) -> None:
        self.what = what
        self.serial = serial
        self.before = what.before
        self.point = what.point
        self.is_done = False


class _Follower:
    """One agent. Lists and not deques: there are many, most are empty, none is long."""

    __slots__ = (
        "ahead",
        "alone",
        "ending",
        "floor",
        "in_hand",
        "line",
        "name",
        "owed",
        "trusts",
        "unsaved",
        "waiting",
    )

    def __init__(self, name: str, floor: Point) -> None:
        self.name = name
        self.floor = floor
        """Nothing up to there is for it."""
        self.alone: Point | None = None
        """Up to where it was read for alone; None if it is with the others."""
        self.trusts = 0
        """What is known from logs before that one it has had, but for what it is owed."""
        self.owed: frozenset[bytes] = frozenset()
        self.line: list[_Place] = []
        """What it is not done with, and what it is done with behind that."""
        self.waiting: list[_Place] = []
        self.in_hand: dict[bytes, _Place] = {}
        self.ahead: list[_Place] = []
        """What it was given beyond its point on the server."""
        self.unsaved = 0
        """How many it is done with since the last save."""
        self.ending = False
        """Whether it gets no more."""

    @property
    def is_held(self) -> bool:
        """Whether it waits for a save, or soon will."""
        return self.unsaved >= ENOUGH or bool(self.waiting and not self.in_hand)

    def has_had(self, event_id: bytes, known: _Known) -> bool:
        return known.born < self.trusts and event_id not in self.owed

    def holds(self, event_id: bytes) -> bool:
        """Whether it waits for it, or is not done with it."""
        return any(place.what.id == event_id and not place.is_done for place in self.line)

    def line_up(self, what: Entry | Missed, serial: int) -> None:
        place = _Place(what, serial)
        self.line.append(place)
        self.waiting.append(place)

    def take(self) -> list[_Place]:
        """What it is given now."""
        room = 0 if self.ending else max(AHEAD - len(self.ahead), int(self._is_crossed()))
        some, self.waiting = self.waiting[:room], self.waiting[room:]
        self.ahead += some
        self.in_hand.update((place.what.id, place) for place in some)
        return some

    def _is_crossed(self) -> bool:
        """Whether what waits lies before what it is done with, so that no save makes room.

        So it may be where the log was rewound and events came again in another order.
        """
        if self.in_hand or not self.waiting or len(self.ahead) < AHEAD:
            return False
        first = min(place.before for place in self.waiting)
        return any(place.point > first for place in self.ahead if place.is_done)

    def done(self, event_id: bytes) -> bool:
        place = self.in_hand.pop(event_id, None)
        if place is None:
            return False
        place.is_done = True
        over = 0
        while over < len(self.line) and self.line[over].is_done:
            over += 1
        del self.line[:over]
        self.unsaved += 1
        return True


class Following:
    """The agents of one node. Not for several threads at once.

    Args:
        at: where the node begins to read.
        watermark: what the server knows to be the node's.
    """

    def __init__(self, at: Point, watermark: Point) -> None:
        self.read = at
        """Up to where the log was read for all."""
        self.read_id = b""
        self.watermark = watermark
        self.points: dict[str, Point] = {}
        """The agents that have points of their own on the server."""
        self.hurries = False
        """Whether somebody waits for a save."""
        self.broken: list[Broken] = []
        """What was found that none of us wrote; whoever tells of it empties this."""
        self._followers: dict[str, _Follower] = {}
        self._busy: dict[str, _Follower] = {}
        """Those that may not be where the watermark will be."""
        self._ready: dict[str, _Follower] = {}
        """Those with something that waits."""
        self._serial = 0
        self._log = 0
        # Not a dict: what is first in one is found behind all that was taken out before it.
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        """What was read last."""
        self._steps: deque[tuple[Point, bytes]] = deque([(at, b"")], maxlen=_STEPS)
        """Where one can go back to."""
        self._adrift: dict[bytes, list[_Place]] = {}
        """What stands in line from before the log was rewound, and was not read again yet."""
        self._save: Save | None = None
        self._anew = False

    # -- who follows

    @property
    def agents(self) -> Collection[str]:
        return self._followers.keys()

    @property
    def lagging(self) -> frozenset[str]:
        """The agents that are read for alone."""
        return frozenset(one.name for one in self._busy.values() if one.alone is not None)

    def add(self, agent: str, at: Point, *, has_point: bool, begins: bool = True) -> None:
        """An agent follows from `at` on; `has_point`: the server has a point of its own for it.

        Without `begins` it gets nothing before it is told to ``begin``, and then all.
        """
        follower = self._followers[agent] = _Follower(agent, at)
        self._ready.pop(agent, None)
        self.points.pop(agent, None)
        if has_point:
            self.points[agent] = at
        follower.ending = not begins
        if at < self.read or not begins:
            follower.alone = at
        if has_point or follower.alone is not None:
            self._busy[agent] = follower

    def add_new(self, agent: str, at: Point, rewinds: int) -> bool:
        """An agent follows that the server was told nothing of, and need not be.

        That is so where `at` is the node's watermark, as it was and as it is to be. False: it
        does not follow, and the server must be told.
        """
        is_known = self.watermark == at and self._save is None and not self._anew
        if rewinds != self.rewinds or not is_known or at > self.read:
            return False
        self.add(agent, at, has_point=False)
        return True

    @property
    def rewinds(self) -> int:
        """How often the log was found to be another."""
        return self._log

    def begin(self, agent: str) -> None:
        if agent in self._followers:
            self._followers[agent].ending = False

    def remove(self, agent: str) -> None:
        """Idempotent. The server is told by others, if at all."""
        for table in (self._followers, self._busy, self._ready):
            table.pop(agent, None)
        self.points.pop(agent, None)
        if self._save is not None:
            self._save = self._save.without(agent)

    def end(self, agent: str) -> None:
        """An agent gets no more."""
        if agent in self._followers:
            self._followers[agent].ending = True

    def in_hand(self, agent: str) -> int:
        """How many events an agent has that it is not done with."""
        follower = self._followers.get(agent)
        return 0 if follower is None else len(follower.in_hand)

    def waiting(self, agent: str) -> int:
        """How many events stand in line for an agent that it was not given."""
        follower = self._followers.get(agent)
        return 0 if follower is None else len(follower.waiting)

    def point(self, agent: str) -> Point | None:
        """Up to where an agent has had everything; None if it does not follow."""
        follower = self._followers.get(agent)
        return None if follower is None else self._point(follower)

    def _point(self, follower: _Follower) -> Point:
        if follower.line:
            # Not that of the first: where the log was rewound they may lie in another order.
            return max(
                min(place.before for place in follower.line if not place.is_done), follower.floor
            )
        return max(self.read if follower.alone is None else follower.alone, follower.floor)

    # -- reading

    def came(self, found: Found, listeners: Listeners) -> None:
        """What was read for all, after ``read``."""
        for what in _told(self.read, found, found.last):
            self._serial += 1
            if isinstance(what, Missed):
                for follower in self._followers.values():
                    self._miss(follower, what)
                self.read, self.read_id = what.point, b""
                continue
            known = self._known.get(what.id)
            self._moor(what)
            if known is None or known.log < self._log:
                self._spread(what, known, listeners)
                self._remember(what, known)
            self.read, self.read_id = what.point, what.id

    def _spread(self, what: Entry | Broken, known: _Known | None, listeners: Listeners) -> None:
        if isinstance(what, Broken):
            if known is None:
                self.broken.append(what)
            return
        for name in listeners.names(what, self.agents):
            follower = self._followers.get(name)
            if follower is not None and (known is None or not follower.has_had(what.id, known)):
                self._give(follower, what)

    def _miss(self, follower: _Follower, missed: Missed) -> None:
        """A gap, for who was not beyond it already."""
        floor = follower.floor
        if missed.gap.first <= floor.number < missed.gap.last:
            missed = Missed(Gap(floor.number + 1, missed.gap.last), floor, missed.point)
        self._give(follower, missed)

    def _give(self, follower: _Follower, what: Entry | Missed) -> None:
        if follower.alone is not None or what.point.number <= follower.floor.number:
            return
        if len(follower.line) >= LINE:
            follower.alone = what.before
            self._busy[follower.name] = follower
        else:
            self._line_up(follower, what)

    def _line_up(self, follower: _Follower, what: Entry | Missed) -> None:
        if self._log and follower.holds(what.id):
            return
        follower.line_up(what, self._serial)
        self._busy[follower.name] = follower
        self._ready[follower.name] = follower

    def _remember(self, what: Entry | Broken, known: _Known | None) -> None:
        born = self._log if known is None else known.born
        self._known.pop(what.id, None)
        self._known[what.id] = _Known(born, self._log, what.point.number)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        if what.point.number % _STEP == 0:
            self._steps.append((what.point, what.id))

    # -- reading for those that lag

    def lags(self, most: int) -> dict[Point, list[str]]:
        """Points to read from alone, at most so many, and for whom: who has room in line."""
        found: dict[Point, list[str]] = {}
        for name, follower in self._busy.items():
            if follower.alone is None or follower.ending or len(follower.line) * 2 > LINE:
                continue
            if follower.alone in found or len(found) < most:
                found.setdefault(follower.alone, []).append(name)
        for names in found.values():
            for name in names:
                # Others come first the next time.
                self._busy[name] = self._busy.pop(name)
        return found

    def came_alone(
        self, agents: Sequence[str], after: Point, found: Found, listeners: Listeners
    ) -> None:
        """What was read for some agents that lag, after `after`."""
        followers = [self._followers[name] for name in agents if name in self._followers]
        followers = [one for one in followers if one.alone == after]
        for what in _told(after, found, min(found.last, self.read)):
            if what.point.number > self.read.number:
                break
            self._serial += 1
            if not isinstance(what, Missed):
                self._moor(what)
            known = self._known.get(what.id)
            is_again = known is not None and known.number != what.point.number
            for follower in followers:
                if not (is_again or (known and follower.has_had(what.id, known))):
                    self._give_alone(follower, what, listeners)
                follower.alone = what.point
        for follower in followers:
            if follower.alone is not None and follower.alone.number >= self.read.number:
                follower.alone = None

    def _give_alone(
        self, follower: _Follower, what: Entry | Broken | Missed, listeners: Listeners
    ) -> None:
        match what:
            case Missed():
                self._line_up(follower, what)
            case Entry() if listeners.wants(follower.name, what):
                self._line_up(follower, what)

    # -- when the server lost its tail

    def rewound(self, told: Rewound) -> Point:
        """The point from which the log is read again.

        The next reading looks whether the log is the same there; where it is not, this goes
        further back.
        """
        self.read, self.read_id = START, b""
        while self._steps and self.read == START:
            point, message_id = self._steps.pop()
            if point.number <= told.last.number:
                self.read, self.read_id = point, message_id
        if told.first is not None and self.read.number < told.first.number - 1:
            self.read, self.read_id = Point(told.first.number - 1, told.first.time), b""
        self._adrift = {}
        owed: dict[tuple[Point | None, int, frozenset[bytes]], frozenset[bytes]] = {}
        for follower in self._followers.values():
            key = (follower.alone, follower.trusts, follower.owed)
            if key not in owed:
                owed[key] = frozenset(self._not_had(follower))
            follower.owed = owed[key]
            self._rewind(follower)
        self._log += 1
        self.save_anew()
        return self.read

    def _not_had(self, follower: _Follower) -> Iterator[bytes]:
        """Of what is known, that which stood behind where one was read for alone."""
        for event_id, known in self._known.items():
            if known.log == self._log:
                if follower.alone is not None and known.number > follower.alone.number:
                    yield event_id
            elif not follower.has_had(event_id, known):
                yield event_id

    def _rewind(self, follower: _Follower) -> None:
        follower.trusts = self._log + 1
        follower.floor = min(follower.floor, self.read)
        if follower.alone is not None:
            follower.alone = min(follower.alone, self.read)
        for place in follower.line:
            if place.point > self.read:
                place.before = place.point = self.read
                if not place.is_done:
                    self._adrift.setdefault(place.what.id, []).append(place)
        # Where the others are now is known only once they are read again.
        follower.ahead = [place for place in follower.ahead if not place.is_done]

    def _moor(self, what: Entry | Broken) -> None:
        """What stands in line from before is there now."""
        for place in self._adrift.pop(what.id, ()):
            place.before, place.point = what.before, what.point

    # -- handing out

    def hand_out(self) -> list[tuple[Entry | Missed, list[str]]]:
        """What is given now, and to whom; to each agent in order."""
        given: dict[tuple[int, Point], tuple[Entry | Missed, list[str]]] = {}
        for name, follower in list(self._ready.items()):
            for place in follower.take():
                # Of one gap, who began in it missed only the rest.
                key = (place.serial, place.what.before)
                given.setdefault(key, (place.what, []))[1].append(name)
            if not follower.waiting:
                del self._ready[name]
        return [given[key] for key in sorted(given)]

    def done(self, agent: str, event_id: bytes) -> bool:
        """An agent is done with an event. False: it does not have it in hand."""
        follower = self._followers.get(agent)
        if follower is None or not follower.done(event_id):
            return False
        self.hurries = self.hurries or follower.is_held
        return True

    # -- what the server knows

    def to_save(self) -> Save | None:
        """What to tell the server; the same again until it is ``saved``. None: nothing new."""
        if self._save is None:
            self._save = self._next_save()
            self.hurries = False
            for follower in self._busy.values():
                follower.unsaved = 0
        return self._save

    def saved(self) -> None:
        """The server has it."""
        save = self._save
        if save is None:
            return
        self._save = None
        if save.anew:
            self._anew = False
            self.points.clear()
        self.watermark = save.watermark
        self.points.update((name, at) for name, at in save.points if name in self._followers)
        for name in save.cleared:
            self.points.pop(name, None)
        for name, follower in list(self._busy.items()):
            self._settle(name, follower)

    def _settle(self, name: str, follower: _Follower) -> None:
        known = self.points.get(name, self.watermark)
        follower.ahead = [one for one in follower.ahead if one.point > known]
        if follower.waiting and not follower.in_hand:
            self.hurries = self.hurries or len(follower.ahead) >= AHEAD
        if not (follower.line or follower.ahead or name in self.points) and follower.alone is None:
            del self._busy[name]

    def save_anew(self) -> None:
        """The server does not know what we told it last: it is told all."""
        self._save, self._anew, self.hurries = None, True, True

    def not_saved(self) -> None:
        """The server did not take it, and never will."""
        self._save = None

    def _next_save(self) -> Save | None:
        points = {name: self._point(follower) for name, follower in self._busy.items()}
        behind = sorted((point, name) for name, point in points.items() if point < self.read)
        free = [(at, name) for at, name in behind if self._anew or name not in self.points]
        chosen = self._chosen(free)
        watermark = next((point for point, name in free if name not in chosen), self.read)
        kept = {
            name: points[name]
            for name in (chosen | self.points.keys())
            if name in points and self._needs_point(name, points[name], watermark)
        }
        new = {
            name: point
            for name, point in kept.items()
            if self._anew or self.points.get(name) != point
        }
        cleared = () if self._anew else tuple(self.points.keys() - kept.keys())
        if not (self._anew or new or cleared or watermark != self.watermark):
            return None
        return Save(
            self.read, self.read_id, watermark, tuple(new.items()), cleared, anew=self._anew
        )

    def _needs_point(self, name: str, point: Point, watermark: Point) -> bool:
        """Whether the watermark would not do for an agent: it is behind, or began after it."""
        return point < watermark or self._followers[name].floor > watermark

    def _chosen(self, free: list[tuple[Point, str]]) -> set[str]:
        """Who gets a point of its own: who lags; and, if others wait for them, the last ones."""
        chosen = {name for _, name in free if self._busy[name].alone is not None}
        held = [(point, name) for point, name in free if name not in chosen]
        if any(point > held[0][0] and self._busy[name].is_held for point, name in held):
            chosen.update(name for _, name in held[:_POINTS])
        return chosen


def _told(after: Point, found: Found, last: Point) -> Iterator[Entry | Broken | Missed]:
    """The entries; and where some before one are gone, that."""
    for entry in found.entries:
        if entry.point.number > after.number + 1:
            yield _missed(after, entry.before)
        yield entry
        after = entry.point
    if not found.entries and last.number > after.number:
        yield _missed(after, last)


def _missed(after: Point, to: Point) -> Missed:
    return Missed(Gap(after.number + 1, to.number), after, to)
