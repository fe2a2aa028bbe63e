"""A node whose history is on PostgreSQL, from its first message to what SQL finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, text

from actorbus import Agent, Node, Reject, handles
from actorbus.message import MessageKind, Reason, Status
from actorbus.persistence.audit import Audit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

HOSTILE = "\0 \ud800 \x1b[2J '; DROP TABLE agent_messages; -- \\u0000"


class Clerk(Agent):
    @handles
    def book(self, order: dict[str, Any]) -> str:
        if order["total"] < 0:
            raise Reject(f"no such total: {HOSTILE}")
        return f"booked for {order['customer']}"


@pytest.fixture
def told(postgres_url: str) -> Iterator[Audit]:
    """The history of a node that has stopped."""
    with Node(audit=postgres_url) as node:
        clerk = node.spawn(Clerk, name="clerk")
        clerk.ask({"customer": "Ærø", "total": 7, "lines": [{"sku": "x-1"}]}).get(20)
        clerk.tell({"customer": "nobody", "total": -1}, headers={"trace": HOSTILE})
        clerk.tell({HOSTILE: HOSTILE, "customer": HOSTILE, "total": 1})
        node.drain(20)
    audit = Audit(postgres_url)
    yield audit
    audit.close()


@pytest.fixture
def connection(postgres_url: str, told: Audit) -> Iterator[Connection]:
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_every_message_is_kept_with_what_became_of_it(told: Audit) -> None:
    asked, rejected, hostile, reply = sorted(
        told.messages(), key=lambda one: (one.kind == MessageKind.REPLY, one.id)
    )

    assert [one.status for one in (asked, rejected, hostile, reply)] == [
        Status.HANDLED,
        Status.DEAD,
        Status.HANDLED,
        Status.HANDLED,
    ]
    assert asked.payload == {"customer": "Ærø", "total": 7, "lines": [{"sku": "x-1"}]}
    assert (reply.payload, reply.causation_id) == ("booked for Ærø", asked.id)
    assert (rejected.reason, rejected.recipient) == (Reason.REJECTED, "clerk")
    assert told.conversation(reply.id) == [asked, reply]


def test_payloads_and_errors_are_found_by_their_text(told: Audit) -> None:
    wanted: list[tuple[dict[str, Any], list[int]]] = [
        ({"text": "ærØ", "recipient": "clerk"}, [7]),
        ({"text": "X-1"}, [7]),
        ({"text": "no such total"}, [-1]),
        ({"text": "drop table agent_messages", "status": "handled"}, [1]),
        ({"text": "%"}, []),
        ({"status": "dead"}, [-1]),
        ({"recipient": "clerk"}, [1, -1, 7]),
    ]

    found = [told.messages(**filters) for filters, _ in wanted]

    assert [
        [one.payload["total"] for one in page if one.recipient == "clerk"] for page in found
    ] == [totals for _, totals in wanted]


def test_payloads_answer_to_sql_as_jsonb(connection: Connection) -> None:
    found = connection.execute(
        text(
            "SELECT payload ->> 'customer', payload #>> '{lines,0,sku}' FROM agent_messages"
            " WHERE payload @> '{\"total\": 7}'"
        )
    )

    assert [tuple(row) for row in found] == [("Ærø", "x-1")]


def test_hostile_text_is_kept_and_harmless(told: Audit) -> None:
    dead = told.messages(status="dead")[0]
    kept = told.messages(text="drop table", status="handled")[0]

    harmless = HOSTILE.replace("\0", "\ufffd").replace("\ud800", "\\ud800")
    assert harmless.split("\\u0000")[0] in str(dead.error)
    assert "DROP TABLE" in dead.headers["trace"]
    assert "DROP TABLE" in kept.payload["customer"]
    assert "\0" not in repr((dead, kept))
