"""Agents that are meant by what they can do: one of them (``AnyOf``), or all (``AllOf``).

They are sent to like a ``Ref``. A capability that nobody offers is ``NoProvider``: raised by
``tell``, and by the reply of ``ask``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actorbus.actors.reply import Gathered, Reply
from actorbus.errors import ActorbusError
from actorbus.message import Priority

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actorbus.actors.runtime import Runtime


class AnyOf:
    """The least busy agent with a capability, chosen at each send."""

    __slots__ = ("_runtime", "capability")

    def __init__(self, runtime: Runtime, capability: str) -> None:
        self._runtime = runtime
        self.capability = capability

    def tell(
        self,
        payload: Any,
        *,
        priority: Priority = Priority.NORMAL,
        ttl: float | None = None,
        delay: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._runtime.pick(self.capability).tell(
            payload, priority=priority, ttl=ttl, delay=delay, headers=headers
        )

    def ask(
        self,
        payload: Any,
        *,
        timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
        headers: Mapping[str, str] | None = None,
        expect: type[Any] | None = None,
    ) -> Reply[Any]:
        try:
            ref = self._runtime.pick(self.capability)
        except ActorbusError as error:
            return self._runtime.failed(self.capability, error)
        return ref.ask(payload, timeout=timeout, priority=priority, headers=headers, expect=expect)


class AllOf:
    """Every agent with a capability, at each send.

    ``ask`` gives one reply: a list of values or errors. ``tell`` tells everyone, and raises the
    first of the errors then.
    """

    __slots__ = ("_runtime", "capability")

    def __init__(self, runtime: Runtime, capability: str) -> None:
        self._runtime = runtime
        self.capability = capability

    def tell(
        self,
        payload: Any,
        *,
        priority: Priority = Priority.NORMAL,
        ttl: float | None = None,
        delay: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        errors: list[ActorbusError] = []
        for ref in self._runtime.everybody(self.capability):
            try:
                ref.tell(payload, priority=priority, ttl=ttl, delay=delay, headers=headers)
            except ActorbusError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def ask(
        self,
        payload: Any,
        *,
        timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
        headers: Mapping[str, str] | None = None,
        expect: type[Any] | None = None,
    ) -> Reply[Any]:
        runtime = self._runtime
        try:
            refs = runtime.everybody(self.capability)
        except ActorbusError as error:
            return runtime.failed(self.capability, error)
        replies = [
            ref.ask(payload, timeout=timeout, priority=priority, headers=headers, expect=expect)
            for ref in refs
        ]
        now = runtime.clock.now()
        deadline = max(reply.deadline for reply in replies)
        gathered = Gathered(runtime.asking, self.capability, now, deadline)
        gathered.gather(replies)
        return gathered
