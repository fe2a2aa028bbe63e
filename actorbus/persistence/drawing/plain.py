"""A message in JSON's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actorbus.message import format_id

if TYPE_CHECKING:
    from datetime import datetime

    from actorbus.persistence.answers import Delivery, MessageView


def plain(view: MessageView) -> dict[str, Any]:
    return {
        "id": format_id(view.id),
        "kind": str(view.kind),
        "type": view.type,
        "sender": view.sender,
        "recipient": view.recipient,
        "topic": view.topic,
        "priority": view.priority.name,
        "status": str(view.status),
        "reason": None if view.reason is None else str(view.reason),
        "error": view.error,
        "attempts": view.attempts,
        "created_at": _iso(view.created_at),
        "started_at": _iso(view.started_at),
        "ended_at": _iso(view.ended_at),
        "deadline": _iso(view.deadline),
        "waited": view.waited,
        "took": view.took,
        "correlation_id": format_id(view.correlation_id),
        "causation_id": None if view.causation_id is None else format_id(view.causation_id),
        "run_id": view.run_id,
        "node": view.node,
        "hops": view.hops,
        "headers": dict(view.headers),
        "payload": view.payload,
        "deliveries": [_delivery(one) for one in view.deliveries],
    }


def _delivery(one: Delivery) -> dict[str, Any]:
    return {
        "recipient": one.recipient,
        "status": str(one.status),
        "reason": None if one.reason is None else str(one.reason),
        "error": one.error,
        "attempt": one.attempt,
        "started_at": _iso(one.started_at),
        "ended_at": _iso(one.ended_at),
        "node": one.node,
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
