"""The registry: who is alive, what they can do, and which of them is the least busy.

One per node. It beats once for all the node's agents, judges the other nodes by how long they
have been silent, and tells watchers what changed. What it says of an agent is read from the
live agent at that moment.
"""

from __future__ import annotations

import inspect
import random
import threading
from typing import TYPE_CHECKING, Final

from actorbus.errors import InvalidArgument, NoProvider, TransportUnavailable
from actorbus.message import check_name
from actorbus.registry.entry import AgentStatus, Entry, capability_names, describe, statuses
from actorbus.registry.liveness import changed, judge, next_look
from actorbus.registry.selection import PowerOfTwo, gone, weight
from actorbus.registry.watch import NodeInfo, RegistryChange, Watch
from actorbus.telemetry import MemberChanged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from actorbus.clock import Clock, Timer
    from actorbus.registry.directory import ChangeKind, Directory, DirectoryChange
    from actorbus.registry.entry import AgentInfo, Member
    from actorbus.registry.liveness import Verdicts
    from actorbus.registry.watch import RegistryLagged
    from actorbus.settings import Settings
    from actorbus.telemetry import Telemetry

_SHORTEST_LOOK: Final = 0.001
"""Seconds; so that rounding near a limit cannot make a timer that is due for ever."""


class Registry:
    """Safe from any thread. Searches answer from memory and never block.

    `post` runs the callables it is given one at a time, in order: watch callbacks run there.
    `seed` makes the choice among providers repeatable.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        node: str,
        clock: Clock,
        telemetry: Telemetry,
        settings: Settings,
        post: Callable[[Callable[[], None]], None],
        seed: int | None = None,
    ) -> None:
        self._node = check_name("a node", node)
        self._directory = directory
        self._clock = clock
        self._telemetry = telemetry
        self._settings = settings
        self._post = post
        self._selection: PowerOfTwo[Entry] = PowerOfTwo(
            self._weigh, random.Random(seed), load_age=directory.load_age, now=clock.now
        )
        # Reentrant: a `post` that calls at once lets a watcher in while start() joins.
        self._lock = threading.RLock()
        self._timer: Timer | None = None
        self._beats: Mapping[str, float] = {}
        self._verdicts: Verdicts = {}
        self._watches: tuple[Watch, ...] = ()
        self._stop_listening: Callable[[], None] | None = None
        self.aio = AsyncRegistry(self)

    def get(self, name: str) -> AgentInfo | None:
        """The agent of that name; None if there is none."""
        entry = self._directory.get(check_name("an agent", name))
        return None if entry is None else self._describe(entry, self._status(entry))

    def standing(self, name: str) -> AgentStatus | None:
        """What ``get`` says of its status, in a tenth of the time; None if there is none."""
        entry = self._directory.get(name)
        return None if entry is None else self._status(entry)

    def find(
        self, capability: str | None = None, status: AgentStatus | str | None = None
    ) -> list[AgentInfo]:
        """Those who offer `capability` and stand at `status`, in the order they joined.

        ``active`` means busy or idle. Without an argument: everyone.

        Raises:
            InvalidArgument: not a capability's name, or no word for a status.
        """
        wanted = None if status is None else statuses(status)
        entries = self._directory.members() if capability is None else self._offering(capability)
        standing = ((entry, self._status(entry)) for entry in entries)
        return [
            self._describe(entry, stands)
            for entry, stands in standing
            if wanted is None or stands in wanted
        ]

    def least_busy(self, capability: str) -> AgentInfo:
        """A provider with little to do: the lighter of two picked at random, see `selection`.

        Suspect and parked ones only where there is no other; stopped and dead ones never.

        Raises:
            NoProvider: nobody offers that capability; the error names what is offered.
        """
        entry = self._choose(capability)
        return self._describe(entry, self._status(entry))

    def watch(self, callback: Callable[[RegistryChange | RegistryLagged], object]) -> Watch:
        """Call `callback` with each change from now on, until the watch is cancelled.

        In order, one at a time. A watcher more than ``watch_backlog`` changes behind gets one
        ``RegistryLagged`` in their place. A callback that raises is reported and kept.

        Raises:
            InvalidArgument: it is no function, or an `async def`, which nobody here would await.
        """
        if not callable(callback) or inspect.iscoroutinefunction(callback):
            raise InvalidArgument("a watcher", callback, "it must be a plain function")
        watch = Watch(
            callback,
            post=self._post,
            limit=self._settings.watch_backlog,
            telemetry=self._telemetry,
            on_cancel=self._forget,
        )
        with self._lock:
            self._watches = (*self._watches, watch)
            if self._stop_listening is None:
                self._stop_listening = self._directory.listen(self._member_changed)
        return watch

    def providers(self, capability: str) -> tuple[Member, ...]:
        """The members who offer `capability`, except those whose node is dead."""
        entries = self._offering(capability)
        if self._verdicts:
            dead = AgentStatus.DEAD
            entries = [one for one in entries if self._verdicts.get(one.node) is not dead]
        return tuple([entry.member for entry in entries])

    def pick(self, capability: str) -> Member:
        """The member that ``least_busy`` would describe.

        Raises:
            NoProvider: nobody offers that capability.
        """
        return self._choose(capability).member

    def start(self) -> None:
        """Join the directory and begin to beat. Idempotent.

        Raises:
            NameTaken: a live node of that name is there already.
        """
        with self._lock:
            if self._timer is not None:
                return
            silences = self._directory.join(self._node)
            self._see(silences)
            self._verdicts = judge(silences, self._settings)
            self._beat_again_after(next_look(silences, self._settings))

    def stop(self) -> None:
        """Leave the directory with all agents that are still on this node. Idempotent.

        Watchers get what changed up to here, and nothing later.
        """
        with self._lock:
            timer, self._timer = self._timer, None
            if timer is not None:
                timer.cancel()
        if timer is not None:
            self._directory.leave(self._node)
        with self._lock:
            self._watches = ()
            self._listen_no_more()

    def register(self, member: Member) -> None:
        """Make a member of this node known.

        Raises:
            InvalidName: its name, or that of a capability.
            NameTaken: another live member has the name.
            BusClosed: the registry has not started.
        """
        check_name("an agent", member.name)
        names = capability_names(member.capabilities)
        self._directory.register(Entry(member, self._node, names))

    def unregister(self, name: str) -> None:
        """Forget the member of that name on this node. Idempotent."""
        self._directory.unregister(name, self._node)

    def _offering(self, capability: object) -> Sequence[Entry]:
        """Those who offer it. What somebody offers was checked when they joined."""
        if isinstance(capability, str) and (found := self._directory.members(capability)):
            return found
        check_name("a capability", capability)
        return ()

    def _choose(self, capability: str) -> Entry:
        entries = self._offering(capability)
        entry = self._selection.choose(entries)
        if entry is None:
            raise NoProvider(capability, self._offered(), [one.member.name for one in entries])
        return entry

    def _offered(self) -> set[str]:
        """The capabilities of everyone to whom something could be sent."""
        present = (one for one in self._directory.members() if not gone(self._status(one)))
        return {name for names in {one.capabilities for one in present} for name in names}

    def _weigh(self, entry: Entry) -> int:
        return weight(self._status(entry), entry.member.load)

    def _status(self, entry: Entry) -> AgentStatus:
        """What is said of its node, or else what the agent says."""
        return self._verdicts.get(entry.node) or entry.member.status

    def _describe(self, entry: Entry, status: AgentStatus) -> AgentInfo:
        return describe(entry, status=status, last_heartbeat=self._last_heartbeat(entry.node))

    def _last_heartbeat(self, node: str) -> float:
        """Of a node that joined since this one's last beat: now, which is less than a beat off."""
        return self._beats.get(node) or self._clock.now()

    def _beat(self) -> None:
        """Beat, and see who has fallen silent or come back."""
        with self._lock:
            if self._timer is None:
                return
            pause = self._settings.beat
            try:
                silences = self._directory.beat(self._node)
                pause = next_look(silences, self._settings)
            except TransportUnavailable:
                return  # the directory says so itself; nobody is judged by what nobody can see
            finally:
                self._beat_again_after(pause)
            self._see(silences)
            before, self._verdicts = self._verdicts, judge(silences, self._settings)
            changes = list(changed(before, self._verdicts, silences))
        for kind, node in changes:
            self._node_changed(kind, node)

    def _beat_again_after(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        when = self._clock.now() + max(seconds, _SHORTEST_LOOK)
        self._timer = self._clock.call_at(when, self._beat)

    def _see(self, silences: Mapping[str, float]) -> None:
        now = self._clock.now()
        self._beats = {node: now - silence for node, silence in silences.items()}

    def _node_changed(self, kind: ChangeKind, node: str) -> None:
        if self._telemetry.active:
            self._telemetry.emit(MemberChanged(node, kind, node))
        self._publish(RegistryChange(kind, NodeInfo(node, self._last_heartbeat(node))))

    def _member_changed(self, change: DirectoryChange) -> None:
        entry = change.entry
        self._publish(RegistryChange(change.kind, self._describe(entry, self._status(entry))))

    def _publish(self, change: RegistryChange) -> None:
        for watch in self._watches:
            watch.offer(change)

    def _forget(self, watch: Watch) -> None:
        with self._lock:
            self._watches = tuple(one for one in self._watches if one is not watch)
            if not self._watches:
                self._listen_no_more()

    def _listen_no_more(self) -> None:
        stop_listening, self._stop_listening = self._stop_listening, None
        if stop_listening is not None:
            stop_listening()


class AsyncRegistry:
    """The searches of a registry, to be awaited. They never block the loop."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def get(self, name: str) -> AgentInfo | None:
        """As ``Registry.get``."""
        return self._registry.get(name)

    async def find(
        self, capability: str | None = None, status: AgentStatus | str | None = None
    ) -> list[AgentInfo]:
        """As ``Registry.find``."""
        return self._registry.find(capability, status)

    async def least_busy(self, capability: str) -> AgentInfo:
        """As ``Registry.least_busy``."""
        return self._registry.least_busy(capability)
