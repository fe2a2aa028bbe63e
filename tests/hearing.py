"""Who hears an answer: by which thread a reply is settled."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus import Reply

SOON = 10.0


def hears_itself(ask: Callable[[], Reply[Any]]) -> bool:
    """Whether an answer from another node is heard by this thread, which waits for it."""
    heard_by: list[int] = []
    reply = ask()
    reply.then(lambda: heard_by.append(threading.get_ident()))
    reply.get(SOON)
    return heard_by == [threading.get_ident()]
