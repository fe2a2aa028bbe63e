"""Conversations to replay: made by a real node, read back from a real database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from actorbus import Node

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from actorbus.persistence.answers import MessageView


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'history.db'}"


@pytest.fixture
def recorded(url: str) -> Callable[..., list[MessageView]]:
    """Runs agents, drives them, and gives all that history then holds, oldest first."""

    def record(
        agents: Mapping[str, Any], drive: Callable[[Node], object], **node: Any
    ) -> list[MessageView]:
        with Node(audit=url, **node) as live:
            for name, agent in agents.items():
                live.spawn(agent, name=name)
            drive(live)
            live.drain(10)
            return live.audit.messages(limit=1_000)[::-1]

    return record
