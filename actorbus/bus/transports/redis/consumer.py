"""The way in: a node reads the inboxes of its agents, and acknowledges what they have done.

Threads, however many agents: a *listener* hears the doorbell (a hint, no more: what little comes
along with it is handed out at once, and is in the log all the same), or a thread that waits for
it or has nothing to do hears it itself (see ``ear``); the *fetcher* brings
messages to agents with room in their window, many agents a round trip, and sends the
acknowledgements. Every second, and after any trouble, it sweeps: it asks which agents have
messages that were not seen, so a bell that nobody heard costs a second and nothing else.

What the fetcher carries each time is decided by the ``Rota``. What it brought is handed out while
its next round trip is under way, so neither Redis nor the fetcher waits for the other.

Before an agent is given up, all that it has done is acknowledged. No more than 16 are with an
agent beyond that, so at most 16 of one that was busy run again when its node dies.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import deque
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from uuid import uuid4

from actorbus.bus.transports.redis.doorbell import Doorbell
from actorbus.bus.transports.redis.log import Letter, read_along, read_with
from actorbus.bus.transports.redis.ownership import Fenced, Reset
from actorbus.bus.transports.redis.reading import ACK_BATCH, Reading
from actorbus.bus.transports.redis.rota import Rota
from actorbus.errors import TransportUnavailable
from actorbus.message import Reason
from actorbus.redis_client import decoded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from actorbus.bus.transports.redis.items import Item
    from actorbus.bus.transports.redis.log import Along, Fetched, InboxLog
    from actorbus.bus.transports.redis.ownership import Ownership
    from actorbus.bus.transports.redis.rota import Due, Fetch
    from actorbus.bus.waiting import Hearing
    from actorbus.redis_client import RedisServer

_DEADLY: Final = 3
"""Owners that die of a message before it is given up."""
_SWEEP: Final = 1.0
_WINDOW: Final = 64
_TRIED_AT_ONCE: Final = 250
_LONGEST_PAUSE: Final = 1.0
_MORE_SOON: Final = 0.01
"""Seconds after an acknowledgement for which nobody wakes it to begin the next."""


class _Brought(NamedTuple):
    """What a round trip brought: answers to what was acknowledged, and to what was fetched."""

    at: int
    """When it came, in milliseconds of our monotonic clock; 0: nothing came."""
    due: Sequence[Due] = ()
    freed: Sequence[int | Fenced | Reset] = ()
    wanted: Sequence[Fetch] = ()
    found: Sequence[Fetched | Fenced | Reset] = ()


_NOTHING: Final = _Brought(0)


class Recipient(Protocol):
    """Where an agent's messages go."""

    def take(self, items: Sequence[Item], now: int) -> None:
        """Messages to handle, in order; `now` is the server's time, in milliseconds.

        Each is told to ``Consumer.done`` once it is over. Called on the consumer's thread: it
        must not block.
        """

    def give_up(self, item: Item, letter: Letter, now: int) -> None:
        """A message that must not be handled, as `letter` says. Told, and called, as above."""

    def lost(self, reading: Reading) -> None:
        """Another node owns the agent now, or nobody: it must stop, or be had again.

        What it does meanwhile is of no effect here. To go on with `reading`, ``read`` again.
        """


