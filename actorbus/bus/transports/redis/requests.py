"""Requests of this node that wait for an answer: a bounded table, settled once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actorbus.errors import MailboxFull

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from actorbus.bus.transports.redis.letters import Outcome
    from actorbus.message import Message, MessageId


class Requests:
    """Safe from any thread.

    Args:
        most: how many may wait.
        given_up: called with a request whose asker does not wait any more.
    """

    def __init__(self, most: int, given_up: Callable[[Message[Any]], object]) -> None:
        self._most = most
        self._given_up = given_up
        self._open: dict[MessageId, Message[Any]] = {}
        self._settling: dict[MessageId, Message[Any]] = {}
        """Those that somebody is just settling with their answer."""

    def __len__(self) -> int:
        return len(self._open)

    def expect(self, request: Message[Any]) -> None:
        """
        Raises:
            MailboxFull: too many wait already.
        """
        if len(self._open) >= self._most:
            raise MailboxFull("asks that wait for other agents", self._most)
        self._open[request.id] = request
        request.answer_to.then(lambda: self._settled(request))

    def forget(self, request: Message[Any]) -> None:
        """It was not sent, or its sender is told in another way."""
        self._open.pop(request.id, None)

    def agent_of(self, request: MessageId) -> str:
        found = self._open.get(request)
        return "" if found is None else found.recipient or ""

    def settle(self, outcome: Outcome) -> bool:
        """Its answer came. False: nobody waits for it."""
        request = self._open.get(outcome.request)
        if request is None:
            return False
        self._settling[outcome.request] = request
        self._open.pop(outcome.request, None)
        if outcome.error is None:
            request.answer_to.resolve(outcome.value)
        else:
            request.answer_to.fail(outcome.error)
        self._settling.pop(outcome.request, None)
        return True

    def finish(self, outcome: Outcome) -> None:
        """Settle one of which it is not known how far a thread came that was interrupted at it."""
        request = self._open.pop(outcome.request, None)
        request = self._settling.pop(outcome.request, request)
        if request is not None:
            request.answer_to.finish(outcome.value, outcome.error)

    def give_up(self, agents: Container[str]) -> list[Message[Any]]:
        """Those to these agents, which nobody will answer; they wait here no longer."""
        found = [one for one in list(self._open.values()) if one.recipient in agents]
        return [one for one in found if self._open.pop(one.id, None) is not None]

    def fail_all(self, error: BaseException) -> None:
        for request in list(self._open.values()):
            self._fail(request, error)

    def _fail(self, request: Message[Any], error: BaseException) -> None:
        if self._open.pop(request.id, None) is not None:
            request.answer_to.fail(error)

    def _settled(self, request: Message[Any]) -> None:
        """By its deadline, or because its asker has cancelled it, if it is still in the table."""
        if self._open.pop(request.id, None) is not None:
            self._given_up(request)
