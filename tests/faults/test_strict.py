"""``strict``: a message whose record cannot be committed is not delivered, however it is sent."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine

from actorbus import Agent, AuditUnavailable, Node, handles
from actorbus.persistence.audit import Audit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Listener(Agent):
    """Keeps what reaches it."""

    subscriptions = ("news",)
    heard: list[str]

    def __init__(self) -> None:
        super().__init__()
        self.heard = []

    @handles
    def hear(self, text: str) -> list[str]:
        self.heard.append(text)
        return list(self.heard)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'history.db'}?timeout=0"


@pytest.fixture
def node(url: str) -> Iterator[Node]:
    with Node(audit=Audit(url, strict=True)) as node:
        node.spawn(Listener, name="listener")
        yield node


@pytest.fixture
def lock(url: str) -> Iterator[Any]:
    engine = create_engine(url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


SENDS: dict[str, Callable[[Node], object]] = {
    "tell": lambda node: node.tell("listener", "refused"),
    "urgent tell": lambda node: node.ref("listener").tell("refused", headers={"a": "b"}),
    "delayed tell": lambda node: node.ref("listener").tell("refused", delay=0.01),
    "ask": lambda node: node.ref("listener").ask("refused").get(5),
    "broadcast": lambda node: node.broadcast("refused"),
    "publish": lambda node: node.topic("news").publish("refused"),
}


@pytest.mark.parametrize("send", SENDS.values(), ids=SENDS)
def test_a_send_whose_record_fails_is_not_delivered(
    node: Node, lock: Any, send: Callable[[Node], object]
) -> None:
    lock.exec_driver_sql("BEGIN IMMEDIATE")

    with pytest.raises(AuditUnavailable, match="not sent"):
        send(node)
    lock.rollback()

    assert node.ref("listener").ask("asked").get(10) == ["asked"]


def test_a_reply_whose_record_fails_is_an_error_to_the_asker(node: Node, lock: Any) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Agent):
        @handles
        def wait(self, text: str) -> str:
            begun.set()
            go_on.wait(10)
            return text

    reply = node.spawn(Slow, name="slow").ask("x")
    assert begun.wait(10)
    lock.exec_driver_sql("BEGIN IMMEDIATE")
    go_on.set()

    with pytest.raises(AuditUnavailable, match="not sent"):
        reply.get(10)
    lock.rollback()
