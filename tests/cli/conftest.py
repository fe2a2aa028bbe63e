"""A deployment of the test's own on a real server, and the real commands run against it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from actorbus import Agent, Node, Reject, Settings, handles
from actorbus.cli import app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typer.testing import Result


class Text(BaseModel):
    body: str


class Count(BaseModel):
    words: int


class Counter(Agent):
    """Counts words; what it has no handler for goes to `box`."""

    capabilities = ("count-words",)
    subscriptions = ("news.>",)

    @handles
    def count(self, text: Text) -> Count:
        if text.body == "bad":
            raise ValueError("bad \x1b[31mtext")
        return Count(words=len(text.body.split()))

    @handles
    def refuse(self, number: int) -> None:
        raise Reject(f"no numbers such as {number}")

    def on_message(self, message: Any) -> None:
        self.tell("box", message.payload, headers=dict(message.headers), priority=message.priority)


class Commands:
    """Runs commands against one deployment."""

    def __init__(self, bus: str, namespace: str) -> None:
        self.bus = bus
        self.namespace = namespace

    def __call__(self, *arguments: str, stdin: str | None = None, **env: str) -> Result:
        env = {"ACTORBUS_BUS": self.bus, "ACTORBUS_NAMESPACE": self.namespace, **env}
        return CliRunner().invoke(app, list(arguments), input=stdin, env={"COLUMNS": "200", **env})

    def json(self, *arguments: str) -> Any:
        """What a command that ends with 0 prints with --json."""
        result = self(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def command(redis_url: str) -> Commands:
    return Commands(redis_url, uuid4().hex)


@pytest.fixture
def node(command: Commands) -> Iterator[Node]:
    """A node called `eu` that runs an agent called `counter`."""
    settings = Settings(namespace=command.namespace, log_level="off", drain_timeout=2)
    with Node(command.bus, name="eu", settings=settings) as node:
        node.spawn(Counter, name="counter")
        yield node