class Consumer:
    """Reads for all agents of one node. Safe from any thread.

    Args:
        node: this incarnation of the node.
        window: messages of one agent that are fetched ahead.
        sweep: seconds between two looks for messages whose bell was not heard.
        failed: called with what went wrong, when Redis is away; it goes on trying.
        unowned: called when an agent that nobody owns has messages.
        due: called when a message is put off until sooner than those before it.
        hints: called with what comes with rings for this node that begin with those three bytes,
            on the thread that hears.
        broke: called when the server cannot be heard any more, and each time that it still cannot.
        answers: rings that begin so somebody may wait for; with it, see ``hearing``.
    """

    def __init__(
        self,
        log: InboxLog,
        server: RedisServer,
        node: str,
        *,
        window: int = _WINDOW,
        sweep: float = _SWEEP,
        failed: Callable[[TransportUnavailable], object] = lambda _: None,
        unowned: Callable[[], object] = lambda: None,
        due: Callable[[], object] = lambda: None,
        hints: Mapping[bytes, Callable[[bytes], object]] = MappingProxyType({}),
        broke: Callable[[], object] = lambda: None,
        answers: bytes | None = None,
        bells: bool = True,
    ) -> None:
        self._log = log
        self._node = node
        self._sweep_every = sweep
        self._failed = failed
        self._unowned = unowned
        self._due_sooner = due
        self._hints = hints
        self._handing = threading.Lock()
        """Held while messages are chosen and handed to agents, which two threads do; before
        ``_changed``."""
        self._changed = threading.Condition()
        self._rota = Rota(window)
        self._readings = self._rota.readings
        self._early: set[str] = set()
        """Agents that have had messages since the last sweep, and are not read for yet."""
        self._suspects: dict[str, None] = {}
        """Agents with something to be tried that a former owner may have died of."""
        self._over: deque[tuple[Reading, bytes, Letter | None]] = deque()
        """What is over and not told to its reading yet: whoever says so takes no lock."""
        self._brought = _NOTHING
        """What the fetcher hands out while its next round trip is under way. What an agent
        acknowledges is in one of the two at a time, and so is what it fetches."""
        self._asleep = False
        """Whether the fetcher sleeps, and nobody has woken it yet."""
        self._has_timer = False
        """Whether it wakes by itself, soon enough to acknowledge what is done by then."""
        self._awake_until = 0.0
        """Until when it does so in any case: it acknowledged just now, and more may follow."""
        self._nobodys: set[str] = set()
        """Channels on which agents without an owner ring."""
        self._clocks: set[str] = set()
        """Channels that say that something is due sooner."""
        self._rung = True
        self._repeats: Reading | None = None
        """Whose suspect is tried again, alone in this node."""
        self._server_ahead = 0
        """The server's time less ours, in milliseconds, as of the last fetch."""
        self._closing = False
        self._fetcher = threading.Thread(target=self._run, name="actorbus-fetcher", daemon=True)
        self._bells = bells
        self._bell = Doorbell(
            server,
            "actorbus-bell",
            channels=self._channels,
            back=self._ask_for_all,
            rang=self._heard,
            broke=broke,
            answers=answers,
        )

    @property
    def hearing(self) -> Hearing | None:
        """For threads that may hear the bell in place of the listener."""
        return self._bell.ear

    def start(self) -> None:
        self._fetcher.start()
        if self._bells:
            self._bell.start()

    def read(
        self,
        ownership: Ownership,
        recipient: Recipient,
        *,
        most: int = ACK_BATCH,
        after: Reading | None = None,
    ) -> None:
        """Bring the messages of an agent that this node owns to `recipient`.

        No more than `most` are with it that are not acknowledged. `after`: the reading that was
        lost though nobody else had the agent; what is in hand stays so.
        """
        with self._changed:
            reading = Reading(ownership, most) if after is None else after.renewed(ownership)
            self._readings[ownership.agent] = (reading, recipient)
            # What comes to a new agent from now on rings: many that wait for work cost nothing.
            is_empty = ownership.fresh and not ownership.depth and after is None
            if not is_empty or ownership.agent in self._early:
                self._rota.look(ownership.agent)
                self._changed.notify_all()

    def done(self, agent: str, message_id: bytes, letter: Letter | None = None) -> None:
        """A message is over, as `letter` says if it was not handled.

        If it is not the agent's any more, another node will have it again.
        """
        found = self._readings.get(agent)
        if found is None:
            return
        reading = found[0]
        self._over.append((reading, message_id, letter))
        reading.ended += 1
        if self._asleep and (not self._has_timer or reading.owes + reading.ended >= reading.enough):
            self._wake()

    def _wake(self) -> None:
        with self._changed:
            self._asleep = False
            self._changed.notify_all()

    def returned(self, agent: str, message_id: bytes) -> None:
        """A message was not begun, and is left to the agent's next owner."""
        with self._changed:
            found = self._readings.get(agent)
            if found is not None:
                found[0].returned(message_id)
                self._changed.notify_all()

    def hold(self, agents: Iterable[str]) -> None:
        """Hand out no more to some agents: they are about to be given up."""
        with self._changed:
            for agent in agents:
                if agent in self._readings:
                    self._readings[agent][0].ending = True

    def begins(self, agent: str) -> list[int] | None:
        """The position on each level of what an agent gets next; None if it is not read for."""
        with self._changed:
            found = self._readings.get(agent)
            return None if found is None else found[0].begins

    def pending(self, agents: Iterable[str]) -> int:
        """Messages in the inboxes of some agents, as far as we know, that are not handed out."""
        with self._changed:
            found = [self._readings[name][0] for name in agents if name in self._readings]
            # What is on its way to us is neither there any more, for the server, nor here yet.
            return sum(one.waiting + max(one.unseen, int(one.owes_a_fetch)) for one in found)

    def give_up(self, agents: Iterable[str], timeout: float) -> list[Ownership]:
        """Read no more for some agents; those that are done with all they had in hand.

        They get no more from now on. Left out are those that took longer than `timeout`
        seconds, and those that are another node's by now: what they did last may run again there.
        """
        names = list(agents)
        with self._changed:
            here = [agent for agent in names if agent in self._readings]
            for agent in here:
                self._readings[agent][0].ending = True
            self._rota.hurry(here)
            self._changed.notify_all()
            self._changed.wait_for(lambda: not any(map(self._busy, names)), timeout)
            given: list[Ownership] = []
            for agent in names:
                if agent in self._readings and not self._busy(agent):
                    given.append(self._readings[agent][0].ownership)
                    self._forget(agent)
            return given

    def close(self, timeout: float) -> None:
        """Acknowledge what is done, for at most `timeout` seconds, and end."""
        with self._changed:
            self._rota.hurry_all()
            self._changed.notify_all()
            self._changed.wait_for(lambda: not (self._rota.owes or self._over), timeout)
            self._closing = True
            self._changed.notify_all()
        self._bell.silence()
        with contextlib.suppress(TransportUnavailable):
            # Who sleeps at the bell would hear of the end a second later without this.
            self._log.ring(self._node)
        if self._fetcher.ident is not None:
            self._fetcher.join(10.0)
        self._bell.join(10.0)

    def _busy(self, agent: str) -> bool:
        found = self._readings.get(agent)
        return found is not None and (found[0].owes > 0 or found[0].in_hand > 0)

    # -- the fetcher

    def _run(self) -> None:
        pause = 0.0
        swept = 0.0
        while True:
            with self._changed:
                if self._closing:
                    return
            try:
                if self._rung or time.monotonic() - swept >= self._sweep_every:
                    self._rung = False
                    self._hand_over()  # that waits for no server
                    self._sweep()
                    swept = time.monotonic() - random.uniform(0, self._sweep_every / 10)
                exchanged, tried = self._exchange(), self._try_suspects()
                pause = 0.0
            except TransportUnavailable as error:
                self._rung = True
                self._failed(error)
                pause = min(max(0.02, 2 * pause), _LONGEST_PAUSE)
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, random.uniform(0, pause))
                continue
            if not (exchanged or tried):
                self._wait(swept + self._sweep_every)

    def _wait(self, until: float) -> None:
        """Wait for a bell, for something to acknowledge or fetch, or for the next sweep."""
        with self._changed:
            now = time.monotonic()
            until = min(until, self._rota.next_due(now))
            if now < self._awake_until:
                until = min(until, self._awake_until)
            self._has_timer = self._rota.owes or now < self._awake_until
            self._asleep = True  # before it looks: who ends something looks at it after that
            busy = self._closing or self._rung or self._over
            if not (busy or self._rota.is_hungry):
                self._changed.wait(max(0.0, until - now))
            self._asleep = False

    def _sweep(self) -> None:
        with self._changed:
            self._early.clear()  # before it is asked: who rings meanwhile may not be in the answer
        ready = self._log.ready(self._node)
        with self._changed:
            self._early.update(one for one in ready if one not in self._readings)
            for agent in ready:
                if agent in self._readings:
                    self._rota.rang(agent)
            self._rota.look_again()

    def _exchange(self) -> bool:
        """One round trip: acknowledge what is due, fetch what is wanted.

        What the one before brought is handed out meanwhile. False: there was nothing to do.
        """
        with self._changed:
            self._settle()
            due = self._rota.due(time.monotonic(), _agents(self._brought.due))
            wanted = self._rota.to_fetch(_agents(self._brought.wanted))
            if not (due or wanted or self._brought.at):
                self._changed.notify_all()
                return False
        if not (due or wanted):
            self._hand_over()
            return False  # what that brought, who waits sees
        if due:
            self._awake_until = time.monotonic() + _MORE_SOON
        freed, found = self._log.exchange(
            [one.done for one in due],
            [one.wanted for one in wanted],
            meanwhile=self._hand_over,
        )
        self._brought = _Brought(int(time.monotonic() * 1_000), due, freed, wanted, found)
        return True

    def _hand_over(self) -> None:
        """Tell readings what a round trip brought, and hand out what may be."""
        brought, self._brought = self._brought, _NOTHING
        if not brought.at:
            return
        with self._handing:
            self._acknowledged(brought.due, brought.freed)
            for fetch, one in zip(brought.wanted, brought.found, strict=True):
                self._fetched(fetch, one, brought.at)

    def _settle(self) -> None:
        """Tell readings what is over."""
        now, owing, over = time.monotonic(), None, self._over
        while over:
            reading, message_id, letter = over.popleft()
            reading.ended = 0
            if reading.done(message_id, letter) and reading is not owing:
                self._rota.owe(reading.ownership.agent, now)
                owing = reading  # the next ones are its own, mostly

    def _fetched(self, fetch: Fetch, found: Fetched | Fenced | Reset, at: int) -> None:
        reading, recipient, wanted = fetch
        agent = reading.ownership.agent
        with self._changed:
            if not self._rota.reads(reading, wanted.ownership):
                return
            if isinstance(found, Fenced):
                self._forget(agent)
            elif isinstance(found, Reset):
                reading.reset(found.heads)
                self._rota.look(agent)
                return
            else:
                if reading.cursors != wanted.cursors:
                    self._rota.look(agent)  # it was reset meanwhile
                    return
                self._server_ahead = found.now - at
                reading.fetched(found.unread, found.unseen)
                new = self._next_for(reading)
                if reading.unseen:
                    self._rota.look(agent)
                if reading.owes:
                    self._rota.owe(agent, time.monotonic())
        if isinstance(found, Fenced):
            recipient.lost(reading)
        elif new:
            self._hand(recipient, new)

    def _try_suspects(self) -> bool:
        """Begin what former owners may have died of, or give it up after the third time.

        False: nothing was begun.
        """
        with self._changed:
            found = self._to_try()
        if not found:
            return False
        told = self._log.try_again(
            [(reading.ownership, item, uuid4().hex) for reading, _, item in found]
        )
        for (reading, recipient, item), tries in zip(found, told, strict=True):
            with self._changed:
                if not self._rota.reads(reading):
                    continue
                self._suspects.pop(reading.ownership.agent, None)
                if isinstance(tries, Fenced):
                    continue  # whoever acknowledges for it hears the same, and is told
                admitted = reading.admit()
            if admitted is not None:
                self._begin_suspect(reading, recipient, item, admitted, tries)
        return True

    def _to_try(self) -> list[tuple[Reading, Recipient, Item]]:
        """What was tried before is tried alone in this node: if that dies again, nothing else is
        blamed for it."""
        chosen: list[tuple[Reading, Recipient, Item]] = []
        now = self._repeats
        repeats = now is not None and now.tries and self._rota.reads(now)
        for agent in list(self._suspects):
            reading, recipient = self._readings[agent]
            if (item := reading.suspect) is None:
                del self._suspects[agent]
                continue
            if reading.is_repeated:
                if repeats:
                    continue
                repeats, self._repeats = True, reading
            chosen.append((reading, recipient, item))
            if len(chosen) == _TRIED_AT_ONCE:
                break
        return chosen

    def _begin_suspect(
        self, reading: Reading, recipient: Recipient, item: Item, admitted: Item, tries: int
    ) -> None:
        if tries < _DEADLY:
            with self._handing:
                self._hand(recipient, [admitted])
            return
        why = f"its owner died {tries} times while it had this in hand"
        letter = Letter(item.level, item.position, Reason.CRASHED_OWNER, tries, why)
        recipient.give_up(admitted, letter, self._server_time())

    def _acknowledged(
        self,
        due: Sequence[Due],
        answers: Sequence[int | Fenced | Reset],
    ) -> None:
        lost, more = [], []
        with self._changed:
            for (reading, recipient, done), answer in zip(due, answers, strict=True):
                agent = reading.ownership.agent
                if not self._rota.reads(reading, done.ownership):
                    continue
                if isinstance(answer, Fenced):
                    self._forget(agent)
                    lost.append((recipient, reading))
                elif isinstance(answer, Reset):
                    reading.reset(answer.heads)
                    self._rota.look(agent)
                else:
                    reading.acknowledged(done)
                    more.append((recipient, self._next_for(reading)))
                    self._rota.acknowledged(agent, time.monotonic())
                    if reading.unseen:
                        self._rota.look(agent)
            self._changed.notify_all()
        for recipient, reading in lost:
            recipient.lost(reading)
        for recipient, items in more:
            self._hand(recipient, items)

    def _hand(self, recipient: Recipient, items: Sequence[Item]) -> None:
        if items:
            recipient.take(items, self._server_time())

    def _server_time(self) -> int:
        return int(time.monotonic() * 1_000) + self._server_ahead

    def _next_for(self, reading: Reading) -> list[Item]:
        """The next messages for an agent. The fetcher tries what is suspect."""
        found = reading.hand_out()
        if reading.suspect is not None:
            self._suspects[reading.ownership.agent] = None
        return found

    def _forget(self, agent: str) -> None:
        self._rota.forget(agent)
        self._suspects.pop(agent, None)

    # -- the bell

    def _channels(self) -> list[str]:
        tags, log = self._log.tags, self._log
        mine = [log.bell(tag, self._node) for tag in tags]
        self._nobodys = {log.bell(tag, None) for tag in tags}
        self._clocks = {log.due_bell(tag) for tag in tags}
        return [*mine, *self._nobodys, *self._clocks]

    def _heard(self, channel: str | None, what: Any) -> None:
        if channel in self._nobodys:
            self._unowned()
        elif channel in self._clocks:
            if what == b"due":
                self._due_sooner()
        else:
            self._hear_of(what)

    def _hear_of(self, what: Any) -> None:
        """Agents that have work, by name, or that some have; that work itself; or a hint."""
        if not isinstance(what, bytes):
            self._ring()
            return
        if what[:3] == b"wi ":
            before, what = read_with(what)
            self._hear_of(before)
        hint = self._hints.get(what[:3])
        if hint is not None:
            hint(what[3:])
            return
        if what[:3] not in (b"at ", b"in "):
            self._ring()
            return
        if what.startswith(b"in "):
            self._came_along(read_along(what))
            return
        with self._changed:
            for name in map(decoded, what[3:].split(b" ")):
                self._look_at(name)
            self._changed.notify_all()

    def _came_along(self, what: Along) -> None:
        """Hand out what a bell brought, or fetch it if something is between."""
        with self._handing:
            with self._changed:
                found = self._readings.get(what.agent)
                if found is None or not found[0].came_along(what):
                    self._look_at(what.agent)
                    self._changed.notify_all()
                    return
                reading, recipient = found
                new = self._next_for(reading)
            self._server_ahead = what.now - int(time.monotonic() * 1_000)
            self._hand(recipient, new)

    def _look_at(self, agent: str) -> None:
        if agent in self._readings:
            self._rota.rang(agent)
        else:
            self._early.add(agent)

    def _ask_for_all(self) -> None:
        """The server may have lost everything: then it knows none of our agents, and rings for
        none. Whose fetch is refused is had again."""
        with self._changed:
            self._rota.look_at_all()
            self._rung = True
            self._changed.notify_all()

    def _ring(self) -> None:
        with self._changed:
            self._rung = True
            self._changed.notify_all()


def _agents(some: Iterable[Due | Fetch]) -> set[str]:
    return {one.reading.ownership.agent for one in some}
