"""What the stress tests share: nodes that say nothing, and threads that switch often."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from actorbus import Node, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def make_node() -> Iterator[Callable[..., Node]]:
    """Nodes with these settings, stopped after the test."""
    nodes: list[Node] = []

    def make(**settings: Any) -> Node:
        node = Node(settings=Settings(log_level="off", **settings)).start()
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.stop()


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    return make_node()


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Let threads take turns a thousand times as often, so that races have their chance."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)
