"""Repair: what was accepted and never handled, because its node died, is sent again.

Only tells are. A request's asker has had an error long ago, or died with it; a broadcast or an
event that nobody took is no loss. A message that is sent again has a new id, the old one as its
cause and in the header ``repair_of``, and the old one's conversation; by that header history
itself knows what was repaired, and a second repair does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from actorbus.errors import (
    ActorbusError,
    AuditUnavailable,
    InvalidQuery,
    NotReplayable,
    UnknownRecipient,
)
from actorbus.message import MessageKind, Status, format_id
from actorbus.replay.payloads import Payloads

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from actorbus.message import MessageId
    from actorbus.node import Node
    from actorbus.persistence.answers import MessageView
    from actorbus.persistence.audit import Audit

REPAIR_OF: Final = "repair_of"
"""The header with the id of the message that this one is sent in place of."""

_PAGE: Final = 1_000


class Standing(StrEnum):
    """What is to be done about a message that was never handled, or was done."""

    LOST = "lost"
    """It would be sent again."""
    SENT = "sent"
    """It was sent again now."""
    REPAIRED = "repaired"
    """It was sent again earlier."""
    WAITING = "waiting"
    """This very node has accepted it and may still handle it."""
    EXPIRED = "expired"
    """Its time was up before anybody handled it."""
    ASKED = "asked"
    """A request: whoever asked has had an error."""
    NOBODY = "nobody"
    """There is no agent of that name to send it to."""
    UNREADABLE = "unreadable"
    """History does not hold its payload in full."""


@dataclass(frozen=True, slots=True)
class Repair:
    """A message that was accepted and never handled."""

    message: MessageView
    standing: Standing
    why: str = ""
    sent_as: MessageId | None = None
    """The id that it has now, once it was sent again."""


def lost(
    audit: Audit,
    *,
    since: datetime | float | None = None,
    grace: float = 60.0,
    now: datetime | None = None,
) -> list[Repair]:
    """Messages that were accepted more than `grace` seconds ago and never handled, oldest first.

    A delayed message looks the same while it waits: choose `grace` above the longest delay.

    Raises:
        InvalidQuery: `grace` is no number of seconds.
    """
    if isinstance(grace, bool) or not isinstance(grace, int | float) or not 0 <= grace < 1e9:
        raise InvalidQuery(f"grace is {grace!r}: it must be a number of seconds from 0")
    at = now or datetime.now(UTC)
    waiting = [
        view
        for view in _accepted(audit, since, at.timestamp() - grace)
        if view.kind in (MessageKind.TELL, MessageKind.REQUEST)
    ]
    waiting.reverse()
    repaired = _repaired(audit, waiting)
    return [Repair(view, *_standing(view, repaired, at)) for view in waiting]


def repair(
    node: Node,
    audit: Audit | None = None,
    *,
    since: datetime | float | None = None,
    grace: float = 60.0,
    dry_run: bool = True,
    types: Iterable[type[Any]] = (),
) -> list[Repair]:
    """Send again, on a live node, what was accepted and never handled; by default only show it.

    Let one node repair at a time. What this node has itself accepted since its start is left
    alone; what another live node has, `grace` must leave it the time for.

    Args:
        node: runs the agents that are to handle it.
        audit: the history; the node's own if not given, and only that can be repaired from.
        since: nothing older than this.
        grace: seconds that a message may wait before it counts as lost.
        dry_run: send nothing.
        types: classes of payloads that no handler's hints name.

    Raises:
        AuditUnavailable: the node does not write the history that is to be repaired, so a
            second repair would send everything once more.
    """
    source = node.audit if audit is None else audit
    if not dry_run and not _writes(node, source):
        raise AuditUnavailable(
            "the node must write the history it repairs, or a second repair would send all once"
            " more: start it as Node(audit=...) with the same URL"
        )
    at = datetime.fromtimestamp(node.bus.clock.now(), UTC)
    found = [_seen_by(node, one) for one in lost(source, since=since, grace=grace, now=at)]
    if dry_run:
        return found
    payloads = Payloads(_classes(node), types, node.ref)
    done = [_send(node, one, payloads) if one.standing is Standing.LOST else one for one in found]
    source.counts()  # a question is answered once all that was sent is written
    return done


def _accepted(audit: Audit, since: datetime | float | None, until: float) -> Iterator[MessageView]:
    """What was accepted and has no ending, newest first."""
    before: MessageId | None = None
    while True:
        page = audit.messages(
            status=Status.ACCEPTED, since=since, until=until, limit=_PAGE, before=before
        )
        yield from page
        if len(page) < _PAGE:
            return
        before = page[-1].id


def _repaired(audit: Audit, waiting: list[MessageView]) -> set[str]:
    """Ids of messages that were sent again earlier."""
    found: set[str] = set()
    for recipient in {view.recipient for view in waiting}:
        since = min(view.created_at for view in waiting if view.recipient == recipient)
        before: MessageId | None = None
        while True:
            page = audit.messages(recipient=recipient, since=since, limit=_PAGE, before=before)
            found.update(view.headers[REPAIR_OF] for view in page if REPAIR_OF in view.headers)
            if len(page) < _PAGE:
                break
            before = page[-1].id
    return found


def _standing(view: MessageView, repaired: set[str], now: datetime) -> tuple[Standing, str]:
    if format_id(view.id) in repaired:
        return Standing.REPAIRED, "it was sent again"
    if view.kind is MessageKind.REQUEST:
        return Standing.ASKED, "whoever asked has had an error, and is not asking any more"
    if view.deadline is not None and view.deadline <= now:
        return Standing.EXPIRED, "its time was up"
    return Standing.LOST, ""


def _seen_by(node: Node, one: Repair) -> Repair:
    """What this node knows better than history."""
    view = one.message
    if one.standing is not Standing.LOST:
        return one
    started = node.started_at
    if view.node == node.name and started is not None and view.created_at.timestamp() >= started:
        return replace(one, standing=Standing.WAITING, why="it was accepted by this very node")
    running, standing_by = node.bus.transport, node._runtime.standby.names()
    name = str(view.recipient)
    if running.route(name) is None and name not in standing_by:
        missing = UnknownRecipient(name, [*running.names(), *standing_by])
        return replace(one, standing=Standing.NOBODY, why=str(missing))
    return one


def _send(node: Node, one: Repair, payloads: Payloads) -> Repair:
    view = one.message
    name = str(view.recipient)
    bus = node.bus
    try:
        cell = node.ref(name)._cell
        if cell is not None:
            payloads.learn(cell.agent_class)
        payload = payloads.rebuild(view)
    except NotReplayable as error:
        return replace(one, standing=Standing.UNREADABLE, why=str(error))
    except ActorbusError as error:
        return replace(one, why=str(error))
    message = bus.stamp(
        MessageKind.TELL,
        name,
        payload,
        view.priority,
        headers={**view.headers, REPAIR_OF: format_id(view.id)},
    )
    message.sender = view.sender
    message.correlation_id = view.correlation_id
    message.causation_id = view.id
    message.run_id = view.run_id
    message.hops = view.hops
    message.deadline = None if view.deadline is None else view.deadline.timestamp()
    try:
        bus.send(message, bus.inbox(name))
    except ActorbusError as error:
        return replace(one, why=str(error))
    return replace(one, standing=Standing.SENT, sent_as=message.id)


def _classes(node: Node) -> list[Any]:
    return [cell.agent_class for cell in list(node._runtime.cells.values())]


def _writes(node: Node, audit: Audit) -> bool:
    """Whether what `node` does is written to `audit`."""
    try:
        own = node.audit
    except AuditUnavailable:
        return False
    return (own.url, own.tenant, own.project) == (audit.url, audit.tenant, audit.project)
