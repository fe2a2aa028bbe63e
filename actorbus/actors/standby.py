"""Agents that stand by: known by name and capability, made when somebody first needs them."""

from __future__ import annotations

import contextlib
import threading
from hashlib import sha256
from typing import TYPE_CHECKING

from actorbus.actors.handling import describe_error
from actorbus.errors import ActorbusError, AgentFailed, AgentStopped, NameTaken
from actorbus.telemetry import HookFailed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actorbus.actors.agent import Agent
    from actorbus.actors.runtime import Runtime


class _Standing:
    """One agent that stands by. Whoever holds the lock may make it."""

    __slots__ = ("being_made", "cls", "lock")

    def __init__(self, cls: type[Agent]) -> None:
        self.cls = cls
        self.lock = threading.RLock()
        self.being_made = False


class Standby:
    """What a node could run and does not run yet.

    Any number of threads may need an agent at the same moment; it is made once, by whoever
    first wants a Ref of its name or sends to one of its capabilities. Until then it is in no
    listing of the registry, and broadcasts do not reach it.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lock = threading.Lock()
        self._standing: dict[str, _Standing] = {}
        self.offered: dict[str, list[str]] = {}
        """Who stands by for a capability. The runtime looks here before every choice."""

    def add(self, name: str, cls: type[Agent]) -> str | None:
        """Let `cls` stand by under `name`, unless it does or already runs.

        None, or who else has the name: then nothing was added.
        """
        with self._lock:
            other = self._standing.get(name)
            if other is not None:
                return None if other.cls is cls else other.cls.agent_type
            cell = self._runtime.cells.get(name)
            if cell is not None:
                return None if cell.agent_class is cls else cell.agent_type
            found = self._runtime.bus.transport.route(name)
            crew = self._runtime.crew
            if found is not None and (crew is None or found.owner is not None):
                return "someone who was there before"
            if crew is not None:
                crew.stand_by(name, cls)
            self._standing[name] = _Standing(cls)
            for capability in cls.capabilities:
                self.offered.setdefault(capability, []).append(name)
        return None

    def names(self) -> Iterable[str]:
        """Who stands by."""
        return tuple(self._standing)

    def wake(self, name: str) -> None:
        """Make the agent of that name, if one stands by.

        Raises:
            AgentFailed: its ``__init__`` raised. It still stands by.
            AgentStopped: another thread has been at it for longer than ``send_timeout``.
        """
        standing = self._standing.get(name)
        if standing is None:
            return
        if not standing.lock.acquire(timeout=self._runtime.settings.send_timeout):
            raise AgentStopped(name, "is still being made: its __init__ has not returned")
        try:
            # An __init__ that sends to its own name finds nobody there yet.
            if not standing.being_made and self._standing.get(name) is standing:
                self._make(name, standing)
        finally:
            standing.lock.release()

    def wake_all(self, capability: str) -> None:
        """Make all who stand by for a capability. One that fails is tried again by name only.

        Raises:
            AgentFailed: none could be made, and nobody else offers the capability.
        """
        failed: AgentFailed | None = None
        for name in tuple(self.offered.get(capability, ())):
            try:
                self.wake(name)
            except AgentFailed as error:
                failed = failed or error
        with self._lock:
            self.offered.pop(capability, None)
        if failed is not None and not self._runtime.registry.providers(capability):
            raise failed

    def wake_everybody(self) -> list[str]:
        """Make all who stand by and run nowhere; the names of those that run here now."""
        return self.wake_share(0, 1)

    def wake_share(self, place: int, of: int) -> list[str]:
        """``wake_everybody`` for each `of`-th of them, from the one at `place` on.

        Nodes at other places, where the same agents stand by, wake the others: each capability
        is spread, too.
        """
        crew = self._runtime.crew
        names = self._by_capability()[place::of]
        free = names if crew is None else crew.nobodys(names)
        for name in names:
            if name in free:
                with contextlib.suppress(AgentFailed):
                    self.wake(name)
        return list(self._runtime.cells)

    def digest(self) -> str:
        """The same on all nodes where the same agents stand by."""
        standing = sorted(self._standing.copy().items())
        known = "\n".join(f"{name} {one.cls.agent_type}" for name, one in standing)
        return sha256(known.encode()).hexdigest()[:16]

    def _by_capability(self) -> list[str]:
        standing = self._standing.copy()
        return sorted(standing, key=lambda name: (standing[name].cls.capabilities, name))

    def _make(self, name: str, standing: _Standing) -> None:
        standing.being_made = True
        try:
            self._runtime.spawn(standing.cls, name=name, failover=True)
        except NameTaken:
            # Somebody else was faster; what is sent to the name is theirs.
            return
        except (ActorbusError, KeyboardInterrupt):
            raise
        except BaseException as error:
            telemetry = self._runtime.telemetry
            if telemetry.active:
                telemetry.emit(HookFailed(name, "__init__", error))
            raise AgentFailed(
                name, type(error).__name__, str(error), describe_error(error)
            ) from error
        finally:
            standing.being_made = False
        self._forget(name, standing.cls.capabilities)

    def _forget(self, name: str, capabilities: Iterable[str]) -> None:
        with self._lock:
            del self._standing[name]
            for capability in capabilities:
                if name in (names := self.offered.get(capability, [])):
                    names.remove(name)
                if not names:
                    self.offered.pop(capability, None)
