"""What the tests of agents share: a node that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from actorbus import Node

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def node() -> Iterator[Node]:
    with Node() as node:
        yield node
