"""Who runs for real in a replay, and on what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actorbus.errors import NotReplayable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actorbus.actors.agent import Agent
    from actorbus.actors.loader import Broken
    from actorbus.replay.record import Record
    from actorbus.replay.sandbox import Sandbox


@dataclass(frozen=True, slots=True)
class Cast:
    """The agents that were given or loaded; all others of the record are stand-ins."""

    agents: Mapping[str, tuple[Any, tuple[Any, ...], Mapping[str, Any]]]
    load: Any
    types: tuple[type[Any], ...]
    context: Mapping[str, Mapping[str, Any]]

    def enter(self, sandbox: Sandbox, record: Record, stand_in: type[Agent]) -> tuple[Broken, ...]:
        """Bring everybody to the sandbox; the modules that could not be loaded.

        Raises:
            NotReplayable: nobody of the conversation runs for real.
        """
        self._share(sandbox)
        for name, (agent, args, kwargs) in self.agents.items():
            sandbox.spawn(agent, *args, name=name, **kwargs)
        broken: tuple[Broken, ...] = ()
        if self.load is not None:
            loaded = sandbox.load(self.load)
            broken = loaded.broken
            sandbox.loaded = frozenset(loaded.agents)
        senders = {view.sender for view in record.views}
        standby = sandbox._runtime.standby
        for name in record.names():
            if name in sandbox.loaded:
                standby.wake(name)
            else:
                sandbox.stand_in(name, stand_in)
        for name in sandbox.loaded & senders:
            standby.wake(name)
        if not any(sandbox.is_here(name) for name in [*record.names(), *senders]):
            raise NotReplayable(
                f"nobody of this conversation is here to replay it: it is between"
                f" {', '.join(record.names()) or 'nobody'}; given are"
                f" {', '.join(sorted({*self.agents, *sandbox.loaded})) or 'nobody'}"
            )
        return broken

    def _share(self, sandbox: Sandbox) -> None:
        """Put the shared state there that it begins with."""
        for name, values in self.context.items():
            owner = name.removeprefix("agent/") if name.startswith("agent/") else None
            namespace = sandbox.context.bound_to(owner).namespace(name)
            for key, value in values.items():
                namespace.set(key, value)
